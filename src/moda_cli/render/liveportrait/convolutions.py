"""Convolutions as the engine runs them: cast once, channels last and padded, of enlarged maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.render.liveportrait.fused import copied, triton_kernels

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


class Conv(nn.Module):
    """A convolution cast once, 2D or 3D. Its weight (O, C, ...) is channels last, as are maps."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, padding: int = 0
    ) -> None:
        super().__init__()
        form = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
        self.weight = nn.Buffer(weight.detach().to(dtype, memory_format=form))
        self.bias = None if bias is None else nn.Buffer(bias.to(dtype))
        self.padding = padding

    def map(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """What becomes of x (B, C, ...) with this bias: (B, O, ...)."""
        convolve = F.conv2d if x.ndim == 4 else F.conv3d
        return convolve(x, self.weight, bias, padding=self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, O, ...)."""
        return self.map(x, self.bias)


class OpenConv(Conv):
    """A convolution whose bias the next kernel adds.

    On CUDA torch adds a bias after the convolution: it reads and writes the whole map once more.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """(B, C, ...) -> (B, O, ...), and the bias (O) where it is still to be added."""
        if self.bias is None or triton_kernels(x) is None:
            return self.map(x, self.bias), None
        return self.map(x, None), self.bias


def pad_channels(tensor: Tensor, dim: int) -> Tensor:
    """`tensor` with zeros behind its own channels, up to a multiple of ALIGNED."""
    missing = -tensor.shape[dim] % ALIGNED
    if not missing:
        return tensor  # F.pad would copy it
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, missing))


def slices(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B D, C, H, W); a view, channels last."""
    return volume.transpose(1, 2).flatten(0, 1)


class EnlargedConv(nn.Module):
    """ReLU of a 3-wide convolution of a map whose height and width are first enlarged by copying.

    Each kind of copy has its own 2 x 2 kernel on the small map: 4/9 of the work for a factor of 2,
    1/4 for a factor of 4.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, factor: int, dtype: torch.dtype, parts: int = 1
    ) -> None:
        super().__init__()
        self.factor, self.parts = factor, parts
        kinds = (FIRST, LAST) if factor == 2 else (FIRST, INNER, LAST)
        taps = torch.tensor(kinds).to(weight)
        kernel = torch.einsum("pai,qbj,...ij->pq...ab", taps, taps, weight).flatten(0, 2)
        self.conv = OpenConv(kernel, bias.repeat(len(kinds) ** 2), dtype, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, [D,] h, w) -> (B, O, [D,] factor h, factor w), its channels in equal parts."""
        return copied(*self.conv(x), factor=self.factor, parts=self.parts)


def joined(convs: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution in place of several that read the same map."""
    parts = [weights(conv) for conv in convs]
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
