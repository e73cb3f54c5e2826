"""Where one eye of a picture is: its lids' edges, and the pixels round it on the face's axes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.points import CHEEKS, LOWER_LIDS, UPPER_LIDS

HALF_WIDTH, ABOVE, BELOW = 0.40, 0.33, 0.28  # of the window round an eye, IOD
_SHUT = 0.12  # height over width below which an eye is closed
_DARK, _HAIR, _EVEN = 0.5, 0.65, 0.08  # light over that of the cheeks; see `is_covered`
_NARROWEST, _LEAST_APART = 0.03, 6  # half of an eye, IOD, and points of a lid that tell its curve


class EyeWindow:
    """The pixels round an eye that its lids and its iris are painted on.

    rect: (x0, y0, x1, y1) of them. centre: (2,) midway between the eye's corners, in the eyes'
    plane. x, y: (h, w) of each pixel from there, IOD; u: (h, w) along the eye, -1 and 1 at its
    corners. shut: whether the eye is closed, or too small to be drawn.
    """

    def __init__(self, shape: tuple[int, ...], frame: FaceFrame, mesh: Points, side: int) -> None:
        """shape: the picture's (H, W, ...)."""
        height, width = shape[:2]
        lids = frame.plane(mesh[[*UPPER_LIDS[side], *LOWER_LIDS[side]], :2]).reshape(2, 9, 2)
        corners = lids[0, [0, -1]]
        self.centre = corners.mean(axis=0)
        half = float(np.ptp(corners[:, 0])) / 2
        box = [[sx * HALF_WIDTH, sy] for sx in (-1, 1) for sy in (-ABOVE, BELOW)]
        pixels = frame.pixels(self.centre + box)
        x0, y0 = np.clip(np.floor(pixels.min(axis=0)), 1, (width - 1, height - 1)).astype(int)
        x1, y1 = np.clip(np.ceil(pixels.max(axis=0)), 1, (width - 1, height - 1)).astype(int)
        self.rect: Rect = (int(x0), int(y0), int(x1), int(y1))
        opening = float((lids[1, 3:6, 1] - lids[0, 3:6, 1]).mean())
        along = np.clip((lids[:, 1:-1, 0] - self.centre[0]) / max(half, 1e-6), -1, 1)
        apart = min(len(np.unique(place.round(2))) for place in along)
        small = min(x1 - x0, y1 - y0) < 4 or half < _NARROWEST or apart < _LEAST_APART
        self.shut = small or opening < 2 * half * _SHUT
        if self.shut:
            return
        self.edges = LidEdges(lids - self.centre, half)
        grid = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        local = floats(frame.plane(grid) - self.centre)
        self.x, self.y = local[..., 0].copy(), local[..., 1].copy()
        self.u = self.edges.u(self.x)


class LidEdges:
    """The lids' edges about the middle of the eye's corners, IOD.

    u is the place along the eye: -1 and 1 are its corners.
    """

    def __init__(self, lids: Points, half: float) -> None:
        """lids: (2, 9, 2) the upper and the lower edge, from corner to corner."""
        self._half = half
        self._ends = float(lids[0, 0, 1]), float(lids[0, -1, 1])
        u = np.linspace(-1, 1, 81)
        # Heights over the line between the corners as an even curve: a lid has no kinks.
        self._u = floats(u)
        self._heights = []
        for lid in lids:
            place = np.clip(lid[:, 0] / half, -1, 1)
            height = lid[:, 1] - self._line(place)
            fit = np.polynomial.Polynomial.fit(place[1:-1], height[1:-1], 4, domain=[-1, 1])
            bow = np.minimum(1, 6 * (1 - np.abs(u))) ** 0.7
            sharp = np.interp(u, place, height)
            self._heights.append(floats(fit(u) * bow + sharp * (1 - bow)))

    def u(self, x: Floats) -> Floats:
        return floats(x / self._half)

    def x(self, u: Floats) -> Floats:
        return floats(u * self._half)

    def base(self, u: Floats) -> Floats:
        """y of the line through the corners."""
        return floats(self._line(u))

    def at(self, u: Floats) -> tuple[Floats, Floats]:
        """y of the upper and of the lower lid's edge at u of any shape; the line beyond."""
        upper, lower = (np.interp(u, self._u, height) for height in self._heights)
        inside = np.abs(u) < 1
        base = self._line(u)
        return floats(base + upper * inside), floats(base + lower * inside)

    def _line(self, u: NDArray[np.floating]) -> NDArray[np.floating]:
        left, right = self._ends
        return np.asarray(left + (right - left) * (u + 1) / 2)


def is_covered(picture: Picture, mesh: Points, side: int) -> bool:
    """Whether a fringe or a dark glass hides an eye that the mesh only supposes there.

    Nothing in it is as bright as a white is, and nothing round it as skin is, or it is all one.
    """
    lids = mesh[[*UPPER_LIDS[side], *LOWER_LIDS[side][-2:0:-1]], :2]
    middle = lids.mean(axis=0)
    reach = np.ptp(lids[:, 0]) * 1.1
    low = np.clip((middle - reach).astype(int), 0, np.array(picture.shape[1::-1]) - 1)
    high = np.clip(np.ceil(middle + reach).astype(int), low + 1, picture.shape[1::-1])
    part = picture[low[1] : high[1], low[0] : high[0]] @ LUMA

    def grown(share: float) -> NDArray[np.bool_]:
        outline = np.rint(middle + (lids - middle) * share - low).astype(np.int32)
        return cv2.fillPoly(np.zeros(part.shape, np.uint8), [outline], 1) > 0

    inside, around = part[grown(0.9)], part[grown(2.0) & ~grown(1.5)]
    if not len(inside) or not len(around):
        return False
    cheeks = [np.median(sample(picture, floats(mesh[None, c, :2])) @ LUMA) for c in CHEEKS]
    skin = max(cheeks[side], max(cheeks) / 2)
    darkest, brightest = np.percentile(inside, (5, 95)) / max(skin, 1)
    alike = np.percentile(around, 90) < _HAIR * skin or brightest - darkest < _EVEN
    return bool(brightest < _DARK and alike)
