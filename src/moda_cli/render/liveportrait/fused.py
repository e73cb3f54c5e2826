"""What stands between the engine's convolutions: on a GPU one Triton kernel each, here in PyTorch.

The functions here are the reference of `kernels`, and what runs where those cannot.
"""

import logging
import math
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from moda_cli.render.liveportrait.warp import gaussians, identity_grid, sample_volume

log = logging.getLogger(__name__)

NORM_EPS = 1e-5


def triton_kernels(x: Tensor) -> ModuleType | None:
    """The Triton kernels, for a tensor on CUDA; torch.compile makes its own of what is here."""
    if torch.compiler.is_compiling() or not x.is_cuda:
        return None
    return _working_kernels(x.device)


@cache
def _working_kernels(device: torch.device) -> ModuleType | None:
    try:
        from moda_cli.render.liveportrait import kernels

        kernels.statistics(torch.ones(1, 8, 8, 8, device=device), NORM_EPS)
    except Exception as error:  # no Triton for this system, or no C compiler, which it needs
        reason = (str(error) or repr(error)).splitlines()[0]
        log.warning("frames are drawn without Triton, which is slower: %s", reason)
        return None
    return kernels


def activate(
    x: Tensor, bias: Tensor | None, *, slope: float, plus: Sequence[Tensor] = ()
) -> Tensor:
    """Leaky ReLU, in place, of a map (B, C, [D,] H, W) plus its bias (C) and up to two maps."""
    if kernels := triton_kernels(x):
        return kernels.activate(x, bias, slope=slope, plus=plus)  # type: ignore[no-any-return]
    if bias is not None:
        plus = (*plus, bias.view(-1, *[1] * (x.ndim - 2)))
    for more in plus:
        x = x + more
    return F.leaky_relu_(x, slope)


def copied(cells: Tensor, bias: Tensor | None, *, factor: int = 1, parts: int = 1) -> list[Tensor]:
    """ReLU of a map that `EnlargedConv` made of copies, brought to its place and cut into parts.

    cells: (B, kinds kinds O, [D,] h + 1, w + 1), bias (kinds kinds O); factor 1: (B, O, [D,] h, w).
    Each part is (B, O / parts, [D,] factor h, factor w).
    """
    if kernels := triton_kernels(cells):
        return kernels.copied(cells, bias, factor=factor, parts=parts)  # type: ignore[no-any-return]
    cells = activate(cells, bias, slope=0.0)
    if factor == 1:
        return list(cells.chunk(parts, dim=1))
    kinds = 2 if factor == 2 else 3
    batch, _, *lead, height, width = cells.shape
    cells = cells.movedim(1, -1)  # (B, [D,] h + 1, w + 1, kinds kinds O)
    cells = cells.reshape(math.prod((batch, *lead)), height * width * kinds**2, -1)
    (row, down), (column, right) = (_copies(n - 1, factor, cells.device) for n in (height, width))
    at = ((row[:, None] * width + column) * kinds + down[:, None]) * kinds + right
    enlarged = cells.index_select(1, at.flatten()).unflatten(1, at.shape)
    return list(enlarged.unflatten(0, (batch, *lead)).movedim(-1, 1).chunk(parts, dim=1))


