"""LivePortrait's two networks that look at a portrait: for its appearance, and for its motion."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.device import tf32
from moda_cli.motion import Motion, Source, pack
from moda_cli.weights.load import load_network
from moda_cli.weights.renames import liveportrait

EXTRACTORS = ("appearance_extractor", "motion_extractor")  # components
POSE_BINS = 66  # of 3 degrees, from -97.5
LAYER_NORM_EPS = 1e-6


class VolumeBlock(nn.Module):
    """Pre-activation residual block; the second batch norm is folded into `conv1`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D, H, W)."""
        return x + self.conv2(F.relu(self.conv1(F.relu(self.norm1(x)))))  # type: ignore[no-any-return]


class AppearanceExtractor(nn.Module):
    """F of LivePortrait (arXiv:2407.03168, sec. 3.1), batch norms folded. Defaults: as released."""

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256),
        channels: int = 32,
        depth: int = 16,
        num_blocks: int = 6,
    ) -> None:
        super().__init__()
        self.volume = (channels, depth)
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(narrow, wide, 3, padding=1) for narrow, wide in pairwise(widths)
        )
        self.lift = nn.Conv2d(widths[-1], channels * depth, 1)
        self.blocks = nn.Sequential(*(VolumeBlock(channels) for _ in range(num_blocks)))

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, 256, 256) in [0, 1] -> feature_volume (B, 32, 16, 64, 64)."""
        x = F.relu(self.first(image))
        for conv in self.down:
            x = F.avg_pool2d(F.relu(conv(x)), 2)
        volume: Tensor = self.blocks(self.lift(x).unflatten(1, self.volume))
        return volume


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv:2301.00808, sec. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * relative) + self.beta + x


class ConvNeXtBlock(nn.Module):
    """One residual block of ConvNeXt V2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = ResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        hidden = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        hidden = self.pwconv2(self.grn(F.gelu(self.pwconv1(hidden))))
        return x + hidden.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class MotionExtractor(nn.Module):
    """M of LivePortrait: ConvNeXt V2 tiny with seven linear heads. Defaults: as released."""

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        num_keypoints: int = 21,
    ) -> None:
        super().__init__()

        def norm(channels: int) -> ChannelNorm:
            return ChannelNorm(channels, eps=LAYER_NORM_EPS)

        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), norm(widths[0]))
        self.downsample = nn.ModuleList([stem])
        for narrow, wide in pairwise(widths):
            halve = nn.Conv2d(narrow, wide, 2, stride=2)
            self.downsample.append(nn.Sequential(norm(narrow), halve))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=LAYER_NORM_EPS)
        sizes = {
            "kp_canonical": 3 * num_keypoints,
            "expression": 3 * num_keypoints,
            "scale": 1,
            "translation": 3,
            "pitch": POSE_BINS,
            "yaw": POSE_BINS,
            "roll": POSE_BINS,
        }
        self.heads = nn.ModuleDict(
            {name: nn.Linear(widths[-1], size) for name, size in sizes.items()}
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image (B, 3, 256, 256) in [0, 1] -> heads by name; pitch, yaw, roll are bin logits."""
        x = image
        for downsample, stage in zip(self.downsample, self.stages, strict=True):
            x = stage(downsample(x))
        pooled = self.norm(x.mean(dim=(2, 3)))
        return {name: head(pooled) for name, head in self.heads.items()}


def pose_degrees(logits: Tensor) -> Tensor:
    """The expected angle (...) in [-97.5, 97.5] degrees of bin logits (..., 66)."""
    bins = torch.arange(POSE_BINS, dtype=logits.dtype, device=logits.device)
    return (logits.softmax(dim=-1) * bins).sum(dim=-1) * 3 - 97.5


def read_heads(heads: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Physical motion (B, 70) and canonical keypoints (B, 21, 3) of the motion extractor's heads.

    Translation along z is dropped, as everywhere in the release.
    """
    pose = torch.stack([pose_degrees(heads[name]) for name in ("pitch", "yaw", "roll")], dim=-1)
    still = heads["translation"] * heads["translation"].new_tensor([1.0, 1.0, 0.0])
    motion = Motion(heads["expression"], heads["scale"], still, pose)
    return pack(motion), heads["kp_canonical"].unflatten(-1, (-1, 3))


@dataclass(frozen=True, slots=True)
class Extractors:
    """F and M, loaded once. F runs in `dtype`; M always in float32, where 16 bits cost accuracy."""

    appearance: AppearanceExtractor
    motion: MotionExtractor
    dtype: torch.dtype = torch.float32

    @torch.inference_mode()
    def motions(self, crops: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Motion (B, 70) and kp_canonical (B, 21, 3) on the CPU of crops (B, 256, 256, 3) RGB."""
        with tf32(False):
            motion, kp_canonical = read_heads(self.motion(self._images(crops)))
        return motion.cpu(), kp_canonical.cpu()

    @torch.inference_mode()
    def extract(self, crop: NDArray[np.uint8]) -> tuple[Tensor, Source]:
        """feature_volume (1, 32, 16, 64, 64) float32 on the device, and what M says of the face.

        crop: (256, 256, 3) uint8 RGB.
        """
        image = self._images(crop[None])
        half = self.dtype != torch.float32
        with tf32(False), torch.autocast(image.device.type, self.dtype, enabled=half):
            volume = self.appearance(image)
        motion, kp_canonical = self.motions(crop[None])
        return volume.float(), Source(motion[0], kp_canonical[0])

    def _images(self, crops: NDArray[np.uint8]) -> Tensor:
        device = next(self.motion.parameters()).device
        return torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255


def load_motion_extractor(device: torch.device) -> MotionExtractor:
    """M. Raises WeightsError where it is missing, damaged or of another shape."""
    state_of = partial(liveportrait.liveportrait_state, table=liveportrait.MOTION)
    return load_network(EXTRACTORS[1], MotionExtractor, state_of, device)


def load_extractors(device: torch.device, dtype: torch.dtype) -> Extractors:
    """F and M. Raises WeightsError where one is missing, damaged or of another shape."""
    state_of = partial(liveportrait.liveportrait_state, table=liveportrait.APPEARANCE)
    appearance = load_network(EXTRACTORS[0], AppearanceExtractor, state_of, device)
    return Extractors(appearance, load_motion_extractor(device), dtype)
