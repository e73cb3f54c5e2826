"""Convolutions as the engine runs them: cast once, channels last and padded, of enlarged maps."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALIGNED = 8  # channels are padded to a multiple of this

# A kernel of three taps on a map enlarged by copying, as two taps on the small one. The first copy
# of a cell also sees the cell before it, the last copy the one after, a copy between only its own.
FIRST = ((1, 0, 0), (0, 1, 1))
INNER = ((0, 0, 0), (1, 1, 1))
LAST = ((1, 1, 0), (0, 0, 1))


def weights(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution."""
    named = {name: parameter.detach() for name, parameter in conv.named_parameters()}
    return named["weight"], named["bias"]


def fixed_conv(
    weight: Tensor, bias: Tensor | None, dtype: torch.dtype, padding: int = 0
) -> nn.Module:
    """A convolution in `dtype` with this weight (O, C, ...), 2D or 3D, channels last."""
    flat = weight.ndim == 4
    form = torch.channels_last if flat else torch.channels_last_3d
    with torch.device("meta"):
        conv = (nn.Conv2d if flat else nn.Conv3d)(1, 1, 1, padding=padding)
    conv.weight = nn.Parameter(weight.detach().to(dtype, memory_format=form), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
    return conv


def pad_channels(tensor: Tensor, dim: int) -> Tensor:
    """`tensor` with zeros behind its own channels, up to a multiple of ALIGNED."""
    missing = -tensor.shape[dim] % ALIGNED
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, missing))


def slices(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B D, C, H, W); a view, channels last."""
    return volume.transpose(1, 2).flatten(0, 1)


class EnlargedConv(nn.Module):
    """ReLU of a 3-wide convolution of a map whose height and width are first enlarged by copying.

    Each kind of copy has its own 2 x 2 kernel on the small map: 4/9 of the work for a factor of 2,
    1/4 for a factor of 4.
    """

    def __init__(self, weight: Tensor, bias: Tensor, factor: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.factor, self.channels = factor, len(bias)
        kinds = (FIRST, LAST) if factor == 2 else (FIRST, INNER, LAST)
        self.num_kinds = len(kinds)
        taps = torch.tensor(kinds).to(weight)
        kernel = torch.einsum("pai,qbj,...ij->pq...ab", taps, taps, weight).flatten(0, 2)
        self.conv = fixed_conv(kernel, bias.repeat(len(kinds) ** 2), dtype, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, [D,] h, w) -> (B, O, [D,] factor h, factor w)."""
        *lead, height, width = x.shape[2:]
        cells = F.relu_(self.conv(x)).movedim(1, -1)  # (B, [D,] h + 1, w + 1, kinds kinds O)
        cells = cells.reshape(math.prod((len(x), *lead)), -1, self.channels)
        (row, down), (column, right) = (self.copies(size, x.device) for size in (height, width))
        at = (row[:, None] * (width + 1) + column) * self.num_kinds + down[:, None]
        at = at * self.num_kinds + right
        copies = cells.index_select(1, at.flatten()).unflatten(1, at.shape)
        return copies.unflatten(0, (len(x), *lead)).movedim(-1, 1)  # type: ignore[no-any-return]

    def copies(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where the copies of `size` cells lie on a line of the convolution, and their kinds."""
        each = torch.arange(self.factor * size, device=device)
        cell, copy = each // self.factor, each % self.factor
        half = self.factor // 2
        return cell + copy // (self.factor - 1), (copy + half - 1) // half


def joined(convs: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution in place of several that read the same map."""
    parts = [weights(conv) for conv in convs]
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
