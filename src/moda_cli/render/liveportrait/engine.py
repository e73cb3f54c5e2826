"""W and G with fewer operations: the functions of warp.py and spade.py up to rounding.

All is made from the plain networks, which stay the reference. Weights are cast once; coordinates,
heatmaps and the deformation are float32 whatever the weights are. Maps are channels-last, their
channels padded by zeros to what matrix units like.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.device import keep_compiled
from moda_cli.render.liveportrait.convolutions import (
    ALIGNED,
    EnlargedConv,
    fixed_conv,
    joined,
    pad_channels,
    slices,
    weights,
)
from moda_cli.render.liveportrait.networks import Networks, to_pixels
from moda_cli.render.liveportrait.spade import Spade, SpadeBlock, SpadeGenerator
from moda_cli.render.liveportrait.warp import (
    Hourglass,
    WarpingNetwork,
    WarpSource,
    gaussians,
    identity_grid,
    sample_volume,
    warp_source,
)

NORM_EPS = 1e-5


def shift_matrices(shift: Tensor, size: int) -> Tensor:
    """(..., size, size): samples of a line of cells, moved by `shift` (...), of its values.

    Linear interpolation, zero outside, positions as `sample_volume` takes them.
    """
    cells = torch.arange(size, dtype=shift.dtype, device=shift.device)
    at = torch.linspace(-1, 1, size, dtype=shift.dtype, device=shift.device) + shift[..., None]
    position = ((at + 1) * size - 1) / 2
    return (1 - (position[..., None] - cells).abs()).clamp(min=0)


class FastHourglass(nn.Module):
    """The hourglass on padded channels; `order` says where each of ours was, -1 is a zero."""

    def __init__(self, plain: Hourglass, order: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()

        def ordered(weight: Tensor) -> Tensor:
            """`weight` with its last input channels in `order`."""
            head = weight[:, : weight.shape[1] - (max(order) + 1)]
            tail = weight[:, weight.shape[1] - (max(order) + 1) :]
            tail = tail[:, [max(k, 0) for k in order]]
            tail[:, [k < 0 for k in order]] = 0
            return torch.cat((head, tail), dim=1)

        first, *rest = plain.down
        weight, bias = weights(first)
        self.down = nn.ModuleList([fixed_conv(ordered(weight), bias, dtype, 1)])
        self.down.extend(fixed_conv(*weights(conv), dtype, 1) for conv in rest)
        self.up = nn.ModuleList(EnlargedConv(*weights(conv), 2, dtype) for conv in plain.up)
        weight, bias = weights(plain.out)
        weight = pad_channels(pad_channels(ordered(weight), 0), 1)
        self.out = fixed_conv(weight, pad_channels(bias, 0), dtype, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, padded width + C, D, H, W)."""
        skips = []
        for conv in self.down:
            skips.append(x)
            x = slices(F.relu_(conv(x)))  # the CPU pools volumes in float32 alone
            x = F.avg_pool2d(x, 2).unflatten(0, (len(skips[0]), -1)).transpose(1, 2)
        for conv in self.up:
            x = torch.cat((conv(x), skips.pop()), dim=1)
        return F.relu_(self.out(pad_channels(x, 1)))