def _copies(size: int, factor: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the copies of `size` cells lie on a line of the convolution, and their kinds."""
    each = torch.arange(factor * size, device=device)
    cell, copy = each // factor, each % factor
    half = factor // 2
    return cell + copy // (factor - 1), (copy + half - 1) // half


def statistics(x: Tensor) -> Tensor:
    """Mean and 1 / deviation of each map's channels (B, C, H, W), as float32 (2, B, C)."""
    if kernels := triton_kernels(x):
        return kernels.statistics(x, NORM_EPS)  # type: ignore[no-any-return]
    mean = x.float().mean(dim=(2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(2, 3))
    return torch.stack((mean.flatten(1), (variance + NORM_EPS).rsqrt()))


def modulate(
    x: Tensor,
    statistics: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    bias: Tensor | None,
    slope: float,
) -> Tensor:
    """Leaky ReLU of SPADE: instance norm of x, enlarged by copying, times a scale plus a shift.

    x: (B, C, h, w) and its `statistics`. scale, shift: (B, C, H, W), what their convolution made;
    bias: theirs, one after the other.
    """
    if kernels := triton_kernels(x):
        return kernels.modulate(  # type: ignore[no-any-return]
            x, statistics, scale, shift, bias, slope
        )
    mean, factor = statistics[..., None, None]
    normal = torch.addcmul(-mean * factor, x, factor).to(x.dtype)
    if scale.shape[-1] != x.shape[-1]:
        normal = F.interpolate(normal, scale.shape[2:])
    if bias is not None:
        bias = bias[:, None, None]
        scale = scale + bias[: x.shape[1]]
        shift = None if shift is None else shift + bias[x.shape[1] : 2 * x.shape[1]]
    value = normal * scale if shift is None else torch.addcmul(shift, normal, scale)
    return value if slope == 1 else F.leaky_relu_(value, slope)


def motion_map(
    compressed: Tensor, kp_source: Tensor, kp_driving: Tensor, channels: int, dtype: torch.dtype
) -> Tensor:
    """What the hourglass sees: moved volumes, then differences of heatmaps, then zeros.

    compressed: (1 or B, C, D, H, W), moved as the background (not at all) and as each keypoint.
    kp_source: (1 or B, K, 3). kp_driving: (B, K, 3). Returns (B, channels, D, H, W) of `dtype`.
    """
    if kernels := triton_kernels(compressed):
        return kernels.motion_map(  # type: ignore[no-any-return]
            compressed, kp_source, kp_driving, channels, dtype
        )
    size, batch = compressed.shape[2:], len(kp_driving)
    shift = F.pad(kp_source - kp_driving, (0, 0, 1, 0))  # (B, K + 1, 3)
    x, y, z = (shift_matrices(shift[..., axis], n) for axis, n in enumerate(reversed(size)))
    moved = torch.einsum("bcdhw,bkvw->bkcdhv", compressed.expand(batch, -1, -1, -1, -1), x)
    moved = torch.einsum("bkcdhv,bkuh->bkcduv", moved, y)
    moved = torch.einsum("bkcduv,bked->bkceuv", moved, z).flatten(1, 2)
    heatmaps = gaussians(kp_driving, size) - gaussians(kp_source, size)
    given = torch.cat((moved, heatmaps), dim=1).to(dtype)
    given = F.pad(given, (0, 0) * 3 + (0, channels - given.shape[1]))
    return given.contiguous(memory_format=torch.channels_last_3d)


def shift_matrices(shift: Tensor, size: int) -> Tensor:
    """(..., size, size): samples of a line of cells, moved by `shift` (...), of its values.

    Linear interpolation, zero outside, positions as `sample_volume` takes them.
    """
    cells = torch.arange(size, dtype=shift.dtype, device=shift.device)
    at = torch.linspace(-1, 1, size, dtype=shift.dtype, device=shift.device) + shift[..., None]
    position = ((at + 1) * size - 1) / 2
    return (1 - (position[..., None] - cells).abs()).clamp(min=0)


def deformation(taps: Tensor, bias: Tensor, shift: Tensor, num_taps: int) -> Tensor:
    """Where each cell comes from: the fields' mean shift by the mask, (B, D, H, W, 3) float32.

    taps: (B D, num_taps (K + 1) and more, H, W): what each slice has for the slices around it.
    bias: (K + 1) of the mask before its softmax. shift: (B, K + 1, 3).
    """
    if kernels := triton_kernels(taps):
        return kernels.deformation(taps, bias, shift, num_taps)  # type: ignore[no-any-return]
    batch, fields, _ = shift.shape
    each = taps[:, : num_taps * fields].permute(0, 2, 3, 1)
    each = each.unflatten(-1, (num_taps, fields)).unflatten(0, (batch, -1))
    size = each.shape[1:4]  # of (B, D, H, W, taps, K + 1)
    # slice d takes what slice d + tap - num_taps // 2 has for it, nothing from beyond the ends
    each = F.pad(each, (0, 0) * 4 + (num_taps // 2, num_taps // 2))
    logits = bias
    for tap in range(num_taps):  # not in place: torch.compile makes one kernel of it
        logits = logits + each[:, tap : tap + size[0], :, :, tap]
    mask = logits.softmax(dim=-1)  # (B, D, H, W, K + 1)
    mean_shift: Tensor = (mask.flatten(1, 3) @ shift).unflatten(1, size)
    return identity_grid(tuple(size), shift.device) + mean_shift


def sampled(volume: Tensor, deformation: Tensor, dtype: torch.dtype) -> Tensor:
    """Samples of volume (1 or B, C, D, H, W) by slice: (B, D C, H, W) of `dtype`, channels last."""
    if kernels := triton_kernels(volume):
        return kernels.sampled(volume, deformation, dtype)  # type: ignore[no-any-return]
    warped = sample_volume(volume.expand(len(deformation), -1, -1, -1, -1), deformation)
    warped = warped.transpose(1, 2).flatten(1, 2)
    return warped.to(dtype, memory_format=torch.channels_last)
