"""W and G with fewer operations: the functions of warp.py and spade.py up to rounding.

All is made from the plain networks, which stay the reference. Weights are cast once; coordinates,
heatmaps and the deformation are float32 whatever the weights are. Maps are channels last from end
to end, their channels padded by zeros to what matrix units like; `fused` has what stands between
the convolutions.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.device import keep_compiled, tf32
from moda_cli.graphs import recorded
from moda_cli.render.liveportrait.convolutions import (
    ALIGNED,
    Conv,
    EnlargedConv,
    OpenConv,
    joined,
    pad_channels,
    slices,
    weights,
)
from moda_cli.render.liveportrait.fused import (
    activate,
    copied,
    deformation,
    modulate,
    motion_map,
    sampled,
    statistics,
)
from moda_cli.render.liveportrait.networks import Networks, to_pixels
from moda_cli.render.liveportrait.spade import Spade, SpadeBlock, SpadeGenerator
from moda_cli.render.liveportrait.warp import Hourglass, WarpingNetwork, WarpSource, warp_source


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
        self.down = nn.ModuleList([OpenConv(ordered(weight), bias, dtype, 1)])
        self.down.extend(OpenConv(*weights(conv), dtype, 1) for conv in rest)
        self.up = nn.ModuleList(EnlargedConv(*weights(conv), 2, dtype) for conv in plain.up)
        weight, bias = weights(plain.out)
        weight = pad_channels(pad_channels(ordered(weight), 0), 1)
        self.out = OpenConv(weight, pad_channels(bias, 0), dtype, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, padded width + C, D, H, W)."""
        skips = []
        for conv in self.down:
            skips.append(x)
            x = slices(activate(*conv(x), slope=0.0))  # the CPU pools volumes in float32 alone
            x = F.avg_pool2d(x, 2).unflatten(0, (len(skips[0]), -1)).transpose(1, 2)
        for conv in self.up:
            x = torch.cat((*conv(x), skips.pop()), dim=1)
        return activate(*self.out(pad_channels(x, 1)), slope=0.0)


