"""The lip seam and the mouth corners in an aligned crop of a face, and whether the mouth is open.

The seam is the deepest horizontal valley near where a mouth belongs, followed to both sides by
dynamic programming; the corners are where valley and lip colour end.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.crops import Plane, align, luminance, warp
from moda_cli.face.landmarks import FaceLandmarks, Points

UNIT = 64  # pixels per IOD of the aligned crop
ORIGIN = (1.4, 0.8)  # IOD from the crop's left and top edges to the middle of the pupils
CROP = (round(2 * ORIGIN[0] * UNIT), round((ORIGIN[1] + 2.4) * UNIT))  # width, height

# Proportions of frontal faces, mean and deviation in IOD; x is 0 on average.
MOUTH_X, MOUTH_Y, MOUTH_REACH = 0.12, (1.04, 0.10), (0.4, 0.34)
HALF_WIDTH = (0.39, 0.06)
SEAM_REACH = 0.75  # the seam is followed so far to either side
BAND = 0.16  # and so far up and down
CORNER_STRIP = 0.12  # compared beyond a corner, twice that inside it


@dataclass(frozen=True, slots=True)
class Mouth:
    """Face-frame points in IOD; contrasts as shares of the face's range of grey."""

    middle: Points  # (2,)
    seam: Points  # (n, 2) from corner to corner
    depth: float  # of the seam below the lips
    contrast: float  # of the seam inside the weaker corner against beyond it

    def moved_to(self, middle: Points) -> "Mouth":
        """The same mouth shifted so that its middle is there."""
        return replace(self, middle=middle, seam=self.seam + (middle - self.middle))


def fit_mouth(picture: NDArray[np.uint8], pupils: Points, middle: Points | None = None) -> Mouth:
    """The lips of a picture (H, W, 3) ; its middle (2,) in the face frame if known."""
    crop = warp(picture, align(pupils, UNIT, ORIGIN), CROP)
    light, redness = luminance(crop), lip_redness(crop)
    at = np.asarray(ORIGIN) + (find_middle(light, redness) if middle is None else middle)
    column, row = (int(v) for v in np.rint(at * UNIT))
    columns = np.arange(-round(SEAM_REACH * UNIT), round(SEAM_REACH * UNIT) + 1) + column
    valley = lip_valley(light, 0.06)
    path = trace_seam(valley[:, columns], light[:, columns], row)
    blurred = cv2.boxFilter(redness, -1, (5, round(0.1 * UNIT) | 1))
    depths = valley[path, columns] + 0.3 * blurred[path, columns]
    x = columns / UNIT - ORIGIN[0]
    y = darkest_rows(light, path, columns) / UNIT - ORIGIN[1]
    left, right, contrast = find_corners(x, depths)
    inside = slice(left, right + 1)
    curve = np.polynomial.Polynomial.fit(x[inside], y[inside], 4)
    centre = (x[left] + x[right]) / 2
    return Mouth(
        np.array([centre, curve(centre)]),
        np.column_stack((x[inside], curve(x[inside]))),
        float(depths[inside].mean()),
        contrast,
    )


def lip_redness(crop: NDArray[np.uint8]) -> Plane:
    """How much redder than the cheeks each point is (H, W), -0.5 to 1.5; 0 in grey pictures."""
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB).astype(np.float32)
    red = lab[:, :, 1] - 0.25 * lab[:, :, 2]
    cheeks = [red[face_window(x, (0.55, 0.85))] for x in ((-0.6, -0.35), (0.35, 0.6))]
    return np.asarray(np.clip((red - np.median(cheeks)) / 12, -0.5, 1.5), np.float32)


