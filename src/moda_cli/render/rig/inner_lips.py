"""The inner edges of the lips where the picture shows them, which a mesh may miss a little.

As in a grey photograph's smile, whose bared teeth it takes for the lower lip.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import LOWER_LIP, UPPER_LIP, Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample
from moda_cli.render.rig.frame import FaceFrame
from moda_cli.render.rig.lip_line import CLOSED
from moda_cli.render.rig.points import LOWER_OUTER, UPPER_OUTER

_STEP = 0.004  # IOD down a lip
_ABOVE, _BELOW = -0.045, 0.09  # IOD from the mesh's line between the lips: upper lip, teeth
_LINE = 0.72  # of the upper lip's light: darker is the line between closed lips
_BRIGHT, _LIP = 1.6, 1.25  # of it: teeth are brighter, the lower lip under them is not
_LEAST_HIGH = 0.05  # IOD of a row of teeth
_PURE = 0.7  # of the lips' colour that teeth may have: a gloss on red lips is red
_AROUND = 0.15  # IOD round the lips that are looked at
_INWARD, _OUTWARD = 0.06, 0.03  # IOD from the mesh's edge of a parted lip where the true one may be
_UNLIKE, _LEAST_STEPS = 0.25, 4  # of the lip's light that the inside differs by; and of a line
_MIDDLE, _LEAST_SEEN = range(3, 8), 4  # points of the lips between the canines; how many show teeth


def find_inner_lips(picture: Picture, frame: FaceFrame, mesh: Points) -> Points:
    """A mesh (478, 3) whose inner lips lie where `picture` (H, W, 3) has them."""
    upper, lower = mesh[UPPER_LIP, :2], mesh[LOWER_LIP, :2]
    lips = _Lips(picture, frame, mesh)
    moved = mesh.copy()
    if np.linalg.norm(lower - upper, axis=-1).max() < CLOSED * frame.iod:
        shifts = {}
        if (high := _bared(lips)) is not None:
            shifts[1] = high
    else:
        shifts = {side: _edge_shifts(lips, side) for side in (0, 1)}
    for side, down in shifts.items():
        row = (UPPER_LIP, LOWER_LIP)[side]
        moved[row, :2] += frame.shown(down[:, None] * np.array([0.0, 1.0, 0.0]))
    return moved


class _Lips:
    """A picture's colours along lines down the face across both lips of a mesh.

    inner, outer: (2, 11, 2) the edges of the upper and the lower lip in the eyes' plane, IOD.
    """

    def __init__(self, picture: Picture, frame: FaceFrame, mesh: Points) -> None:
        self.inner, self.outer = (
            frame.plane(mesh[rows, :2])
            for rows in ([UPPER_LIP, LOWER_LIP], [UPPER_OUTER, LOWER_OUTER])
        )
        around = mesh[[*UPPER_OUTER, *LOWER_OUTER], :2]
        size = np.array(picture.shape[1::-1])
        low = np.clip((around.min(axis=0) - _AROUND * frame.iod).astype(int), 0, size - 1)
        high = np.clip((around.max(axis=0) + _AROUND * frame.iod).astype(int), low + 1, size)
        part = picture[low[1] : high[1], low[0] : high[0]]
        self._calm = cv2.GaussianBlur(part, (0, 0), max(0.006 * frame.iod, 0.5))
        self._low, self._frame = low, frame

    def down(self, x: float, y: NDArray[np.float64]) -> Floats:
        """Colours (n, 3) at x and heights y (n,)."""
        across = x + np.array([-0.02, 0.0, 0.02])
        at = np.stack(np.broadcast_arrays(across, y[:, None]), axis=-1)
        return floats(sample(self._calm, floats(self._frame.pixels(at) - self._low)).mean(axis=1))

    def outer_at(self, side: int, x: float) -> float:
        """Height of the outer edge of a lip at x."""
        return float(np.interp(x, self.outer[side, :, 0], self.outer[side, :, 1]))


def _bared(lips: _Lips) -> NDArray[np.float64] | None:
    """How far below the line between closed lips the lower one begins, (11,) IOD, None where there.

    Between closed lips there is a dark line, with a soft light on the lower one below it. Where the
    upper lip borders on what is bright and colourless instead, and a lip as dark as the upper one
    follows only below that, those are teeth.
    """
    seam = lips.inner.mean(axis=0)
    high = np.zeros(len(seam))
    for point, (x, y) in enumerate(seam[1:-1], start=1):
        down = np.arange(_ABOVE, lips.outer_at(1, x) - y, _STEP)
        high[point] = _teeth(lips.down(x, y + down), floats(down))
    if np.count_nonzero(high[list(_MIDDLE)]) < _LEAST_SEEN:
        return None
    rows = np.flatnonzero(high)
    ends = [rows[0] - 1, *rows, rows[-1] + 1]
    return _smooth(np.interp(np.arange(len(high)), ends, [0, *high[rows], 0]))


def _edge_shifts(lips: _Lips, side: int) -> NDArray[np.float64]:
    """How far down the inner edge of one of two parted lips lies from the mesh's, (11,) IOD."""
    shifts = np.zeros(lips.inner.shape[1])
    out = 2 * side - 1  # down the face from the mouth's inside to the lip
    for point in range(1, len(shifts) - 1):
        x, y = lips.inner[side, point]
        half = abs(lips.inner[1 - side, point, 1] - y) / 2
        thick = out * (lips.outer_at(side, x) - y)
        away = np.arange(-min(half, _INWARD), min(thick / 2, _OUTWARD), _STEP)
        if thick < _STEP or len(away) < _LEAST_STEPS:
            continue
        lip = lips.down(x, y + out * np.linspace(0.35, 0.65, 5) * thick).mean(axis=0)
        unlike = np.linalg.norm(lips.down(x, y + out * away) - lip, axis=-1)
        most = float(unlike[away <= 0].max())
        if most < _UNLIKE * float(lip @ LUMA):
            continue
        last = np.flatnonzero(unlike > most / 2)[-1]
        shifts[point] = out * away[last]
    return _smooth(shifts)


def _smooth(along: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) along the lips without what one point alone says; the corners stay."""
    calm = along.copy()
    calm[1:-1] = np.median([along[:-2], along[1:-1], along[2:]], axis=0)
    calm[1:-1] = np.convolve(calm, (0.25, 0.5, 0.25), "valid")
    return calm


def _teeth(colour: Floats, down: Floats) -> float:
    """How far below the lips' line teeth end, IOD, 0 where none show.

    colour: (n, 3) down both lips, at `down` (n,) IOD from their line.
    """
    light, lip = colour @ LUMA, down < _ABOVE / 3
    near = (down > 0) & (down < _BELOW)
    if not near.any() or not lip.any():
        return 0.0
    dark = float(np.median(light[lip]))
    brightest = int(np.flatnonzero(near)[light[near].argmax()])
    bright, below = float(light[brightest]), np.flatnonzero(down > down[brightest])
    line = float(light[np.abs(down - 0.005) < 0.025].min())
    if line < _LINE * dark or bright < _BRIGHT * dark or not len(below):
        return 0.0
    if light[below].min() > _LIP * dark or _purity(colour[brightest]) > _PURE * max(
        _purity(np.median(colour[lip], axis=0)), 0.1
    ):
        return 0.0
    ends = below[light[below] < (dark + bright) / 2]
    end = float(down[ends[0]]) if len(ends) else 0.0
    return end if end > _LEAST_HIGH else 0.0


def _purity(colour: Floats) -> float:
    return float(np.ptp(colour) / max(colour.max(), 1.0))
