"""W of LivePortrait: keypoints to a dense 3D motion field, and the feature volume warped by it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRECISION = 1 / (2 * 0.01)  # of the keypoints' Gaussians: exp(-PRECISION distance^2)


def gaussians(kp: Tensor, size: tuple[int, ...]) -> Tensor:
    """exp(-|g - kp|^2 / 0.02) at every cell g of a grid: (B, K, 3) -> (B, K, D, H, W)."""
    falloff = [
        (-PRECISION * (torch.linspace(-1, 1, n, device=kp.device) - centre[..., None]) ** 2).exp()
        for n, centre in zip(reversed(size), kp.unbind(-1), strict=True)
    ]
    x, y, z = falloff
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def identity_grid(size: tuple[int, ...], device: torch.device) -> Tensor:
    """(D, H, W, 3) of (x, y, z), the corner cells at exactly +-1."""
    z, y, x = torch.meshgrid(
        *(torch.linspace(-1, 1, n, device=device) for n in size), indexing="ij"
    )
    return torch.stack((x, y, z), dim=-1)


def sample_volume(volume: Tensor, grid: Tensor) -> Tensor:
    """Trilinear samples of volume (B, C, D, H, W) at grid (B, d, h, w, 3).

    The networks were trained with align_corners off although the grids have their corners at +-1:
    the identity grid shrinks the content a little. Outside is zero.
    """
    return F.grid_sample(volume, grid, align_corners=False)


class Hourglass(nn.Module):
    """A 3D U-Net that halves height and width but never depth; batch norms folded."""

    def __init__(self, channels: int, width: int, max_width: int, levels: int) -> None:
        super().__init__()
        wide = [min(max_width, width * 2**level) for level in range(levels + 1)]
        into = [channels, *wide[1:]]
        self.down = nn.ModuleList(
            nn.Conv3d(into[level], wide[level + 1], 3, padding=1) for level in range(levels)
        )
        self.up = nn.ModuleList(
            nn.Conv3d((1 if level == levels else 2) * wide[level], wide[level - 1], 3, padding=1)
            for level in range(levels, 0, -1)
        )
        self.channels = wide[0] + channels
        self.out = nn.Conv3d(self.channels, self.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, width + C, D, H, W)."""
        skips = []
        for conv in self.down:
            skips.append(x)
            x = F.avg_pool3d(F.relu(conv(x)), (1, 2, 2))
        for conv in self.up:
            x = F.relu(conv(F.interpolate(x, scale_factor=(1.0, 2.0, 2.0))))
            x = torch.cat((x, skips.pop()), dim=1)
        return F.relu(self.out(x))


@dataclass(frozen=True, slots=True)
class WarpSource:
    """What the warp needs of the portrait; B is 1 for a clip."""

    volume: Tensor  # (B, 32, 16, 64, 64)
    compressed: Tensor  # (B, 4, 16, 64, 64)
    kp: Tensor  # (B, 21, 3)
    heatmaps: Tensor  # (B, 21, 16, 64, 64)


def warp_source(compress: nn.Module, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
    """The source's share, its volume (B, 32, 16, 64, 64) brought to few channels by `compress`."""
    compressed = F.relu(compress(feature_volume)).float()
    heatmaps = gaussians(kp_source, feature_volume.shape[2:])
    return WarpSource(feature_volume, compressed, kp_source, heatmaps)


class DenseMotion(nn.Module):
    """Which keypoint moves each cell of the volume, and what the portrait does not show."""

    def __init__(
        self,
        num_keypoints: int,
        channels: int,
        depth: int,
        compressed: int,
        width: int,
        max_width: int,
        levels: int,
    ) -> None:
        super().__init__()
        fields = num_keypoints + 1
        self.compress = nn.Conv3d(channels, compressed, 1)
        self.hourglass = Hourglass(fields * (compressed + 1), width, max_width, levels)
        self.mask = nn.Conv3d(self.hourglass.channels, fields, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.channels * depth, 1, 7, padding=3)

    def forward(self, source: WarpSource, kp_driving: Tensor) -> tuple[Tensor, Tensor]:
        """Deformation (B, D, H, W, 3), float32, and occlusion map (B, 1, H, W) in (0, 1)."""
        size = source.volume.shape[2:]
        batch, fields = len(kp_driving), kp_driving.shape[1] + 1
        grid = identity_grid(size, kp_driving.device)
        # Field 0, the background, stays; field k carries keypoint k back to where it was.
        shift = F.pad(source.kp - kp_driving, (0, 0, 1, 0))  # (B, K + 1, 3)
        sparse = grid + shift[:, :, None, None, None]  # (B, K + 1, D, H, W, 3)
        compressed = source.compressed.expand(batch, -1, -1, -1, -1)
        moved = sample_volume(compressed, sparse.flatten(1, 2))  # the fields stacked along depth
        moved = moved.unflatten(2, (fields, size[0])).transpose(1, 2)
        heatmaps = gaussians(kp_driving, size) - source.heatmaps
        heatmaps = F.pad(heatmaps, (0, 0, 0, 0, 0, 0, 1, 0))[:, :, None]
        prediction = self.hourglass(torch.cat((heatmaps, moved), dim=2).flatten(1, 2))

        mask = self.mask(prediction).float().softmax(dim=1)  # (B, K + 1, D, H, W)
        # The shares sum to 1, so the mean of the fields is the grid plus the mean of their shifts.
        mean_shift = (mask[:, :, None] * shift[..., None, None, None]).sum(dim=1)
        deformation = grid + mean_shift.movedim(1, -1)
        return deformation, self.occlusion(prediction.flatten(1, 2)).sigmoid()


class WarpingNetwork(nn.Module):
    """W of LivePortrait (arXiv:2407.03168, sec. 3.1), batch norms folded. Defaults: as released.

    Coordinates, heatmaps and the deformation are float32 under autocast too: near 1 a bfloat16 step
    is an eighth of a cell.
    """

    def __init__(
        self,
        num_keypoints: int = 21,
        channels: int = 32,
        depth: int = 16,
        out_channels: int = 256,
        compressed: int = 4,
        hourglass_width: int = 32,
        hourglass_max_width: int = 1024,
        hourglass_levels: int = 5,
    ) -> None:
        super().__init__()
        self.dense_motion = DenseMotion(
            num_keypoints,
            channels,
            depth,
            compressed,
            hourglass_width,
            hourglass_max_width,
            hourglass_levels,
        )
        self.third = nn.Conv2d(channels * depth, out_channels, 3, padding=1)
        self.fourth = nn.Conv2d(out_channels, out_channels, 1)

    def prepare(self, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
        """The part of the work that the driving keypoints do not change, done once per portrait.

        feature_volume: (B, 32, 16, 64, 64). kp_source: (B, 21, 3).
        """
        return warp_source(self.dense_motion.compress, feature_volume, kp_source)

    def forward(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Warped features (B, 256, 64, 64) for kp_driving (B, 21, 3)."""
        deformation, occlusion = self.dense_motion(source, kp_driving)
        volume = source.volume.expand(len(kp_driving), -1, -1, -1, -1)
        warped = sample_volume(volume, deformation).flatten(1, 2)
        features: Tensor = self.fourth(F.leaky_relu(self.third(warped), 0.01)) * occlusion
        return features
