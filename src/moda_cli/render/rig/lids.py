"""Closing the eyes: a curtain of skin with the person's own lash line, painted in the picture.

A warp would smear lashes and liner into streaks and drag brows and glasses along.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample, smoothstep
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.points import LOWER_LIDS, UPPER_LIDS

_HALF_WIDTH, _ABOVE, _BELOW = 0.40, 0.33, 0.28  # of the painted box round an eye, IOD
_TEXELS = 160  # per IOD where an eye is unrolled
_LIGHTER = 0.4  # share of the skin farther around in a lid's colour
_FLATTER = 0.75  # depth of the closed lash line as a share of the lower lid's
_MARGIN = 0.012  # below the lower lid, IOD, that a closed eye covers
_OPEN = 0.12  # height over width below which an eye is closed already
_LASH = np.linspace(-0.075, 0.075, 61, dtype=np.float32)  # across the lash line, IOD


class Eyelid:
    """One eye of a picture and the skin that covers it when closed.

    rect: (x0, y0, x1, y1) pixels the lid may change. still: whether the eye is closed already, so
    that nothing moves.
    """

    def __init__(self, picture: Picture, frame: FaceFrame, mesh: Points, side: int) -> None:
        height, width = picture.shape[:2]
        lids = frame.plane(mesh[[*UPPER_LIDS[side], *LOWER_LIDS[side]], :2]).reshape(2, 9, 2)
        corners = lids[0, [0, -1]]
        centre = corners.mean(axis=0)
        half = float(np.ptp(corners[:, 0])) / 2
        box = centre + [[sx * _HALF_WIDTH, sy] for sx in (-1, 1) for sy in (-_ABOVE, _BELOW)]
        pixels = frame.pixels(box)
        x0, y0 = np.clip(np.floor(pixels.min(axis=0)), 1, (width - 1, height - 1)).astype(int)
        x1, y1 = np.clip(np.ceil(pixels.max(axis=0)), 1, (width - 1, height - 1)).astype(int)
        self.rect: Rect = (int(x0), int(y0), int(x1), int(y1))
        opening = float((lids[1, 3:6, 1] - lids[0, 3:6, 1]).mean()) / (2 * half)
        self.still = bool(x1 - x0 < 4 or y1 - y0 < 4 or opening < _OPEN)
        if self.still:
            return
        shape = _Shape(lids - centre, half)
        grid = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        local = floats(frame.plane(grid) - centre)
        self._source = picture[y0:y1, x0:x1].astype(np.float32)
        self._pixel = np.float32(1 / frame.iod)

        eye = _unrolled(picture, frame, centre)
        lashes = shape.lashes(eye)
        x, self._v = local[..., 0].copy(), local[..., 1].copy()
        self._u = shape.u(x)
        self._top, bottom = shape.edges(self._u)
        self._floor = bottom + np.float32(_MARGIN)
        base = shape.base(self._u)
        self._closed = base + np.float32(_FLATTER) * (self._floor - base)
        self._roof = self._top - np.float32(lashes)
        skin = _skin_behind(eye, shape, lashes)
        cheek = _unrolled(picture, frame, centre + np.array([0, 0.45]))
        grain = np.clip(cheek - cv2.GaussianBlur(cheek, (0, 0), 2.5), -11, 11)
        self._skin = _sampled(skin + grain, x, self._v)
        self._lash = _lash_line(eye, skin, shape)
        self._bow = np.sqrt(np.maximum(1 - self._u * self._u, 0))
        self._taper = 1 - smoothstep((np.abs(self._u) - 1.0) / np.float32(0.28))

    def paint(self, picture: NDArray[np.uint8], closure: float) -> None:
        """Write the eye, closed by `closure` in 0..1, into its rect of `picture`."""
        x0, y0, x1, y1 = self.rect
        if self.still or closure <= 0:
            return
        c, v = np.float32(closure), self._v
        edge, rise = self._edge(c), smoothstep(floats((c - 0.6) / 0.4))
        onset = np.float32(min(closure / 0.15, 1.0))
        feather = np.float32(max(0.008, 1.2 * float(self._pixel)))
        soft = np.clip(self._roof + np.float32(_ABOVE), 0.01, 0.025 + 0.06 * c)  # inside the box
        upper = smoothstep((edge - v) / (2 * feather) + 0.5)
        upper *= smoothstep((v - self._roof + soft) / (soft + np.float32(0.015))) * onset
        low = self._floor + rise * (self._closed - self._floor)
        lower = smoothstep((v - low) / (2 * feather) + 0.5)
        lower *= np.minimum(3 * rise, 1.5 * self._bow).clip(0, 1)
        lower *= 1 - smoothstep((v - self._floor - np.float32(0.012)) / np.float32(0.03))
        cover = np.minimum(upper + lower, 1) * self._taper
        across = (v - edge - _LASH[0]) / (_LASH[1] - _LASH[0])
        along = (self._u + 1.3) * np.float32((self._lash.shape[1] - 1) / 2.6)
        ratio = sample(self._lash, np.dstack([along, across]), outside=1)
        depth = np.clip((v - self._roof) / np.maximum(edge - self._roof, 0.02), 0, 1)
        crease, lid = (1 - depth) ** 2, depth * depth
        relief = 0.035 - 0.075 * crease * crease - 0.145 * lid * lid
        relief *= np.exp(-np.maximum(v - edge, 0) / np.float32(0.02)) * np.minimum(1.6 * c, 1)
        skin = self._skin * (1 + relief * self._bow)[..., None]
        out = self._source + (skin - self._source) * cover[..., None]
        lash = 1 + (ratio - 1) * (self._taper * onset)
        out *= lash[..., None]
        picture[y0:y1, x0:x1] = np.rint(out).clip(0, 255).astype(np.uint8)

    def _edge(self, c: np.float32) -> Floats:
        """The moving lid's edge, y in IOD: it keeps its arch until it settles on the closed line.

        Straight interpolation would cut the iris with a flat line half way.
        """
        straight = self._top + c * (self._closed - self._top)
        reach = (self._closed - self._top).max()
        lowered, rest = self._top + c * reach, self._closed
        arched = 0.5 * (lowered + rest - np.sqrt((lowered - rest) ** 2 + np.float32(0.015) ** 2))
        return floats(straight + 0.65 * (1 - c**3) * self._bow * (arched - straight))


class _Shape:
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

    def edges(self, u: Floats) -> tuple[Floats, Floats]:
        """y of the upper and of the lower lid's edge at u of any shape; the line beyond."""
        upper, lower = (np.interp(u, self._u, height) for height in self._heights)
        inside = np.abs(u) < 1
        base = self._line(u)
        return floats(base + upper * inside), floats(base + lower * inside)

    def _line(self, u: NDArray[np.floating]) -> NDArray[np.floating]:
        left, right = self._ends
        return np.asarray(left + (right - left) * (u + 1) / 2)

    def lashes(self, eye: Floats) -> float:
        """How far the lashes reach above the upper lid's edge, IOD."""
        u = floats(np.concatenate([np.linspace(-0.85, -0.2, 12), np.linspace(0.2, 0.85, 12)]))
        up = np.arange(0.0, 0.17, 0.005, dtype=np.float32)
        rows = self.edges(u)[0] - up[:, None]
        x = np.broadcast_to(self.x(u), rows.shape).copy()
        light = np.percentile(_sampled(eye, x, rows) @ LUMA, 35, axis=1)  # lashes stand apart
        calm = np.flatnonzero(light[5:] > 0.93 * np.median(light[14:24]))
        return float(np.clip(up[calm[0] + 5] + 0.012 if len(calm) else 0.09, 0.035, 0.13))