class FastWarping(nn.Module):
    """WarpingNetwork with fewer operations.

    The compressed volume is moved by interpolation matrices, axis by axis. The depth taps of the
    mask's convolution and all taps of the occlusion's are output channels, added up afterwards:
    22 channels and 1 would leave a matrix unit mostly idle.
    """

    def __init__(self, plain: WarpingNetwork, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        dense = plain.dense_motion
        parts = 1 + dense.compress.out_channels  # heatmap and moved volume of each field
        self.num_fields = dense.mask.out_channels
        fields = range(self.num_fields)
        order = [parts * k for k in fields[1:]]  # the background's heatmap is zero
        order += [parts * k + 1 + part for k in fields for part in range(parts - 1)]
        order += [-1] * (-len(order) % ALIGNED)
        self.compress = dense.compress  # once per portrait, in float32
        self.hourglass = FastHourglass(dense.hourglass, order, dtype)

        mask, bias = weights(dense.mask)
        mask = pad_channels(mask, 1)  # (K + 1, C, 7, 7, 7)
        self.num_taps = mask.shape[2]
        mask = pad_channels(mask.movedim(2, 0).flatten(0, 1), 0)
        self.mask = fixed_conv(mask, None, dtype, padding=self.num_taps // 2)
        self.mask_bias = nn.Buffer(bias)

        occlusion, bias = weights(dense.occlusion)
        occlusion = occlusion.unflatten(1, (dense.mask.in_channels, -1))[0]
        self.occlusion_size = occlusion.shape[-1]
        occlusion = pad_channels(occlusion.flatten(2).flip(2).permute(2, 0, 1), 0)
        occlusion = pad_channels(occlusion[..., None, None], 1)  # (taps, C, D, 1, 1)
        self.occlusion = fixed_conv(occlusion, None, dtype)
        self.occlusion_bias = nn.Buffer(bias)

        self.third = fixed_conv(*weights(plain.third), dtype, 1)
        self.fourth = fixed_conv(*weights(plain.fourth), dtype)

    def prepare(self, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
        """`WarpingNetwork.prepare`."""
        return warp_source(self.compress, feature_volume, kp_source)

    def forward(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Warped features (B, 256, 64, 64) in `dtype` for kp_driving (B, 21, 3)."""
        deformation, occlusion = self.dense_motion(source, kp_driving)
        volume = source.volume.expand(len(kp_driving), -1, -1, -1, -1)
        warped = sample_volume(volume, deformation).flatten(1, 2)
        warped = warped.to(self.dtype, memory_format=torch.channels_last)
        features = self.fourth(F.leaky_relu_(self.third(warped), 0.01))
        return features * occlusion.to(features)  # type: ignore[no-any-return]

    def dense_motion(self, source: WarpSource, kp_driving: Tensor) -> tuple[Tensor, Tensor]:
        """Deformation (B, D, H, W, 3) and occlusion map (B, 1, H, W), both float32."""
        size = source.volume.shape[2:]
        shift = F.pad(source.kp - kp_driving, (0, 0, 1, 0))  # (B, K + 1, 3)
        heatmaps = gaussians(kp_driving, size) - source.heatmaps
        given = torch.cat((heatmaps, self.moved(source, shift)), dim=1).to(self.dtype)
        given = pad_channels(given, 1).contiguous(memory_format=torch.channels_last_3d)
        prediction = self.hourglass(given)

        mask = self.logits(prediction).softmax(dim=-1)  # (B, D, H, W, K + 1)
        mean_shift = (mask.flatten(1, 3) @ shift).unflatten(1, size)
        deformation = identity_grid(size, shift.device) + mean_shift
        taps = self.occlusion(prediction)[:, : self.occlusion_size**2].float()
        occlusion = F.fold(
            taps.flatten(2), size[1:], self.occlusion_size, padding=self.occlusion_size // 2
        )
        return deformation, (occlusion + self.occlusion_bias).sigmoid()

    def moved(self, source: WarpSource, shift: Tensor) -> Tensor:
        """The compressed volume moved by each shift (B, K + 1, 3): (B, (K + 1) C, D, H, W)."""
        batch = len(shift)
        x, y, z = (
            shift_matrices(shift[..., axis], size)
            for axis, size in enumerate(reversed(source.volume.shape[2:]))
        )
        compressed = source.compressed.expand(batch, -1, -1, -1, -1)
        moved = torch.einsum("bcdhw,bkvw->bkcdhv", compressed, x)
        moved = torch.einsum("bkcdhv,bkuh->bkcduv", moved, y)
        return torch.einsum("bkcduv,bked->bkceuv", moved, z).flatten(1, 2)

    def logits(self, prediction: Tensor) -> Tensor:
        """The mask before its softmax: (B, C, D, H, W) -> (B, D, H, W, K + 1) float32."""
        depth, taps = prediction.shape[2], self.num_taps
        each = self.mask(slices(prediction)).permute(0, 2, 3, 1)[..., : taps * self.num_fields]
        each = each.unflatten(-1, (taps, -1)).unflatten(0, (-1, depth))  # (B, D, H, W, taps, K + 1)
        # slice d takes what slice d + tap - taps // 2 has for it, nothing from beyond the ends
        each = F.pad(each, (0, 0) * 4 + (taps // 2, taps // 2))
        logits: Tensor = self.mask_bias
        for tap in range(taps):  # not in place: torch.compile makes one kernel of it
            logits = logits + each[:, tap : tap + depth, :, :, tap]
        return logits


class FastSpade(nn.Module):
    """`Spade` after its first convolution; scale and shift are one convolution."""

    def __init__(self, plain: Spade, dtype: torch.dtype) -> None:
        super().__init__()
        (gamma, gamma_bias), (beta, beta_bias) = weights(plain.gamma), weights(plain.beta)
        weight, bias = torch.cat((gamma, beta)), torch.cat((1 + gamma_bias, beta_bias))
        self.gamma_beta = fixed_conv(weight, bias, dtype, 1)

    def forward(self, normal: Tensor, hidden: Tensor) -> Tensor:
        """normal: (B, C, H, W) after instance norm. hidden: (B, 128, H, W)."""
        scale, shift = torch.chunk(self.gamma_beta(hidden), 2, dim=1)
        return shift.addcmul_(normal, scale)


def normalised(x: Tensor) -> Tensor:
    """Instance norm of (B, C, H, W), its statistics in float32."""
    away = x - x.float().mean(dim=(2, 3), keepdim=True)
    variance = away.square().mean(dim=(2, 3), keepdim=True)
    return (away * (variance + NORM_EPS).rsqrt()).to(x.dtype)


class FastBlock(nn.Module):
    """`SpadeBlock` on a map of which height and width are first enlarged by copying, or not.

    Copying changes neither mean nor deviation, so the small map is normalised.
    """

    def __init__(self, plain: SpadeBlock, enlarged: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.enlarged = enlarged
        self.learned_shortcut = plain.learned_shortcut
        self.conv_0 = fixed_conv(*weights(plain.conv_0), dtype, 1)
        self.conv_1 = fixed_conv(*weights(plain.conv_1), dtype, 1)
        self.norm_0 = FastSpade(plain.norm_0, dtype)
        self.norm_1 = FastSpade(plain.norm_1, dtype)
        if self.learned_shortcut:
            self.conv_s = fixed_conv(plain.conv_s.weight, None, dtype)
            (gamma, gamma_bias), (beta, beta_bias) = (
                weights(conv) for conv in (plain.norm_s.gamma, plain.norm_s.beta)
            )
            # No activation stands between: a shift that has gone through conv_s is made at once,
            # with as many channels as leave the block.
            through = plain.conv_s.weight.detach().flatten(1)  # (out, C)
            weight = torch.cat((gamma, torch.einsum("oc,chij->ohij", through, beta)))
            bias = torch.cat((1 + gamma_bias, through @ beta_bias))
            self.gamma_beta_s = fixed_conv(weight, bias, dtype, 1)

    def forward(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """x: (B, C, h, w) -> (B, out, H, W). hidden: (B, 128, H, W) of norms 0, 1 and s."""
        normal = normalised(x)
        if self.enlarged:
            normal = F.interpolate(normal, scale_factor=2.0)
        dx = self.conv_0(F.leaky_relu_(self.norm_0(normal, hidden[0]), 0.2))
        dx = self.conv_1(F.leaky_relu_(self.norm_1(normalised(dx), hidden[1]), 0.2))
        if not self.learned_shortcut:
            return x + dx  # type: ignore[no-any-return]
        scale, shift = self.gamma_beta_s(hidden[2]).tensor_split((normal.shape[1],), dim=1)
        return dx + self.conv_s(normal * scale) + shift  # type: ignore[no-any-return]


class FastGenerator(nn.Module):
    """SpadeGenerator with fewer operations; the first convolutions of a map's norms are one."""

    def __init__(self, plain: SpadeGenerator, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.upscale = plain.upscale
        self.fc = fixed_conv(*weights(plain.fc), dtype, 1)
        middle, up = (
            [block for block in part if isinstance(block, SpadeBlock)]
            for part in (plain.middle, plain.up)
        )
        self.middle = nn.ModuleList(FastBlock(block, False, dtype) for block in middle)
        self.up = nn.ModuleList(FastBlock(block, True, dtype) for block in up)
        shared = [norm.shared for block in middle for norm in (block.norm_0, block.norm_1)]
        self.shared = fixed_conv(*joined(shared), dtype, 1)
        norms = [(block.norm_0, block.norm_1, block.norm_s) for block in up]
        self.shared_up = nn.ModuleList(
            EnlargedConv(*joined([norm.shared for norm in three]), 2 ** (level + 1), dtype)
            for level, three in enumerate(norms)
        )
        self.to_rgb = fixed_conv(*weights(plain.to_rgb), dtype, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Warped features (B, 256, 64, 64) in `dtype` -> float32 image (B, 3, 512, 512)."""
        features = features.contiguous(memory_format=torch.channels_last)
        x = self.fc(features)
        hidden = F.relu_(self.shared(features)).chunk(2 * len(self.middle), dim=1)
        for k, block in enumerate(self.middle):
            x = block(x, hidden[2 * k : 2 * k + 2])
        for block, shared in zip(self.up, self.shared_up, strict=True):
            x = block(x, shared(features).chunk(3, dim=1))
        image = F.pixel_shuffle(self.to_rgb(F.leaky_relu_(x, 0.2)), self.upscale)
        return image.float().sigmoid()


class Engine:
    """S, W and G made fast, loaded once for any number of portraits: equal to `Networks`.

    Weights are cast to the networks' dtype once. compile: by torch.compile in this mode, for one
    batch size; what it makes is kept in `cache`, so that only the first run waits for it.
    """

    def __init__(
        self, networks: Networks, compile: str | None = None, cache: Path | None = None
    ) -> None:
        self.retargeting, self.dtype = networks.retargeting, networks.dtype
        self.device = networks.device
        self.fixed_batch = compile is not None
        self._in_graphs = compile is not None and compile != "default"
        self._warping = FastWarping(networks.warping, networks.dtype).eval()
        self._generator = FastGenerator(networks.generator, networks.dtype).eval()
        if cache:
            keep_compiled(cache)
        self._draw = (
            torch.compile(self._eager, mode=compile, dynamic=False) if compile else self._eager
        )

    def prepare(self, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
        """What W needs of a portrait: feature_volume (1, 32, 16, 64, 64), kp_source (1, 21, 3)."""
        return self._warping.prepare(feature_volume.to(self.device), kp_source)

    def picture(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Float32 images (B, 3, 512, 512) in [0, 1] for kp_driving (B, 21, 3)."""
        image: Tensor = self._generator(self._warping(source, kp_driving))
        return image

    def pixels(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Images (B, 512, 512, 3) uint8 for kp_driving (B, 21, 3)."""
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            pixels: Tensor = self._draw(source, kp_driving)
        # the next replay of a CUDA graph writes where this one did
        return pixels.clone() if self._in_graphs else pixels

    def _eager(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        return to_pixels(self.picture(source, kp_driving))
