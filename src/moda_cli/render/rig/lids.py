"""Closing the eyes: a curtain of skin with the person's own lash line, painted in the picture.

A warp would smear lashes and liner into streaks and drag brows and glasses along.
"""

import cv2
import numpy as np

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample, smoothstep
from moda_cli.render.rig.eye_shape import ABOVE, BELOW, HALF_WIDTH, EyeWindow, LidEdges
from moda_cli.render.rig.frame import FaceFrame

_TEXELS = 160  # per IOD where an eye is unrolled
_LIGHTER = 0.4  # share of the skin farther around in a lid's colour
_FLATTER = 0.75  # depth of the closed lash line as a share of the lower lid's
_MARGIN = 0.012  # below the lower lid, IOD, that a closed eye covers
_RADIUS, _STEEPEST = 0.21, 0.85  # of an eyeball under its lid, IOD, and where its lid ends, radii
_GRAIN, _MOST_GRAIN = 5, 4  # texels of a skin's grain, and its deviations that are taken over
_FRAME = 0.5  # of the skin's light beside an eye: what is darker is no skin
_LASH = np.linspace(-0.075, 0.075, 61, dtype=np.float32)  # across the lash line, IOD


class Eyelid:
    """The skin that covers an open eye of a picture when it closes."""

    def __init__(
        self, picture: Picture, frame: FaceFrame, window: EyeWindow, light: Floats
    ) -> None:
        """light: (3, 3), see `find_light`."""
        edges, centre = window.edges, window.centre
        self._pixel = np.float32(1 / frame.iod)
        eye = _unrolled(picture, frame, centre)
        lashes = _lashes(eye, edges)
        x, self._v, self._u = window.x, window.y, window.u
        self._top, bottom = edges.at(self._u)
        self._floor = bottom + np.float32(_MARGIN)
        base = edges.base(self._u)
        self._closed = base + np.float32(_FLATTER) * (self._floor - base)
        self._roof = self._top - np.float32(lashes)
        skin = _skin_behind(eye, edges, lashes)
        cheek = _unrolled(picture, frame, centre + np.array([0, 0.45]))
        grain = cheek - cv2.GaussianBlur(cheek, (0, 0), _GRAIN)
        most = _MOST_GRAIN * float(np.median(np.abs(grain)))  # a frame of glasses is none
        grain = np.clip(grain, -most, most)
        self._bow = np.sqrt(np.maximum(1 - self._u * self._u, 0))
        shade = _ball(x, self._v - (self._top + self._closed) / 2) @ light
        lid = (np.abs(self._u) < 1) & (self._v > self._top) & (self._v < self._closed)
        shade -= shade[lid].mean(axis=0) if lid.any() else shade
        shaded = 1 + floats(shade * self._bow[..., None])
        self._skin = _sampled(skin + grain, x, self._v) * shaded
        self._lash = _lash_line(eye, skin, edges)
        self._taper = 1 - smoothstep((np.abs(self._u) - 1.0) / np.float32(0.28))

    def over(self, eye: Floats, closure: float) -> Floats:
        """The pixels `eye` (h, w, 3) of the window, closed by `closure` in 0..1."""
        c, v = np.float32(closure), self._v
        edge, rise = self._edge(c), smoothstep(floats((c - 0.6) / 0.4))
        onset = np.float32(min(closure / 0.15, 1.0))
        feather = np.float32(max(0.008, 1.2 * float(self._pixel)))
        soft = np.clip(self._roof + np.float32(ABOVE), 0.01, 0.025 + 0.06 * c)  # inside the box
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
        relief = -0.075 * crease * crease - 0.06 * lid * lid
        relief *= np.exp(-np.maximum(v - edge, 0) / np.float32(0.02)) * np.minimum(1.6 * c, 1)
        skin = self._skin * (1 + relief * self._bow)[..., None]
        out = eye + (skin - eye) * cover[..., None]
        lash = 1 + (ratio - 1) * (self._taper * onset)
        return floats(out * lash[..., None])

    def _edge(self, c: np.float32) -> Floats:
        """The moving lid's edge, y in IOD: it keeps its arch until it settles on the closed line.

        Straight interpolation would cut the iris with a flat line half way.
        """
        straight = self._top + c * (self._closed - self._top)
        reach = (self._closed - self._top).max()
        lowered, rest = self._top + c * reach, self._closed
        arched = 0.5 * (lowered + rest - np.sqrt((lowered - rest) ** 2 + np.float32(0.015) ** 2))
        return floats(straight + 0.65 * (1 - c**3) * self._bow * (arched - straight))