class FastWarping(nn.Module):
    """WarpingNetwork with fewer operations.

    The depth taps of the mask's convolution and all taps of the occlusion's are output channels,
    added up afterwards: 22 channels and 1 would leave a matrix unit mostly idle.
    """

    def __init__(self, plain: WarpingNetwork, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        dense = plain.dense_motion
        self.compress = dense.compress  # once per portrait, in float32
        num_fields, each = dense.mask.out_channels, dense.compress.out_channels
        parts = 1 + each  # the release has heatmap and moved volume of each field side by side
        order = [parts * k + 1 + part for k in range(num_fields) for part in range(each)]
        order += [parts * k for k in range(1, num_fields)]  # the background's heatmap is zero
        order += [-1] * (-len(order) % ALIGNED)
        self.channels = len(order)
        self.hourglass = FastHourglass(dense.hourglass, order, dtype)

        mask, bias = weights(dense.mask)
        mask = pad_channels(mask, 1)  # (K + 1, C, 7, 7, 7)
        self.num_taps = mask.shape[2]
        mask = pad_channels(mask.movedim(2, 0).flatten(0, 1), 0)
        self.mask = Conv(mask, None, dtype, padding=self.num_taps // 2)
        self.mask_bias = nn.Buffer(bias)

        occlusion, bias = weights(dense.occlusion)
        occlusion = occlusion.unflatten(1, (dense.mask.in_channels, -1))[0]
        self.occlusion_size = occlusion.shape[-1]
        occlusion = pad_channels(occlusion.flatten(2).flip(2).permute(2, 0, 1), 0)
        occlusion = pad_channels(occlusion[..., None, None], 1)  # (taps, C, D, 1, 1)
        self.occlusion = Conv(occlusion, None, dtype)
        self.occlusion_bias = nn.Buffer(bias)

        third, bias = weights(plain.third)
        third = third.unflatten(1, (dense.compress.in_channels, -1)).transpose(1, 2).flatten(1, 2)
        self.third = OpenConv(third, bias, dtype, 1)  # reads slice by slice
        self.fourth = Conv(*weights(plain.fourth), dtype)

    def prepare(self, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
        """`WarpingNetwork.prepare`."""
        return warp_source(self.compress, feature_volume, kp_source)

    def forward(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Warped features (B, 256, 64, 64) in `dtype` for kp_driving (B, 21, 3)."""
        deformation, occlusion = self.dense_motion(source, kp_driving)
        warped = sampled(source.volume, deformation, self.dtype)
        features = self.fourth(activate(*self.third(warped), slope=0.01))
        return features * occlusion.to(features)  # type: ignore[no-any-return]

    def dense_motion(self, source: WarpSource, kp_driving: Tensor) -> tuple[Tensor, Tensor]:
        """Deformation (B, D, H, W, 3) and occlusion map (B, 1, H, W), both float32."""
        given = motion_map(source.compressed, source.kp, kp_driving, self.channels, self.dtype)
        prediction = self.hourglass(given)
        shift = F.pad(source.kp - kp_driving, (0, 0, 1, 0))  # (B, K + 1, 3)
        taps = self.mask(slices(prediction))
        moved = deformation(taps, self.mask_bias, shift, self.num_taps)

        taps = self.occlusion(prediction)[:, : self.occlusion_size**2].float()
        size, padding = self.occlusion_size, self.occlusion_size // 2
        occlusion = F.fold(taps.flatten(2), given.shape[3:], size, padding=padding)
        return moved, (occlusion + self.occlusion_bias).sigmoid()


class FastSpade(nn.Module):
    """`Spade` after its first convolution; scale and shift are one convolution."""

    def __init__(self, plain: Spade, dtype: torch.dtype) -> None:
        super().__init__()
        (gamma, gamma_bias), (beta, beta_bias) = weights(plain.gamma), weights(plain.beta)
        weight, bias = torch.cat((gamma, beta)), torch.cat((1 + gamma_bias, beta_bias))
        self.gamma_beta = OpenConv(weight, bias, dtype, 1)

    def forward(self, x: Tensor, statistics: Tensor, hidden: Tensor) -> Tensor:
        """Leaky ReLU too. x: (B, C, h, w) and its statistics. hidden: (B, 128, H, W)."""
        gamma_beta, bias = self.gamma_beta(hidden)
        scale, shift = gamma_beta.chunk(2, dim=1)
        return modulate(x, statistics, scale, shift, bias, 0.2)


class FastBlock(nn.Module):
    """`SpadeBlock` on a map of which height and width are first enlarged by copying, or not.

    Copying changes neither mean nor deviation, so those of the small map are taken. Before an
    instance norm no bias is needed: conv_0 has none, and the whole block only where it is the
    `last`, which a leaky ReLU follows instead.
    """

    def __init__(self, plain: SpadeBlock, last: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.learned_shortcut, self.slope = plain.learned_shortcut, 0.2 if last else 1.0
        (weight_0, _), (weight_1, bias_1) = weights(plain.conv_0), weights(plain.conv_1)
        self.conv_0 = Conv(weight_0, None, dtype, 1)
        self.norm_0 = FastSpade(plain.norm_0, dtype)
        self.norm_1 = FastSpade(plain.norm_1, dtype)
        if self.learned_shortcut:
            self.conv_s = Conv(plain.conv_s.weight, None, dtype)
            (gamma, gamma_bias), (beta, beta_bias) = (
                weights(conv) for conv in (plain.norm_s.gamma, plain.norm_s.beta)
            )
            # No activation stands between: a shift that has gone through conv_s is made at once,
            # with as many channels as leave the block; its bias is one with conv_1's.
            through = plain.conv_s.weight.detach().flatten(1)  # (out, C)
            weight = torch.cat((gamma, torch.einsum("oc,chij->ohij", through, beta)))
            bias_1 = bias_1 + through @ beta_bias
            bias = torch.cat((1 + gamma_bias, torch.zeros_like(bias_1)))
            self.gamma_beta_s = OpenConv(weight, bias, dtype, 1)
        self.conv_1 = OpenConv(weight_1, bias_1 if last else None, dtype, 1)

    def forward(self, x: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """x: (B, C, h, w) -> (B, out, H, W). hidden: (B, 128, H, W) of norms 0, 1 and s."""
        of_x = statistics(x)
        dx = self.conv_0(self.norm_0(x, of_x, hidden[0]))
        dx, bias = self.conv_1(self.norm_1(dx, statistics(dx), hidden[1]))
        if not self.learned_shortcut:
            return activate(dx, bias, slope=self.slope, plus=[x])
        gamma_beta, bias_s = self.gamma_beta_s(hidden[2])
        scale, shift = gamma_beta.tensor_split((x.shape[1],), dim=1)
        shortcut = self.conv_s(modulate(x, of_x, scale, None, bias_s, 1.0))
        return activate(dx, bias, slope=self.slope, plus=[shortcut, shift])


class FastGenerator(nn.Module):
    """SpadeGenerator with fewer operations; the first convolutions of a map's norms are one."""

    def __init__(self, plain: SpadeGenerator, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.upscale = plain.upscale
        self.fc = Conv(plain.fc.weight, None, dtype, 1)  # instance norms come after it
        middle, up = (
            [block for block in part if isinstance(block, SpadeBlock)]
            for part in (plain.middle, plain.up)
        )
        self.middle = nn.ModuleList(FastBlock(block, False, dtype) for block in middle)
        self.up = nn.ModuleList(FastBlock(block, block is up[-1], dtype) for block in up)
        shared = [norm.shared for block in middle for norm in (block.norm_0, block.norm_1)]
        self.shared = OpenConv(*joined(shared), dtype, 1)
        norms = [(block.norm_0, block.norm_1, block.norm_s) for block in up]
        self.shared_up = nn.ModuleList(
            EnlargedConv(*joined([norm.shared for norm in three]), 2 ** (level + 1), dtype, 3)
            for level, three in enumerate(norms)
        )
        self.to_rgb = Conv(*weights(plain.to_rgb), dtype, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Warped features (B, 256, 64, 64) in `dtype` -> float32 image (B, 3, 512, 512)."""
        features = features.contiguous(memory_format=torch.channels_last)
        x = self.fc(features)
        hidden = copied(*self.shared(features), parts=2 * len(self.middle))
        for k, block in enumerate(self.middle):
            x = block(x, hidden[2 * k : 2 * k + 2])
        for block, shared in zip(self.up, self.shared_up, strict=True):
            x = block(x, shared(features))
        return F.pixel_shuffle(self.to_rgb(x), self.upscale).float().sigmoid()


class Engine:
    """S, W and G made fast, loaded once for any number of portraits: equal to `Networks`.

    Weights are cast to the networks' dtype once. On CUDA a whole batch is one graph. compiled: by
    torch.compile, for one batch size; what it makes is kept in `cache`, so that only the first run
    waits for it.
    """

    def __init__(
        self, networks: Networks, compiled: bool = False, cache: Path | None = None
    ) -> None:
        self.retargeting, self.dtype = networks.retargeting, networks.dtype
        self.device = networks.device
        self._warping = FastWarping(networks.warping, networks.dtype).eval()
        self._generator = FastGenerator(networks.generator, networks.dtype).eval()
        if cache:
            keep_compiled(cache)
        self._paint = torch.compile(self._pixels, dynamic=False) if compiled else self._pixels
        self._draw = recorded(self._exactly, self.device)
        self.fixed_batch = compiled or self.device.type == "cuda"

    def prepare(self, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
        """What W needs of a portrait: feature_volume (1, 32, 16, 64, 64), kp_source (1, 21, 3)."""
        with tf32(False):
            return self._warping.prepare(feature_volume.to(self.device), kp_source)

    def picture(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Float32 images (B, 3, 512, 512) in [0, 1] for kp_driving (B, 21, 3)."""
        with tf32(False):
            image: Tensor = self._generator(self._warping(source, kp_driving))
        return image

    def pixels(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Images (B, 512, 512, 3) uint8 for kp_driving (B, 21, 3)."""
        return self._draw(source, kp_driving)

    def _exactly(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        with tf32(False):  # the 16 bits of a half precision are in the weights and maps alone
            return self._paint(source, kp_driving)

    def _pixels(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        return to_pixels(self._generator(self._warping(source, kp_driving)))