def face_window(x: tuple[float, float], y: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of the aligned crop between face-frame coordinates."""
    columns = slice(*(round((v + ORIGIN[0]) * UNIT) for v in x))
    return slice(*(round((v + ORIGIN[1]) * UNIT) for v in y)), columns


def lip_valley(light: Plane, width: float) -> Plane:
    """Depth of horizontal dark lines some `width` IOD wide (H, W), the better of two heights."""
    best = np.zeros_like(light)
    for height in (0.05, 0.09):
        step = round(height * UNIT)
        line = cv2.boxFilter(light, -1, (int(width * UNIT) | 1, max(1, step * 2 // 3) | 1))
        up, down = np.roll(line, step, axis=0), np.roll(line, -step, axis=0)
        best = np.maximum(best, np.minimum(up, down) - line)
    return best


def find_middle(light: Plane, redness: Plane) -> Points:
    """The likeliest middle of the mouth (2,) in the face frame: a wide valley between red lips."""
    lips = cv2.boxFilter(redness, -1, (int(0.4 * UNIT) | 1, int(0.16 * UNIT) | 1))
    y = (np.arange(light.shape[0]) / UNIT - ORIGIN[1])[:, None]
    x = np.arange(light.shape[1]) / UNIT - ORIGIN[0]
    prior = ((y - MOUTH_Y[0]) / MOUTH_Y[1]) ** 2 + (x / MOUTH_X) ** 2
    allowed = (np.abs(x) < MOUTH_REACH[0]) & (np.abs(y - MOUTH_Y[0]) < MOUTH_REACH[1])
    score = np.where(allowed, lip_valley(light, 0.3) + 0.25 * lips - 0.05 * prior, -np.inf)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    return np.array([x[column], y[row, 0]])


def trace_seam(valley: Plane, light: Plane, row: int) -> NDArray[np.intp]:
    """Rows (n,) of the darkest smooth path across planes (H, n), near a row at the middle column.

    Dynamic programming from the middle outwards, at most one row up or down a column.
    """
    half, middle = round(BAND * UNIT), valley.shape[1] // 2
    band = slice(row - half, row + half + 1)
    worth = valley[band] - 0.2 * light[band]
    offset = np.abs(np.arange(2 * half + 1) - half)
    near = valley[band, middle - 3 : middle + 4].mean(axis=1)
    start = int((near - 0.002 * offset).argmax())
    path = np.full(valley.shape[1], start)
    for order in (range(middle + 1, len(path)), range(middle - 1, -1, -1)):
        total = np.full(len(worth), -np.inf)
        total[start] = 0.0
        steps = []
        for column in order:
            padded = np.pad(total, 1, constant_values=-np.inf)
            options = np.stack((padded[:-2] - 0.01, padded[1:-1], padded[2:] - 0.01))
            came = options.argmax(axis=0)
            steps.append(came)
            total = options.max(axis=0) + worth[:, column]
        at = int((total - 0.01 * np.abs(np.arange(len(worth)) - start)).argmax())
        for column, came in zip(reversed(order), reversed(steps), strict=True):
            path[column] = at
            at += int(came[at]) - 1
    return path + row - half


def darkest_rows(
    light: Plane, path: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The path (n,) moved to the darkest row near it, to fractions of a row."""
    offset = np.arange(-round(0.07 * UNIT), round(0.07 * UNIT) + 1)
    fine = cv2.GaussianBlur(cv2.boxFilter(light, -1, (round(0.1 * UNIT) | 1, 1)), (1, 5), 0.9)
    rows = path[:, None] + offset
    dark = -fine[rows, columns[:, None]] - 0.002 * offset**2
    weight = np.exp((dark - dark.max(axis=1, keepdims=True)) / 0.02)
    return np.asarray((weight * rows).sum(axis=1) / weight.sum(axis=1), np.float64)


def find_corners(x: NDArray[np.float64], depths: Plane) -> tuple[int, int, float]:
    """Columns where a seam of these depths (n,) ends, and the weaker end's contrast.

    x: (n,) face-frame position of each column.
    """
    total = np.concatenate(([0.0], np.cumsum(depths)))
    middle, strip = len(x) // 2, round(CORNER_STRIP * UNIT)
    sides = np.arange(round(0.18 * UNIT), middle - strip)
    left, right = middle - sides, middle + sides
    inner = total[left + 2 * strip] - total[left], total[right + 1] - total[right + 1 - 2 * strip]
    outer = total[left] - total[left - strip], total[right + 1 + strip] - total[right + 1]
    contrast = [a / (2 * strip) - b / strip for a, b in zip(inner, outer, strict=True)]
    centre = (x[left][:, None] + x[right]) / 2
    half = (x[right] - x[left][:, None]) / 2
    prior = 0.02 * (centre / MOUTH_X) ** 2
    prior += 0.03 * ((half - HALF_WIDTH[0]) / HALF_WIDTH[1]) ** 2
    value = contrast[0][:, None] + contrast[1] - prior
    a, b = np.unravel_index(int(value.argmax()), value.shape)
    return int(left[a]), int(right[b]), float(min(contrast[0][a], contrast[1][b]))


def mouth_gap(picture: NDArray[np.uint8], face: FaceLandmarks) -> float:
    """Height in IOD of the opening between the lips at the middle of the mouth, 0 where closed.

    The opening is as dark as the darkest of the face, or loses the lips' red between them (teeth);
    teeth in grey pictures escape.
    """
    crop = warp(picture, align(face.pupils, UNIT, ORIGIN), CROP)
    x, y = face.to_face(face.mouth)
    window = face_window((x - 0.08, x + 0.08), (y - 0.15, y + 0.22))
    light, redness = (plane[window].mean(axis=1) for plane in (luminance(crop), lip_redness(crop)))
    above, below = np.maximum.accumulate(redness), np.maximum.accumulate(redness[::-1])[::-1]
    lips = np.minimum(above, below)
    opening = (light < 0.12) | ((lips > 0.3) & (redness < 0.45 * lips))
    return float(opening.sum() / UNIT)