def _ball(x: Floats, y: Floats) -> Floats:
    """How the skin over an eyeball faces otherwise than the face: (h, w, 3), see `find_light`."""
    away = np.hypot(x, y)
    share = np.minimum(away / np.float32(_RADIUS), _STEEPEST) / np.maximum(away, 1e-6)
    x, y = x * share, y * share
    return floats(np.dstack([x, y, 1 - np.sqrt(1 - x * x - y * y)]))


def _unrolled(picture: Picture, frame: FaceFrame, centre: Points) -> Floats:
    """The eye's box in face axes, _TEXELS to the IOD: (rows, cols, 3)."""
    x, y = _axes()
    points = np.dstack(np.meshgrid(x, y)) + centre
    at = floats(frame.pixels(points))
    return floats(sample(picture, at))


def _axes() -> tuple[Floats, Floats]:
    step = 1 / _TEXELS
    return (
        np.arange(-HALF_WIDTH, HALF_WIDTH + step / 2, step, dtype=np.float32),
        np.arange(-ABOVE, BELOW + step / 2, step, dtype=np.float32),
    )


def _sampled(texture: Floats, x: Floats, y: Floats) -> Floats:
    at_x, at_y = (x + HALF_WIDTH) * np.float32(_TEXELS), (y + ABOVE) * np.float32(_TEXELS)
    return sample(texture, np.dstack([at_x, at_y]))


def _lashes(eye: Floats, edges: LidEdges) -> float:
    """How far the lashes reach above the upper lid's edge, IOD."""
    u = floats(np.concatenate([np.linspace(-0.85, -0.2, 12), np.linspace(0.2, 0.85, 12)]))
    up = np.arange(0.0, 0.17, 0.005, dtype=np.float32)
    rows = edges.at(u)[0] - up[:, None]
    x = np.broadcast_to(edges.x(u), rows.shape).copy()
    light = np.percentile(_sampled(eye, x, rows) @ LUMA, 35, axis=1)  # lashes stand apart
    calm = np.flatnonzero(light[5:] > 0.93 * np.median(light[14:24]))
    return float(np.clip(up[calm[0] + 5] + 0.012 if len(calm) else 0.09, 0.035, 0.13))


def _skin_behind(eye: Floats, edges: LidEdges, lashes: float) -> Floats:
    """`eye` with the eye and its lashes replaced by skin stretched smoothly across (a membrane)."""
    x, y = np.meshgrid(*_axes())
    u = edges.u(x)
    top, bottom = edges.at(u / np.float32(1.2))
    hole = (y > top - lashes) & (y < bottom + 0.03) & (np.abs(u) < 1.2)
    size = tuple(n // 2 for n in eye.shape[1::-1])
    small = cv2.resize(eye, size, interpolation=cv2.INTER_AREA)
    open_ = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    # Lashes, liner and glasses that reach past the hole must not bleed in: the skin's colour near
    # the edge is the local bright median, not the pixel.
    calm = cv2.medianBlur(np.clip(small, 0, 255).astype(np.uint8), 5).astype(np.float32)
    beside = cv2.dilate(open_.astype(np.uint8), np.ones((15, 15))) > open_
    light = calm @ LUMA
    skin = ~open_ & (light > _FRAME * np.median(light[beside]))
    calm = np.where(skin[..., None], calm, 0)
    near = skin.astype(np.float32)
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


def _lash_line(eye: Floats, skin: Floats, edges: LidEdges) -> Floats:
    """How much darker than skin the upper lash line is: (across, along u -1.3..1.3), 1 is skin."""
    u = np.linspace(-1.3, 1.3, 105, dtype=np.float32)
    top, _ = edges.at(u)
    x = np.broadcast_to(edges.x(u), (len(_LASH), len(u))).copy()
    y = top + _LASH[:, None]
    ratio = (_sampled(eye, x, y) @ LUMA) / np.maximum(_sampled(skin, x, y) @ LUMA, 8)
    ratio = np.clip(ratio, 0.12, 1.0)
    rows = _LASH[:, None]
    own = np.exp(-((np.minimum(rows + 0.01, 0) / 0.025) ** 2)) * (
        1 - smoothstep((rows - 0.004) / 0.012)
    )
    least = 1 - 0.5 * np.exp(-(((rows + 0.002) / 0.009) ** 2)) * np.maximum(1 - u**2 * 0.8, 0)
    return floats(np.minimum(1 + (ratio - 1) * own, least))
