"""The colours of a face that what is hidden in its picture takes its own from."""

from dataclasses import dataclass

import cv2
import numpy as np

from moda_cli.face.landmarks import LEFT_PUPIL, LOWER_LIP, RIGHT_PUPIL, UPPER_LIP, Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample
from moda_cli.render.rig.points import (
    CHEEKS,
    LOWER_LIDS,
    LOWER_OUTER,
    UPPER_LIDS,
    UPPER_OUTER,
)

_LEAST_WHITE = 12  # pixels of the eyes that are enough to tell their colour


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours (3,) of 0..255: the lips, and the teeth as bright as the picture would show them.

    darkest: the face's darkest as a share of the lips' light; a pale picture has no black mouth.
    A grey photograph gives greys, a statue stone.
    """

    lips: Floats
    enamel: Floats
    darkest: float

    def shadow(self, share: float) -> Floats:
        """The flesh of the mouth in a shadow that leaves this share of the light."""
        return self.lips * np.float32(max(share, self.darkest))


def find_palette(picture: Picture, mesh: Points) -> Palette:
    """The palette of a face with a mesh (478, 3) in `picture` (H, W, 3)."""
    pairs = ((UPPER_OUTER, UPPER_LIP), (LOWER_OUTER, LOWER_LIP))
    middles = [(mesh[outer[2:9]] + mesh[inner[2:9]]) / 2 for outer, inner in pairs]
    lips = _median(picture, np.concatenate(middles))
    skin = _median(picture, mesh[[*CHEEKS[0], *CHEEKS[1]]])
    white = _white(picture, mesh, skin)
    bright = float(white @ LUMA)
    lit = float(skin @ LUMA)
    shaded = float(lips @ LUMA)
    wanted = min(np.clip(bright, 1.15 * lit, 1.3 * lit), max(2.2 * shaded, lit), 232)
    # The eyes' own white under the light that the skin shows: neutral looks blue in a yellow one.
    tint = 0.4 * (white - bright) / max(bright, 1) + 0.2 * (skin - lit) / max(lit, 1)
    tint *= min(1.0, 0.14 / max(float(np.abs(tint).max()), 1e-6))
    enamel = floats(np.clip(wanted * (1 + tint), 0, 250))
    x0, y0 = np.clip(mesh[:, :2].min(axis=0), 0, None).astype(int)
    x1, y1 = np.ceil(mesh[:, :2].max(axis=0)).astype(int) + 1
    stride = max(1, (x1 - x0) // 200)
    dark = float(np.percentile(picture[y0:y1:stride, x0:x1:stride] @ LUMA, 1))
    return Palette(lips, enamel, min(0.7 * dark / max(shaded, 1), 0.8))


def _median(picture: Picture, points: Points) -> Floats:
    """The median colour at `points` (n, 2+) and a pixel or two around them."""
    around = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]) * 1.5
    at = floats(points[:, None, :2] + around)
    return floats(np.median(sample(picture, at).reshape(-1, 3), axis=0))


def _white(picture: Picture, mesh: Points, skin: Floats) -> Floats:
    """The brighter half of what the lids leave open beside the irises; skin where they are shut."""
    seen = []
    for upper, lower, iris in zip(UPPER_LIDS, LOWER_LIDS, (LEFT_PUPIL, RIGHT_PUPIL), strict=True):
        outline = mesh[[*upper, *lower[-2:0:-1]], :2]
        x0, y0 = np.clip(outline.min(axis=0), 0, None).astype(int)
        x1, y1 = np.ceil(outline.max(axis=0)).astype(int) + 1
        eye = picture[y0:y1, x0:x1]
        if eye.size == 0:
            continue
        mask = np.zeros(eye.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.rint(outline - (x0, y0)).astype(np.int32)], 1)
        radius = np.linalg.norm(mesh[iris + 1 : iris + 5, :2] - mesh[iris, :2], axis=1).mean()
        centre = np.rint(mesh[iris, :2] - (x0, y0)).astype(int)
        cv2.circle(mask, centre.tolist(), int(np.ceil(1.1 * radius)), 0, -1)
        seen.append(eye[mask > 0])
    pixels = np.concatenate(seen) if seen else np.empty((0, 3))
    if len(pixels) < _LEAST_WHITE:
        return skin
    light = pixels @ LUMA
    return floats(np.median(pixels[light >= np.percentile(light, 60)], axis=0))
