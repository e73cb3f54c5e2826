"""The line between the lips, refined on the picture, and whether teeth show behind it."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample

_COLUMNS, _ROWS = 81, 97
_T = np.linspace(-1, 1, _COLUMNS, dtype=np.float32)  # along the mouth, corners at +-1
_V = np.linspace(-0.16, 0.20, _ROWS, dtype=np.float32)  # across it, IOD, down
_ROW = float(_V[1] - _V[0])


@dataclass(frozen=True, slots=True)
class Seam:
    """The mouth at rest in the face frame (IOD)."""

    x: float  # middle between the corners
    half_width: float
    chin: float  # y of the chin
    curve: Floats  # y at x + half_width * linspace(-1, 1, 81)
    teeth: float  # height of the upper teeth the source shows above `curve`, 0 if none

    def y_at(self, x: Floats) -> Floats:
        """Seam height at face-frame x of any shape; level beyond the corners."""
        t = (x - self.x) / self.half_width
        return floats(np.interp(t, _T, self.curve))


def find_seam(picture: NDArray[np.uint8], face: FaceLandmarks) -> Seam:
    """The seam of the mouth in `picture` (H, W, 3) RGB near where the landmarks put it."""
    corners = face.to_face(face.corners)
    x, half_width = float(corners[:, 0].mean()), float(np.ptp(corners[:, 0]) / 2)
    x, half_width = float(np.clip(x, -0.5, 0.5)), float(np.clip(half_width, 0.24, 0.62))
    points = face.to_face(np.vstack([face.seam, face.corners]))
    t = (points[:, 0] - x) / half_width
    fit = np.polynomial.Polynomial.fit(t, points[:, 1], 2, domain=[-1, 1])
    base = fit(_T).astype(np.float32)
    chin = float(np.clip(face.to_face(face.chin)[1], base.mean() + 0.5, base.mean() + 1.1))

    patch = _patch(picture, face, x, half_width, base)
    grey = cv2.GaussianBlur(patch @ LUMA, (5, 5), 0)
    wide = cv2.GaussianBlur(grey, (1, 31), 0)
    valley = (grey - wide) / max(float(wide.std()), 4.0) + (_V[:, None] / 0.06) ** 2 * 0.6
    path = _V[_cheapest_path(valley, np.abs(_V) < 0.075)]
    weight = 1.0 - 0.7 * np.abs(_T) ** 4
    seam = base + np.polynomial.Polynomial.fit(_T, path, 4, w=weight)(_T).astype(np.float32)
    edge, height = _teeth(patch, grey)
    if height > 0:
        taper = np.clip(1.25 - 1.25 * np.abs(_T) ** 6, 0, 1)
        lowered = np.polynomial.Polynomial.fit(_T, edge, 4, w=1.05 - np.abs(_T))(_T)
        seam = base + ((lowered + 0.01) * taper + (seam - base) * (1 - taper)).astype(np.float32)
    return Seam(x, half_width, chin, seam, height)


def _patch(
    picture: NDArray[np.uint8], face: FaceLandmarks, x: float, half_width: float, base: Floats
) -> Floats:
    """The mouth unrolled along `base`: (rows across, columns along, 3)."""
    points = np.empty((_ROWS, _COLUMNS, 2))
    points[..., 0] = x + half_width * _T
    points[..., 1] = base + _V[:, None]
    at = face.to_picture(points).astype(np.float32)
    return floats(sample(picture, at))


def _cheapest_path(cost: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Row per column of the cheapest connected path from left to right (dynamic programming)."""
    cost = np.where(allowed[:, None], cost, np.float32(1e4))
    total, steps = cost[:, 0], np.zeros(cost.shape, np.intp)
    rows = np.arange(len(cost))
    for column in range(1, cost.shape[1]):
        shifted = np.stack([np.roll(total, move) for move in (1, 0, -1)])
        shifted[0, 0] = shifted[2, -1] = 1e6
        shifted[[0, 2]] += 0.08
        best = shifted.argmin(axis=0)
        steps[:, column] = rows - (1 - best)
        total = shifted[best, rows] + cost[:, column]
    path = np.empty(cost.shape[1], np.intp)
    path[-1] = int(total.argmin())
    for column in range(cost.shape[1] - 1, 0, -1):
        path[column - 1] = steps[path[column], column]
    return path


def _teeth(patch: Floats, grey: Floats) -> tuple[Floats, float]:
    """Where upper teeth end, as an offset (columns,) from the base, and their height; 0 if none."""
    none = np.zeros(_COLUMNS, np.float32), 0.0
    middle = grey[:, np.abs(_T) < 0.45].mean(axis=1)
    inner = np.flatnonzero((_V > -0.06) & (_V < 0.12))
    peak = int(inner[middle[inner].argmax()])
    above, below = middle[:peak], middle[peak + 1 :]
    reach = int(0.11 / _ROW)
    if len(above) == 0 or len(below) == 0:
        return none
    rise = middle[peak] - max(above[-reach:].min(), below[:reach].min())
    red = (patch[..., 0] - patch[..., 1])[:, np.abs(_T) < 0.45].mean(axis=1)
    lips = np.median(np.concatenate([red[: peak - 6], red[peak + 6 :]]))
    skin = float(np.percentile(grey, 90))
    coloured = lips > 14
    whiter = red[peak] < 0.55 * lips if coloured else middle[peak] > 0.85 * skin
    if not (rise > 0.16 * skin and whiter):
        return none
    level = (middle[peak] + below[:reach].min()) / 2
    darker = np.flatnonzero(above < level)
    high = int(darker[-1]) + 1 if len(darker) else 0
    if (peak - high) * _ROW < 0.008:
        return none
    fall = floats(cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=5))
    fall = fall / max(float(np.abs(fall).max()), 1.0)
    centre = peak + int(np.flatnonzero(below < level)[0]) if (below < level).any() else peak
    cost = fall * 4 + ((np.arange(_ROWS) - centre)[:, None] * _ROW / 0.07) ** 2 * 0.4
    edge = _V[_cheapest_path(cost, np.abs(np.arange(_ROWS) - centre) * _ROW < 0.09)]
    return edge, min((centre - high) * _ROW, 0.14)
