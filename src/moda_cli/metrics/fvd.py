"""FVD (arXiv:1812.01717): how clips are cut and prepared, and what I3D makes of them.

A clip's features are I3D's 400 logits of each of its windows; the distance is that of frechet.py.
Codebases cut and resize clips differently, so the protocol is named with the number.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from moda_cli.errors import InputError, UsageError
from moda_cli.media.pictures import Picture
from moda_cli.metrics.networks.i3d import I3D, SIDE, ScriptedI3D, load_i3d

WINDOW = 16  # frames
MIN_FRAMES = 9  # that the last pool takes
BATCH = 2  # windows at a time: 0.3 GB of activations

FvdNetwork = Literal["i3d_torchscript", "i3d"]  # names of weights.toml


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


def prepare_windows(windows: Tensor, resize: str) -> Tensor:
    """uint8 (B, T, H, W, 3) -> (B, 3, T, 224, 224) from -1 to 1."""
    x = windows.flatten(0, 1).permute(0, 3, 1, 2).float()
    x = 2 * RESIZES[resize](x) / 255 - 1
    return x.reshape(*windows.shape[:2], *x.shape[1:]).transpose(1, 2)


@torch.inference_mode()
def fvd_features(
    network: I3D | ScriptedI3D,
    frames: Iterable[Picture],
    protocol: FvdProtocol = DEFAULT,
    batch: int = BATCH,
) -> Tensor:
    """Logits (windows, 400) float32, on the CPU, of one clip, read once.

    Raises InputError for a clip too short.
    """
    windows = protocol.windows(frames)
    rows = []
    while group := list(islice(windows, batch)):
        x = torch.from_numpy(np.stack(group)).to(network.device)
        rows.append(network(prepare_windows(x, protocol.resize)).float().cpu())
    return torch.cat(rows)


def load_fvd_network(
    name: FvdNetwork, path: Path, device: str | torch.device = "cpu"
) -> I3D | ScriptedI3D:
    """The network in either file of its weights. Raises WeightsError for another file."""
    if name == "i3d_torchscript":
        return ScriptedI3D(path, device)
    return load_i3d(load_file(path), str(path)).to(device)
