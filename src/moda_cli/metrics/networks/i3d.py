"""I3D, the network of FVD, as pytorch-i3d's checkpoint or StyleGAN-V's TorchScript.

I3D (arXiv:1705.07750) with the TF-Hub i3d-kinetics-400 weights. Both map prepared clips
(B, 3, T, 224, 224) from -1 to 1 to logits (B, 400).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.errors import WeightsError
from moda_cli.weights.state import load_strict

SIDE = 224  # pixels, the only size that gives one logit vector per moment
NUM_LOGITS = 400
WIDTHS = {  # b0, b1a, b1b, b2a, b2b, b3b; a digit's blocks share one resolution
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


class ScriptedI3D(nn.Module):
    """The TorchScript file of StyleGAN-V, called on pictures that are prepared already."""

    def __init__(self, path: Path, device: str | torch.device = "cpu") -> None:
        """Raises WeightsError if the file is no TorchScript."""
        super().__init__()
        self.where = torch.device(device)
        try:
            self.script = torch.jit.load(str(path), map_location=self.where).eval()
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path} is not the TorchScript I3D: {str(error).splitlines()[0]}",
                hint="run `moda download i3d_torchscript` again",
            ) from error

    @property
    def device(self) -> torch.device:
        return self.where

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.script(x, rescale=False, resize=False, return_features=True))


def pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """TensorFlow's "same" padding of (B, C, T, H, W), with zeros; the odd one goes behind."""
    edges: list[int] = []
    for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - (n % s or s), 0)
        edges = [total // 2, total - total // 2, *edges]  # F.pad counts from the last dimension
    return F.pad(x, edges) if any(edges) else x


class Pool(nn.Module):
    """Maximum, zero padded."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Unit3d(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, width, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=1e-5)  # pytorch-i3d's 1e-3 is another network

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv3d
        return F.relu(self.bn(conv(pad_same(x, conv.kernel_size, conv.stride))), inplace=True)


class Mixed3d(nn.Module):
    """Four branches beside each other."""

    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int):
        super().__init__()
        self.b0 = Unit3d(inputs, b0)
        self.b1a = Unit3d(inputs, b1a)
        self.b1b = Unit3d(b1a, b1b, 3)
        self.b2a = Unit3d(inputs, b2a)
        self.b2b = Unit3d(b2a, b2b, 3)
        self.pool = Pool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3d(inputs, b3b)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.b3b(self.pool(x))
        return torch.cat((self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled), dim=1)


class Logits(nn.Module):
    """(B, 1024, T, 7, 7) -> (B, 400), averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, NUM_LOGITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return cast(Tensor, self.conv3d(pooled).flatten(2).mean(dim=2))


class I3D(nn.Module):
    """The network of i3d_pretrained_400.pt. Module names are the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3d(3, 64, 7, 2)
        self.pool2 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3d(64, 64)
        self.Conv3d_2c_3x3 = Unit3d(64, 192, 3)
        self.pool3 = Pool((1, 3, 3), (1, 2, 2))
        inputs = 192
        for name, widths in WIDTHS.items():
            if name == "4b":
                self.pool4 = Pool((3, 3, 3), (2, 2, 2))
            if name == "5b":
                self.pool5 = Pool((2, 2, 2), (2, 2, 2))
            self.add_module(f"Mixed_{name}", Mixed3d(inputs, *widths))
            b0, _, b1b, _, b2b, b3b = widths
            inputs = b0 + b1b + b2b + b3b
        self.logits = Logits()

    @property
    def device(self) -> torch.device:
        return self.logits.conv3d.weight.device

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():  # in the order above
            x = layer(x)
        return x


def load_i3d(state: Mapping[str, Tensor], source: str) -> I3D:
    """The network, on the CPU, of a checkpoint. Raises WeightsError if that does not fit."""
    with torch.device("meta"):
        network = I3D()
    load_strict(network, state, source)
    return network.eval()
