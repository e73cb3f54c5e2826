"""The pupils in a face box: the pair of dark round spots that fits the face best.

Votes of the gradients (radial symmetry) and darkness propose, the proportions of the box decide,
an integro-differential operator on the iris centres them. Eyes without a visible iris (statues,
lowered lids) get the expected place, at the height of the lid line.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.cascade import FaceBox
from moda_cli.face.crops import Plane, align, luminance, warp
from moda_cli.face.landmarks import Points

BOX_EYES = ((0.313, 0.405), (0.687, 0.405))  # mean pupils as shares of a face box
BOX_IOD = 0.374  # their distance
EYE_SD = (0.08, 0.075)  # of a pupil from there, IOD
PAIR_SD = (0.08, 4.0)  # of log(IOD) and of the roll in degrees
PRIOR_FLOOR = -3.0  # of the log prior where it weakens the evidence

UNIT = 48  # pixels per expected IOD of the crop the pupils are searched in
MARGIN = 1.2  # that crop's side over the box's
PEAKS = 6  # candidates a side
RADII = (0.07, 0.085, 0.10, 0.12)  # of irises, IOD
MIN_STRENGTH = 0.55  # of the weaker pupil; below it the eyes count as closed

IRIS_UNIT = 96  # pixels per IOD of the crop the irises are centred in
IRIS_EDGE = (0.85, 0.35)  # IOD from its middle to its edges
RIM_ANGLES = np.deg2rad([-25, -10, 5, 20, 35, 55, 90, 125, 145, 160, 175, 190, 205])  # 90 is down


@dataclass(frozen=True, slots=True)
class Eyes:
    """Pupils (2, 2) in pixels of the picture, and how sure they are; 0 is a guess."""

    pupils: Points
    strength: float


def find_eyes(picture: NDArray[np.uint8], box: FaceBox) -> Eyes:
    """The eyes of a face box of a picture (H, W, 3)."""
    side = round(UNIT / BOX_IOD * MARGIN)
    matrix = box.to_window(side, MARGIN)
    back = cv2.invertAffineTransform(matrix)
    light = luminance(warp(picture, matrix, (side, side)))
    score = eye_map(light)
    expected = (np.array(BOX_EYES) - 0.5) / MARGIN * (side - 1) + (side - 1) / 2
    best, strength, total = expected, 0.0, -np.inf
    left, right = (peaks_near(score, point) for point in expected)
    for points in (np.array([a, b]) for a in left for b in right):
        prior = pair_prior(points, expected)
        values = [float(score[y, x]) for x, y in points]
        value = sum(values) + 0.5 * pair_likeness(light, points) + 0.25 * prior
        if value > total:
            best, total = points, value
            strength = min(values) + 0.15 * max(prior, PRIOR_FLOOR)
    if strength < MIN_STRENGTH:
        guess = expected + np.array([0.0, lid_offset(light, expected)])
        return Eyes(guess @ back[:, :2].T + back[:, 2], 0.0)
    return Eyes(centre_pupils(picture, best @ back[:, :2].T + back[:, 2]), strength)


def eye_map(light: Plane) -> Plane:
    """How much each point of a crop (H, W) looks like a pupil, about 1 at a good one."""
    around = cv2.boxFilter(light, -1, (int(0.55 * UNIT) | 1, int(0.35 * UNIT) | 1))
    disc = cv2.GaussianBlur(light, (0, 0), 0.045 * UNIT)
    dark = 1.2 * np.clip(around - disc, 0, None) + 0.4 * np.clip(0.5 - disc, 0, 0.5)
    return np.asarray(dark + 0.8 * radial_symmetry(light), np.float32)


def radial_symmetry(light: Plane) -> Plane:
    """Votes for the centres of dark discs (H, W) (Loy and Zelinsky 2003).

    Horizontal gradients weigh more: an iris has free sides, lids cover its top and bottom.
    """
    gx = cv2.Sobel(light, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(light, cv2.CV_32F, 0, 1, scale=1 / 8)
    steep = np.hypot(gx, gy)
    y, x = np.nonzero(steep > 0.02)
    size = steep[y, x]
    ux, uy = gx[y, x] / size, gy[y, x] / size
    weight = np.minimum(size, 0.15) / 0.15 * (0.25 + 0.75 * np.abs(ux))
    height, width = light.shape
    total = np.zeros_like(light)
    for radius in sorted({round(r * UNIT) for r in RADII}):
        px, py = np.rint(x - ux * radius).astype(int), np.rint(y - uy * radius).astype(int)
        inside = (px >= 0) & (px < width) & (py >= 0) & (py < height)
        cells = py[inside] * width + px[inside]
        votes = np.bincount(cells, weight[inside], height * width).reshape(height, width)
        smooth = cv2.GaussianBlur(votes.astype(np.float32), (0, 0), 0.25 * radius + 0.4)
        total = np.maximum(total, smooth * radius / (2 * np.pi))
    return total


def peaks_near(score: Plane, point: Points) -> NDArray[np.intp]:
    """The highest local maxima x, y (n, 2) of a map within 3 deviations of the expected point."""
    rows, columns = np.indices(score.shape)
    across, down = (columns - point[0]) / EYE_SD[0], (rows - point[1]) / EYE_SD[1]
    shift = (across**2 + down**2) / UNIT**2
    local = np.where(shift < 9, score * np.exp(-shift / 8), 0).astype(np.float32)
    top = cv2.dilate(local, np.ones((5, 5), np.uint8))
    y, x = np.nonzero((local >= top) & (local > 0))
    order = np.argsort(-local[y, x], kind="stable")[:PEAKS]
    return np.column_stack((x[order], y[order]))


def pair_prior(points: NDArray[np.intp], expected: Points) -> float:
    """Log prior of a pair of pupils (2, 2) in a crop, 0 where they are expected."""
    span = points[1] - points[0]
    spread = np.log(np.linalg.norm(span) / UNIT) / PAIR_SD[0]
    roll = np.degrees(np.arctan2(span[1], span[0])) / PAIR_SD[1]
    middle = ((points - expected) / UNIT / EYE_SD).mean(axis=0)
    return float(-0.5 * (2 * (middle**2).sum() + spread**2 + roll**2))


def pair_likeness(light: Plane, points: NDArray[np.intp]) -> float:
    """Correlation of one eye of a crop with the mirrored other."""
    size = (int(0.5 * UNIT) | 1, int(0.3 * UNIT) | 1)
    left, right = (cv2.getRectSubPix(light, size, (float(x), float(y))) for x, y in points)
    a, b = left - left.mean(), right[:, ::-1] - right.mean()
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6))


def lid_offset(light: Plane, expected: Points) -> float:
    """Pixels of a crop that the darkest rows of both eyes lie below the expected pupils (2, 2)."""
    reach = round(0.22 * UNIT)
    size = (round(0.34 * UNIT) | 1, 2 * reach + 1)
    eyes = [cv2.getRectSubPix(light, size, (float(x), float(y))) for x, y in expected]
    profile = cv2.GaussianBlur(np.mean(eyes, axis=(0, 2)), (1, 9), 2.0).ravel()
    offset = np.arange(-reach, reach + 1)
    return float(offset[(profile + 0.03 * (offset / UNIT / EYE_SD[1]) ** 2).argmin()])


def centre_pupils(picture: NDArray[np.uint8], pupils: Points) -> Points:
    """Pupils (2, 2) moved to the centres of their irises, to fractions of a pixel.

    Daugman's operator (1993) on the sides and the bottom of the rim; lashes cover the top.
    """
    matrix = align(pupils, IRIS_UNIT, IRIS_EDGE)
    size = (round(2 * IRIS_EDGE[0] * IRIS_UNIT), round(2 * IRIS_EDGE[1] * IRIS_UNIT))
    light = luminance(warp(picture, matrix, size))
    disc = cv2.GaussianBlur(light, (0, 0), 0.05 * IRIS_UNIT)
    reach, rim = round(0.11 * IRIS_UNIT), round(0.13 * IRIS_UNIT) + 2
    side, count = 2 * (reach + rim) + 1, 2 * reach + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] / IRIS_UNIT
    shifts = []
    for point in pupils @ matrix[:, :2].T + matrix[:, 2]:
        centre = (float(point[0]), float(point[1]))
        patch = cv2.GaussianBlur(cv2.getRectSubPix(light, (side, side), centre), (0, 0), 1.2)
        gx = cv2.Sobel(patch, cv2.CV_32F, 1, 0, scale=1 / 8)
        gy = cv2.Sobel(patch, cv2.CV_32F, 0, 1, scale=1 / 8)
        best = np.zeros((count, count), np.float32)
        for radius in np.arange(0.07, 0.121, 0.01) * IRIS_UNIT:
            total = np.zeros_like(best)
            for ux, uy in zip(np.cos(RIM_ANGLES), np.sin(RIM_ANGLES), strict=True):
                column, row = rim + round(radius * ux), rim + round(radius * uy)
                at = slice(row, row + count), slice(column, column + count)
                total += np.clip(gx[at] * ux + gy[at] * uy, -0.02, 0.08)
            best = np.maximum(best, total / (0.08 * len(RIM_ANGLES)))
        dark = np.clip(0.8 - cv2.getRectSubPix(disc, (count, count), centre), 0, 1)
        score = best + 0.3 * dark - 14 * (x**2 + y**2)
        weight = np.exp((score - score.max()) / 0.03)
        shifts.append(np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum())
    back = np.linalg.inv(matrix[:, :2])
    return np.asarray(pupils + IRIS_UNIT * np.array(shifts) @ back.T, np.float64)
