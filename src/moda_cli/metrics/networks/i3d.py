"""The I3D networks of FVD, and how clips are cut and prepared for them.

I3D (arXiv:1705.07750) with the TF-Hub i3d-kinetics-400 weights; FVD (arXiv:1812.01717) reads its
400 logits. Codebases cut and resize clips differently, so the protocol is named with the number.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.errors import InputError, UsageError, WeightsError
from moda_cli.media.pictures import Picture
from moda_cli.weights.state import load_strict

SIDE = 224  # pixels, the only size that gives one logit vector per moment
WINDOW = 16  # frames
MIN_FRAMES = 9  # that the last pool takes
BATCH = 2  # windows at a time: 0.3 GB of activations
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


def _stretch(x: Tensor) -> Tensor:
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)


def _centre_crop(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    scale = SIDE / min(height, width)
    size = [SIDE if n == min(height, width) else math.ceil(n * scale) for n in (height, width)]
    x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    top, left = ((n - SIDE) // 2 for n in size)
    return x[..., top : top + SIDE, left : left + SIDE]


def _bicubic(x: Tensor) -> Tensor:
    return F.interpolate(x, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)


RESIZES: dict[str, Callable[[Tensor], Tensor]] = {
    "stretch": _stretch,  # both sides to 224, bilinear
    "centre-crop": _centre_crop,  # the short side to 224, bilinear; the same for square clips
    "bicubic": _bicubic,  # both sides to 224, antialiased like PIL's: DisCo
}
CUTS = {
    "all-16": "every 16 frames from the first, without overlap",
    "first-16": "the first 16 frames",
    "whole": "the whole clip at once: DisCo on video files",
}


@dataclass(frozen=True, slots=True)
class FvdProtocol:
    """What codebases disagree about. The defaults are ours; the paper states none.

    Raises UsageError for a name that is not in RESIZES or CUTS.
    """

    cut: str = "all-16"
    resize: str = "stretch"

    def __post_init__(self) -> None:
        for what, name, known in (("cut", self.cut, CUTS), ("resize", self.resize, RESIZES)):
            if name not in known:
                raise UsageError(f"unknown FVD {what} {name!r}", hint=f"one of {', '.join(known)}")

    def windows(self, frames: Iterable[Picture]) -> Iterator[Picture]:
        """The windows (T, H, W, 3) of a clip, read once; frames that fill no window are left out.

        Raises InputError for a clip too short for one.
        """
        remaining = iter(frames)
        shortest = MIN_FRAMES if self.cut == "whole" else WINDOW
        length = None if self.cut == "whole" else WINDOW
        window = list(islice(remaining, length))
        if len(window) < shortest:
            raise InputError(
                f"{len(window)} frames are too few for FVD",
                hint=f"the cut {self.cut!r} needs {shortest} frames or more",
            )
        while len(window) >= shortest:
            yield np.stack(window)
            window = list(islice(remaining, length)) if self.cut == "all-16" else []


DEFAULT = FvdProtocol()


def prepare(windows: Tensor, resize: str) -> Tensor:
    """uint8 (B, T, H, W, 3) -> (B, 3, T, 224, 224) from -1 to 1."""
    x = windows.flatten(0, 1).permute(0, 3, 1, 2).float()
    x = 2 * RESIZES[resize](x) / 255 - 1
    return x.reshape(*windows.shape[:2], *x.shape[1:]).transpose(1, 2)


class VideoNetwork(nn.Module):
    """What turns prepared clips (B, 3, T, 224, 224) into logits (B, 400)."""

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    @torch.inference_mode()
    def features(
        self, frames: Iterable[Picture], protocol: FvdProtocol = DEFAULT, batch: int = BATCH
    ) -> Tensor:
        """Logits (windows, 400) float32, on the CPU, of one clip, read once.

        Raises InputError for a clip too short.
        """
        windows = protocol.windows(frames)
        rows = []
        while group := list(islice(windows, batch)):
            x = torch.from_numpy(np.stack(group)).to(self.device)
            rows.append(self(prepare(x, protocol.resize)).float().cpu())
        return torch.cat(rows)


class ScriptedI3D(VideoNetwork):
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


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, width: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, width, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=1e-5)  # pytorch-i3d's 1e-3 is another network

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv3d
        return F.relu(self.bn(conv(pad_same(x, conv.kernel_size, conv.stride))), inplace=True)


class Mixed(nn.Module):
    """Four branches beside each other."""

    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int):
        super().__init__()
        self.b0 = Unit(inputs, b0)
        self.b1a = Unit(inputs, b1a)
        self.b1b = Unit(b1a, b1b, 3)
        self.b2a = Unit(inputs, b2a)
        self.b2b = Unit(b2a, b2b, 3)
        self.pool = Pool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(inputs, b3b)

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


class I3D(VideoNetwork):
    """The network of i3d_pretrained_400.pt. Module names are the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.pool2 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.pool3 = Pool((1, 3, 3), (1, 2, 2))
        inputs = 192
        for name, widths in WIDTHS.items():
            if name == "4b":
                self.pool4 = Pool((3, 3, 3), (2, 2, 2))
            if name == "5b":
                self.pool5 = Pool((2, 2, 2), (2, 2, 2))
            self.add_module(f"Mixed_{name}", Mixed(inputs, *widths))
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


def _load_file(path: Path, device: str | torch.device = "cpu") -> VideoNetwork:
    return load_i3d(load_file(path), str(path)).to(device)


NETWORKS: dict[str, Callable[[Path, str | torch.device], VideoNetwork]] = {
    "i3d_torchscript": ScriptedI3D,  # names of weights.toml
    "i3d": _load_file,
}
DEFAULT_NETWORK = "i3d_torchscript"
