"""BlazeFace (arXiv:1907.05047), short range: boxes of the faces that fill a good part of a square.

The network is MediaPipe's published one; its letterbox, anchors and merging are here as well.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.media.pictures import Picture

Floats = NDArray[np.float64]

SIDE = 128  # pixels of the network's square
GRIDS = ((16, 2), (8, 6))  # cells of a side, anchors of a cell
SEEN = 0.5  # probability that makes a box worth keeping
OVERLAP = 0.3  # intersection over union of two boxes of one face
STRIDE = 0.5  # of a square's side, between overlapping squares
BATCH = 32


class Block(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 around the input, as both of MediaPipe's networks use it.

    With stride 2 the input is max-pooled; channels it lacks are zeros. slopes: a learned slope for
    each channel below zero instead of none.
    """

    def __init__(self, narrow: int, wide: int, stride: int = 1, *, slopes: bool = False) -> None:
        super().__init__()
        self.stride, self.extra = stride, wide - narrow
        self.depthwise = nn.Conv2d(narrow, narrow, 3, stride, padding=stride % 2, groups=narrow)
        self.pointwise = nn.Conv2d(narrow, wide, 1)
        self.activation = nn.PReLU(wide) if slopes else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, narrow, H, W) -> (B, wide, H / stride, W / stride)."""
        halves = self.stride == 2
        y = self.pointwise(self.depthwise(pad_after(x) if halves else x))
        if halves:
            x = F.max_pool2d(x, 2)
        if self.extra:
            x = F.pad(x, (0, 0, 0, 0, 0, self.extra))
        activated: Tensor = self.activation(y.add_(x))
        return activated


def pad_after(x: Tensor, before: int = 0) -> Tensor:
    """TensorFlow's SAME at stride 2 on an even side: one more row and column after than before."""
    return F.pad(x, (before, before + 1, before, before + 1))


class BlazeFace(nn.Module):
    """Anchors' regressions and scores of (B, 3, 128, 128) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        wide = (24, 28, (32,), 36, 42, (48,), 56, 64, 72, 80, 88)  # in brackets: halves the sides
        self.first = nn.Sequential(nn.Conv2d(3, 24, 5, 2), nn.ReLU())
        self.fine = _blocks(24, wide)
        self.coarse = _blocks(88, ((96,), 96, 96, 96, 96))
        self.fine_scores = nn.Conv2d(88, 2, 1)
        self.fine_boxes = nn.Conv2d(88, 2 * 16, 1)
        self.coarse_scores = nn.Conv2d(96, 6, 1)
        self.coarse_boxes = nn.Conv2d(96, 6 * 16, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Regressions (B, 896, 16) in pixels and score logits (B, 896)."""
        fine = self.fine(self.first(pad_after(images, before=1)))
        coarse = self.coarse(fine)

        def rows(maps: Tensor, size: int) -> Tensor:
            return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, size)

        boxes = rows(self.fine_boxes(fine), 16), rows(self.coarse_boxes(coarse), 16)
        scores = rows(self.fine_scores(fine), 1), rows(self.coarse_scores(coarse), 1)
        return torch.cat(boxes, 1), torch.cat(scores, 1)[..., 0]


def _blocks(narrow: int, widths: tuple[int | tuple[int], ...]) -> nn.Sequential:
    blocks = []
    for width in widths:
        stride, wide = (2, width[0]) if isinstance(width, tuple) else (1, width)
        blocks.append(Block(narrow, wide, stride))
        narrow = wide
    return nn.Sequential(*blocks)


def _anchors() -> Floats:
    """The middles (896, 2) of the anchors' cells, in pixels of the square."""
    grids = []
    for cells, count in GRIDS:
        y, x = np.divmod(np.arange(cells * cells), cells)
        grids.append(np.repeat((np.column_stack((x, y)) + 0.5) * SIDE / cells, count, axis=0))
    return np.concatenate(grids)


ANCHORS = _anchors()


@dataclass(frozen=True, slots=True)
class Detection:
    """A face's box and six points, in pixels of a picture (pixel centres at .0)."""

    score: float  # probability
    centre: Floats  # (2,) of the box
    side: float  # its longer one
    points: Floats  # (6, 2) left eye, right eye, nose, mouth, ears


def detect(
    network: BlazeFace, picture: Picture, share: float = 1.0, turn: int = 0
) -> list[Detection]:
    """The faces of a picture, best first, looked for in overlapping squares.

    share: a square's side over the picture's longer one; the network sees faces from about a
    sixth of its square. turn: quarter turns to the left that bring the faces upright.
    """
    height, width = picture.shape[:2]
    zoom = SIDE / (share * max(height, width))
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    level = np.rot90(cv2.resize(picture, size, interpolation=method), turn)
    turned = np.array(level.shape[1::-1])
    bars = np.maximum(0, SIDE - turned)
    level = np.pad(level, [(n // 2, n - n // 2) for n in bars[::-1]] + [(0, 0)])
    rows = merge(_detections(network, np.asarray(level, np.uint8)))

    back = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turn)
    ratio = np.array([width, height]) / size
    points = rows[:, [1, 2, *range(5, 17)]].reshape(-1, 7, 2) - bars // 2 - turned / 2
    points = (points @ back.T + np.array(size) / 2) * ratio - 0.5
    sides = rows[:, 3:5].max(axis=1) / zoom
    return [
        Detection(float(row[0]), place[0], float(side), place[1:])
        for row, side, place in zip(rows, sides, points, strict=True)
    ]


@torch.inference_mode()
def _detections(network: BlazeFace, level: Picture) -> Floats:
    """What the network sees in every square of a picture, each side at least a square's.

    (n, 17): probability, centre, width and height of the box, six points, in pixels.
    """
    across, down = (
        np.linspace(0, side - SIDE, int(np.ceil((side - SIDE) / (STRIDE * SIDE))) + 1).astype(int)
        for side in level.shape[1::-1]
    )
    corners = np.array([(x, y) for y in down for x in across])
    found = []
    for first in range(0, len(corners), BATCH):
        some = corners[first : first + BATCH]
        squares = np.stack([level[y : y + SIDE, x : x + SIDE] for x, y in some])
        images = torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 127.5 - 1
        regressions, logits = network(images)
        scores = torch.sigmoid(logits).double().numpy()
        square, anchor = (scores > SEEN).nonzero()
        pairs = regressions.double().numpy()[square, anchor].reshape(-1, 8, 2)
        pairs[:, [0, *range(2, 8)]] += (ANCHORS[anchor] + some[square])[:, None]
        found.append(np.column_stack((scores[square, anchor], pairs.reshape(-1, 16))))
    return np.concatenate(found)


def merge(rows: Floats) -> Floats:
    """Detections (n, 17) of one face as their mean, weighted by their scores, under the best's."""
    merged = []
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    while len(rows):
        same = _overlaps(rows[0], rows) > OVERLAP
        mean = np.average(rows[same], axis=0, weights=rows[same, 0])
        merged.append((rows[0, 0], *mean[1:]))
        rows = rows[~same]
    return np.array(merged).reshape(-1, 17)


def _overlaps(row: Floats, rows: Floats) -> Floats:
    """Intersection over union (n,) of one box with others, of rows of `_detections`."""
    low = np.maximum(row[1:3] - row[3:5] / 2, rows[:, 1:3] - rows[:, 3:5] / 2)
    high = np.minimum(row[1:3] + row[3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2)
    shared = (high - low).clip(0).prod(axis=1)
    return np.asarray(shared / (row[3:5].prod() + rows[:, 3:5].prod(axis=1) - shared))