def _unrolled(picture: Picture, frame: FaceFrame, centre: Points) -> Floats:
    """The eye's box in face axes, _TEXELS to the IOD: (rows, cols, 3)."""
    x, y = _axes()
    points = np.dstack(np.meshgrid(x, y)) + centre
    at = floats(frame.pixels(points))
    return floats(sample(picture, at))


def _axes() -> tuple[Floats, Floats]:
    step = 1 / _TEXELS
    return (
        np.arange(-_HALF_WIDTH, _HALF_WIDTH + step / 2, step, dtype=np.float32),
        np.arange(-_ABOVE, _BELOW + step / 2, step, dtype=np.float32),
    )


def _sampled(texture: Floats, x: Floats, y: Floats) -> Floats:
    at_x, at_y = (x + _HALF_WIDTH) * np.float32(_TEXELS), (y + _ABOVE) * np.float32(_TEXELS)
    return sample(texture, np.dstack([at_x, at_y]))


def _skin_behind(eye: Floats, shape: _Shape, lashes: float) -> Floats:
    """`eye` with the eye and its lashes replaced by skin stretched smoothly across (a membrane)."""
    x, y = np.meshgrid(*_axes())
    u = shape.u(x)
    top, bottom = shape.edges(u / np.float32(1.2))
    hole = (y > top - lashes) & (y < bottom + 0.03) & (np.abs(u) < 1.2)
    size = tuple(n // 2 for n in eye.shape[1::-1])
    small = cv2.resize(eye, size, interpolation=cv2.INTER_AREA)
    open_ = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    # Lashes, liner and glasses that reach past the hole must not bleed in: the skin's colour near
    # the edge is the local bright median, not the pixel.
    calm = cv2.medianBlur(np.clip(small, 0, 255).astype(np.uint8), 5).astype(np.float32)
    calm = np.where(open_[..., None], 0, calm)
    near = (~open_).astype(np.float32)
    mean, wide = (
        cv2.GaussianBlur(calm, (0, 0), sigma)
        / np.maximum(cv2.GaussianBlur(near, (0, 0), sigma), 1e-3)[..., None]
        for sigma in (7, 16)
    )
    boundary = np.where((calm @ LUMA < 0.94 * (mean @ LUMA))[..., None], mean, calm)
    fill = np.where(open_[..., None], mean, boundary).astype(np.float32)
    for _ in range(300):
        fill = np.where(
            open_[..., None], cv2.blur(fill, (3, 3), borderType=cv2.BORDER_REPLICATE), boundary
        )
    fill += (wide - fill) * np.float32(_LIGHTER)  # the rim of the hole lies in shade and liner
    filled = cv2.resize(fill, eye.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(filled, (0, 0), 2).astype(np.float32)


def _lash_line(eye: Floats, skin: Floats, shape: _Shape) -> Floats:
    """How much darker than skin the upper lash line is: (across, along u -1.3..1.3), 1 is skin."""
    u = np.linspace(-1.3, 1.3, 105, dtype=np.float32)
    top, _ = shape.edges(u)
    x = np.broadcast_to(shape.x(u), (len(_LASH), len(u))).copy()
    y = top + _LASH[:, None]
    ratio = (_sampled(eye, x, y) @ LUMA) / np.maximum(_sampled(skin, x, y) @ LUMA, 8)
    ratio = np.clip(ratio, 0.12, 1.0)
    rows = _LASH[:, None]
    own = np.exp(-((np.minimum(rows + 0.01, 0) / 0.025) ** 2)) * (
        1 - smoothstep((rows - 0.004) / 0.012)
    )
    least = 1 - 0.5 * np.exp(-(((rows + 0.002) / 0.009) ** 2)) * np.maximum(1 - u**2 * 0.8, 0)
    return floats(np.minimum(1 + (ratio - 1) * own, least))
