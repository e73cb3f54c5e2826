"""Inception, the network of FID.

Inception-v3 (arXiv:1512.00567) with the TensorFlow weights of 2015-12-05 in torchvision's layout.
Module names are the checkpoint's; its classifier is left out.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.weights.state import load_strict

SIDE = 299  # pixels

Step = tuple[str, int, tuple[int, int]]  # end of its name, width, kernel (rows, columns)
Branch = Sequence[Step]  # one after another, but a pair named a, b side by side; () only pools
DOT, SQUARE, BLOCK, ROW, COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
SHORT_ROW, SHORT_COLUMN = (1, 3), (3, 1)


def average_pool() -> nn.Module:
    """Unlike torchvision's, it does not count the padding."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, inputs: int, width: int, kernel: tuple[int, int], stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inputs, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Branches beside each other, their outputs concatenated; the last one pools first."""

    def __init__(
        self, inputs: int, branches: Sequence[Branch], pool: nn.Module, halve: bool = False
    ) -> None:
        super().__init__()
        self.pool = pool
        self.stages: list[list[list[str]]] = []  # names by branch and position
        for branch in branches:
            stages: list[list[str]] = []
            width_in = width = inputs
            for i, (end, width_out, kernel) in enumerate(branch):
                name = f"branch{end}"
                if end.endswith("b"):
                    stages[-1].append(name)
                else:
                    stages.append([name])
                    width_in = width
                last = halve and i == len(branch) - 1
                self.add_module(name, Unit(width_in, width_out, kernel, 1 + last, same=not last))
                width = width_out
            self.stages.append(stages)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of the widths, H, W), or about half of H and W."""
        outputs = []
        for stages in self.stages:
            beside = [self.pool(x) if stages in ([], [["branch_pool"]]) else x]
            for names in stages:
                beside = [self.get_submodule(name)(beside[0]) for name in names]
            outputs += beside
        return torch.cat(outputs, dim=1)


def mixed_a(inputs: int, pooled: int) -> Mixed:
    double = [("3x3dbl_1", 64, DOT), ("3x3dbl_2", 96, SQUARE), ("3x3dbl_3", 96, SQUARE)]
    branches = (
        [("1x1", 64, DOT)],
        [("5x5_1", 48, DOT), ("5x5_2", 64, BLOCK)],
        double,
        [("_pool", pooled, DOT)],
    )
    return Mixed(inputs, branches, average_pool())


def mixed_b(inputs: int) -> Mixed:
    double = [("3x3dbl_1", 64, DOT), ("3x3dbl_2", 96, SQUARE), ("3x3dbl_3", 96, SQUARE)]
    return Mixed(inputs, ([("3x3", 384, SQUARE)], double, ()), nn.MaxPool2d(3, 2), halve=True)


def mixed_c(width: int) -> Mixed:
    kernels = (DOT, COLUMN, ROW, COLUMN, ROW)
    widths = (width, width, width, width, 192)
    double = [
        (f"7x7dbl_{i}", out, kernel)
        for i, (out, kernel) in enumerate(zip(widths, kernels, strict=True), start=1)
    ]
    branches = (
        [("1x1", 192, DOT)],
        [("7x7_1", width, DOT), ("7x7_2", width, ROW), ("7x7_3", 192, COLUMN)],
        double,
        [("_pool", 192, DOT)],
    )
    return Mixed(768, branches, average_pool())


def mixed_d() -> Mixed:
    crossed = [("7x7x3_1", 192, DOT), ("7x7x3_2", 192, ROW), ("7x7x3_3", 192, COLUMN)]
    branches = (
        [("3x3_1", 192, DOT), ("3x3_2", 320, SQUARE)],
        [*crossed, ("7x7x3_4", 192, SQUARE)],
        (),
    )
    return Mixed(768, branches, nn.MaxPool2d(3, 2), halve=True)


def mixed_e(inputs: int, pool: nn.Module) -> Mixed:
    branches = (
        [("1x1", 320, DOT)],
        [("3x3_1", 384, DOT), ("3x3_2a", 384, SHORT_ROW), ("3x3_2b", 384, SHORT_COLUMN)],
        [
            ("3x3dbl_1", 448, DOT),
            ("3x3dbl_2", 384, SQUARE),
            ("3x3dbl_3a", 384, SHORT_ROW),
            ("3x3dbl_3b", 384, SHORT_COLUMN),
        ],
        [("_pool", 192, DOT)],
    )
    return Mixed(inputs, branches, pool)


class Inception(nn.Sequential):
    """Pictures (B, 3, 299, 299), -1 to 1 -> (B, 2048), the features called pool3."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, SQUARE, stride=2, same=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, SQUARE, same=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, SQUARE)
        self.pool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = Unit(64, 80, DOT)
        self.Conv2d_4a_3x3 = Unit(80, 192, SQUARE, same=False)
        self.pool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = mixed_a(192, 32)
        self.Mixed_5c = mixed_a(256, 64)
        self.Mixed_5d = mixed_a(288, 64)
        self.Mixed_6a = mixed_b(288)
        self.Mixed_6b = mixed_c(128)
        self.Mixed_6c = mixed_c(160)
        self.Mixed_6d = mixed_c(160)
        self.Mixed_6e = mixed_c(192)
        self.Mixed_7a = mixed_d()
        self.Mixed_7b = mixed_e(1280, average_pool())
        self.Mixed_7c = mixed_e(2048, nn.MaxPool2d(3, 1, padding=1))  # as in the TensorFlow graph
        self.pool3 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()


def load_inception(state: Mapping[str, Tensor], source: str) -> Inception:
    """The network, on the CPU, of a checkpoint. Raises WeightsError if that does not fit."""
    with torch.device("meta"):
        network = Inception()
    wanted = {name: x for name, x in state.items() if not name.startswith("fc.")}
    for name in network.state_dict():
        if name.endswith("num_batches_tracked"):  # published files may lack them; nothing reads it
            wanted.setdefault(name, torch.tensor(0))
    load_strict(network, wanted, source)
    return network.eval()
