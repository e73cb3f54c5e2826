"""The LBP frontal face cascade that ships with scikit-image, evaluated without importing it.

Importing scikit-image costs more than a whole detection, and its detector returns boxes without
the evidence behind them; here every window reports how far it passed.
"""

from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW = 24  # pixels of the training window
DENSE_STAGES = 2  # evaluated on every window at once; the later ones on the survivors
SIZE_STEP = 1.15
LOCAL_TURNS = (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)  # degrees about a box
LOCAL_SIZES = (0.81, 0.9, 1.0, 1.11, 1.23)
LOCAL_REACH = 6  # of 24 window pixels


@dataclass(frozen=True, slots=True)
class Cascade:
    """Boosted stumps over local binary patterns (Liao 2007), grouped in stages."""

    features: NDArray[np.int32]  # (F, 4) x, y, width, height of a cell; 3 x 3 cells each
    stumps: tuple[tuple[int, NDArray[np.float32]], ...]  # feature, vote of each of 256 patterns
    stages: tuple[tuple[slice, float], ...]  # stumps of the stage, sum it has to reach


@cache
def load_cascade() -> Cascade:
    """The frontal face cascade (Intel/OpenCV, BSD) of the installed scikit-image."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-image is not installed")
    path = Path(spec.origin).parent / "data" / "lbpcascade_frontalface_opencv.xml"
    root = ElementTree.parse(path).getroot()[0]
    rects = [[int(n) for n in (r.text or "").split()] for r in root.iterfind("features/_/rect")]
    stumps: list[tuple[int, NDArray[np.float32]]] = []
    stages = []
    for stage in root.iterfind("stages/_"):
        first = len(stumps)
        for weak in stage.iterfind("weakClassifiers/_"):
            node = weak.findtext("internalNodes", "").split()
            inside, outside = (float(v) for v in weak.findtext("leafValues", "").split())
            words = np.array([int(v) for v in node[3:]], np.int32).view(np.uint8)
            members = np.unpackbits(words, bitorder="little").astype(bool)
            stumps.append((int(node[2]), np.where(members, inside, outside).astype(np.float32)))
        threshold = float(stage.findtext("stageThreshold", ""))
        stages.append((slice(first, len(stumps)), threshold))
    return Cascade(np.array(rects, np.int32), tuple(stumps), tuple(stages))


# The eight neighbours of the middle cell, most significant bit first: column, row.
NEIGHBOURS = ((0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def window_hits(gray: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Corners x, y (n, 2) of the windows of a picture (H, W) that pass every stage."""
    height, width = gray.shape
    rows, columns = height - WINDOW + 1, width - WINDOW + 1
    if rows < 1 or columns < 1:
        return np.zeros((0, 2), np.intp)
    cascade = load_cascade()
    integral = cv2.integral(gray)
    flat, stride = integral.ravel(), width + 1

    def dense(feature: int) -> NDArray[np.uint8]:
        x, y, w, h = (int(v) for v in cascade.features[feature])
        sums = integral[h:, w:] + integral[:-h, :-w] - integral[h:, :-w] - integral[:-h, w:]
        cell = [
            [sums[y + j * h :, x + i * w :][:rows, :columns] for i in range(3)] for j in range(3)
        ]
        code = np.zeros((rows, columns), np.uint8)
        for i, j in NEIGHBOURS:
            code = (code << 1) | (cell[j][i] >= cell[1][1])
        return code.ravel()

    def sparse(feature: int, at: NDArray[np.intp]) -> NDArray[np.uint8]:
        x, y, w, h = (int(v) for v in cascade.features[feature])
        steps = np.arange(4)
        offsets = (y + steps[:, None] * h) * stride + x + steps * w
        corner = flat[at[:, None, None] + offsets]  # (n, 4, 4)
        cell = corner[:, :-1, :-1] + corner[:, 1:, 1:] - corner[:, :-1, 1:] - corner[:, 1:, :-1]
        code = np.zeros(len(at), np.uint8)
        for i, j in NEIGHBOURS:
            code = (code << 1) | (cell[:, j, i] >= cell[:, 1, 1])
        return code

    alive = np.arange(rows * columns)
    for number, (members, threshold) in enumerate(cascade.stages):
        total = np.full(len(alive), -threshold, np.float32)
        at = alive // columns * stride + alive % columns
        for feature, votes in cascade.stumps[members]:
            total += votes[dense(feature)[alive] if number < DENSE_STAGES else sparse(feature, at)]
        alive = alive[total >= 0]
    return np.stack((alive % columns, alive // columns), axis=1)


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A square the size of the training window that the cascade takes for an upright face."""

    centre: NDArray[np.float64]  # (2,) x, y in pixels
    size: float  # pixels
    roll: float  # degrees, clockwise in the picture
    support: float  # how many neighbouring windows, sizes and angles agree

    def scaled(self, factor: float) -> "FaceBox":
        """The same box in the picture enlarged by `factor`."""
        return replace(self, centre=(self.centre + 0.5) * factor - 0.5, size=self.size * factor)

    def to_window(self, pixels: int, margin: float = 1.0) -> NDArray[np.float64]:
        """The (2, 3) similarity taking the box times `margin` to an upright square of `pixels`."""
        matrix = cv2.getRotationMatrix2D((0.0, 0.0), self.roll, pixels / (margin * self.size))
        matrix[:, 2] = (pixels - 1) / 2 - matrix[:, :2] @ self.centre
        return np.asarray(matrix, np.float64)


def search_boxes(gray: NDArray[np.uint8], min_size: float, roll: float = 0.0) -> list[FaceBox]:
    """Boxes of a picture (H, W) with sides from `min_size` px up and about this roll.

    Neighbouring windows are merged; the best supported box comes first.
    """
    height, width = gray.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), roll, 1.0)
    if roll:
        turned = cv2.warpAffine(gray, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        gray = np.asarray(turned, np.uint8)
    back = cv2.invertAffineTransform(turn)
    rows: list[NDArray[np.float64]] = []
    size = max(min_size, WINDOW)
    while size <= min(height, width):
        scale = WINDOW / size
        level = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        at = window_hits(np.asarray(level, np.uint8))
        centres = (at + WINDOW / 2) / scale - 0.5
        rows.append(np.column_stack((centres, np.full(len(at), size))))
        size *= SIZE_STEP
    hits = np.concatenate([np.zeros((0, 3)), *rows])
    boxes = []
    while len(hits):
        shift = np.abs(hits[:, None, :2] - hits[None, :, :2]).max(axis=2)
        near = (shift < 0.15 * hits[:, 2:]) & (np.abs(np.log(hits[:, 2:] / hits[:, 2])) < 0.25)
        group = near[int(near.sum(axis=1).argmax())]
        x, y, side = hits[group].mean(axis=0)
        centre = back[:, :2] @ (x, y) + back[:, 2]
        boxes.append(FaceBox(centre, float(side), roll, float(group.sum())))
        hits = hits[~group]
    return boxes


def refine_box(gray: NDArray[np.uint8], box: FaceBox) -> FaceBox:
    """The box recentred on all windows that agree with it at several sizes and angles.

    The support of the result counts those; a face has tens, an accidental pattern few.
    """
    tile = WINDOW + 2 * LOCAL_REACH
    trials = [
        FaceBox(box.centre, box.size * ratio, box.roll + turn, 0.0)
        for turn in LOCAL_TURNS
        for ratio in LOCAL_SIZES
    ]
    smooth = cv2.GaussianBlur(gray, (0, 0), max(0.35 * box.size / WINDOW, 0.1))
    # One tall stack of tiles for one call; windows across two tiles are dropped.
    tiles = [
        cv2.warpAffine(smooth, trial.to_window(tile, tile / WINDOW), (tile, tile), borderMode=1)
        for trial in trials
    ]
    at = window_hits(np.vstack(tiles))
    at = at[at[:, 1] % tile <= 2 * LOCAL_REACH]
    if not len(at):
        return replace(box, support=0.0)
    number = at[:, 1] // tile
    offset = np.column_stack((at[:, 0], at[:, 1] % tile)) - LOCAL_REACH
    sizes = np.array([trials[n].size for n in number])
    rolls = np.array([trials[n].roll for n in number])
    angle = np.deg2rad(rolls)
    shift = offset * sizes[:, None] / WINDOW
    x = shift[:, 0] * np.cos(angle) - shift[:, 1] * np.sin(angle)
    y = shift[:, 0] * np.sin(angle) + shift[:, 1] * np.cos(angle)
    centre = box.centre + np.array([x.mean(), y.mean()])
    size = float(np.exp(np.log(sizes).mean()))
    return FaceBox(centre, size, float(rolls.mean()), float(len(at)))
