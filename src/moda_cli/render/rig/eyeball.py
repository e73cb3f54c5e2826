"""Looking elsewhere: the iris as a layer over the eye's own white, both behind the lids' edges."""

from dataclasses import dataclass

import cv2
import numpy as np

from moda_cli.face.landmarks import LEFT_PUPIL, RIGHT_PUPIL, Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, carried_on, floats, sample, smoothstep
from moda_cli.render.rig.eye_shape import EyeWindow
from moda_cli.render.rig.frame import FaceFrame

IRISES = (LEFT_PUPIL, RIGHT_PUPIL)  # their centres; the four points after each lie on its rim
_RADII = (0.06, 0.13)  # of an iris, IOD: what a mesh may say of it
_LIMBUS = 1.2  # radii from where on the eye shows its white alone
_SOFT = 0.2  # radii over which the white beside it goes over into what it hides
_ACROSS, _DOWN = 97, 33  # samples of the white, from corner to corner and from lid to lid
_RIM = 0.3  # of the opening's height above and below it, which an iris may darken too
_LEAST_WHITE = 0.04  # share of the open eye that is enough to know its colour
_PALEST = 0.78  # light of an iris over that of the white it lies on; a statue has none
_EDGE = 0.010  # IOD within the lids' edges where they mix in
STILL, _ONSET = 0.0015, 0.006  # IOD of way after which, and over which, the layers replace it
_LASHES = 0.05  # IOD below the upper lid's edge that they may reach
_DEPTHS = np.arange(0, 0.13, 0.01)  # IOD from there at which their shadow is known
_LEAST_SEEN = 4  # of 25 rays to a side of an iris that cross its edge between the lids
_WET = 0.06  # IOD above the lower lid in which its rim may shine
_KEPT = 0.8  # radii of the iris that stay within the corners however far it looks


@dataclass(frozen=True, slots=True)
class Disc:
    """Where an iris is in its window, IOD."""

    x: float
    y: float
    radius: float

    def away(self, x: Floats, y: Floats) -> Floats:
        """How far x, y are from its middle, in radii."""
        return floats(np.hypot(x - np.float32(self.x), y - np.float32(self.y)) / self.radius)


class Eyeball:
    """The white and the iris of an open eye; see `find_eyeball`.

    room: (4,) how far the iris can go left, right, up and down before it hides, IOD.
    """

    def __init__(
        self,
        frame: FaceFrame,
        window: EyeWindow,
        disc: Disc,
        layers: tuple[Floats, Floats, Floats],
        start: float,
    ) -> None:
        """layers: the white, the iris with its coverage and the light on it, (h, w, ...).

        start: IOD from the upper lid's edge to where the lashes let the iris be seen.
        """
        x, y, u, edges = window.x, window.y, window.u, window.edges
        self._frame = frame
        white, self._iris, shadow = layers
        top, bottom = edges.at(u)
        middle = edges.at(floats([disc.x / edges.x(floats([1]))[0]]))
        ends, kept = edges.x(floats([-1, 1])), _KEPT * disc.radius
        room = (disc.x - ends[0] - kept, ends[1] - disc.x - kept,
                disc.y - middle[0][0] + kept, middle[1][0] - disc.y + kept)  # fmt: skip
        self.room = np.maximum(room, 0).ravel()
        pixel = np.float32(1 / frame.iod)
        inside = np.abs(u) < 1
        within = np.minimum(y - top - np.float32(start), bottom - y)
        open_ = np.clip(within / (2 * pixel) + 0.25, 0, 1) * inside
        # Where an iris meets its lids they are as dark as it: their rim is taken from beside it.
        rim = np.maximum(bottom - top, 1e-3) * np.float32(_RIM)
        touched = smoothstep((y - top + rim / 3) / (rim / 3)) * smoothstep((bottom + rim - y) / rim)
        touched *= inside * (disc.away(x, y) < _LIMBUS + _SOFT)
        lashes = smoothstep((y - top - np.float32(start)) / np.float32(0.012)) if start else 1
        replaced = np.maximum(open_, touched) * lashes
        left, upper, width, height = cv2.boundingRect((replaced > 0).astype(np.uint8))
        part = (slice(upper, upper + height), slice(left, left + width))
        self._part, self._white, self._shadow = part, white[part], shadow[part]
        self._open, self._replaced = open_[part][..., None], replaced[part][..., None]
        columns, rows = np.arange(left, left + width), np.arange(upper, upper + height)
        self._at = floats(np.dstack(np.meshgrid(columns, rows)))

    def over(self, eye: Floats, offset: Floats) -> None:
        """Draw into the pixels `eye` (h, w, 3) of the window an iris `offset` (2,) away, IOD."""
        shown = floats(self._frame.shown(np.array([*offset, 0.0])))
        iris = sample(self._iris, self._at - shown, outside=0)
        cover = iris[..., 3:] * self._open
        colour = self._white + (iris[..., :3] * self._shadow - self._white) * cover
        onset = np.clip((np.linalg.norm(offset) - STILL) / _ONSET, 0, 1).astype(np.float32)
        eye[self._part] += (colour - eye[self._part]) * (self._replaced * onset)


def find_eyeball(
    picture: Picture, frame: FaceFrame, mesh: Points, window: EyeWindow, side: int
) -> Eyeball | None:
    """The layers of an open eye; None where too little white shows, or no iris on it."""
    iris = frame.plane(mesh[IRISES[side] : IRISES[side] + 5, :2]) - window.centre
    radius = np.linalg.norm(iris[1:] - iris[0], axis=-1).mean()
    disc = Disc(float(iris[0, 0]), float(iris[0, 1]), float(np.clip(radius, *_RADII)))
    disc = _fitted(disc, picture, frame, window)
    white = _find_white(picture, frame, window, disc)
    if white is None:
        return None
    x0, y0, x1, y1 = window.rect
    eye = picture[y0:y1, x0:x1].astype(np.float32)
    x, y, u = window.x, window.y, window.u
    top, bottom = window.edges.at(u)
    share = ((y - top) / np.maximum(bottom - top, 1e-3) + _RIM) / (1 + 2 * _RIM)
    fill = sample(white, floats(np.dstack([(u + 1) / 2 * (_ACROSS - 1), share * (_DOWN - 1)])))
    away, under, above = disc.away(x, y), y - top, bottom - y
    light = eye @ LUMA
    clear = smoothstep((under - _LASHES) / np.float32(0.012)) * (np.abs(u) < 0.97)
    clear *= smoothstep((above - _EDGE) / np.float32(0.012))
    inner = (away < 0.8) & (clear > 0.5)
    if not inner.any() or np.median(light[inner] / (fill @ LUMA)[inner].clip(1)) > _PALEST:
        return None
    rings = _rings(eye, away, clear)
    relative = light / (rings @ LUMA).clip(1)
    iris, beside = away < 0.95, (away > _LIMBUS) & (np.abs(u) < 0.8)
    shade = _by_depth(relative[iris], under[iris])
    pale = light[beside & (np.minimum(under - _LASHES, above) > 0)]
    lashes = _by_depth(light[beside] / max(np.median(pale) if len(pale) else 1, 1), under[beside])
    # Lashes are as dark beside the iris; what is dark on it alone is the lid's shadow.
    depth = int(shade[_DEPTHS <= _LASHES].argmin())
    start = float(_DEPTHS[depth]) if max(shade[depth], lashes[: depth + 2].min()) < 0.6 else 0.0
    shade = np.minimum.accumulate(shade[::-1])[::-1].clip(0.2, 1)
    shadow = floats(np.interp(under, _DEPTHS, shade))[..., None]
    # Below the lashes the iris is its own, but for the lower lid's wet rim, which is brighter.
    clear = smoothstep((under - start - np.float32(0.015)) / np.float32(0.02))
    clear *= smoothstep((above - _EDGE) / np.float32(0.012)) * (np.abs(u) < 0.97)
    low = smoothstep((np.float32(_WET) - above) / np.float32(0.02))
    clear *= 1 - low * smoothstep((relative - 1.2) / np.float32(0.3))
    colour = rings + (eye / np.maximum(shadow, 0.5) - rings) * clear[..., None]
    cover = 1 - smoothstep((away - 0.92) / np.float32(0.18))
    own = smoothstep((away - _LIMBUS) / np.float32(_SOFT))[..., None]
    layers = (fill + (eye - fill) * own, floats(np.dstack([colour, cover])), shadow)
    return Eyeball(frame, window, disc, layers, start)


def _fitted(disc: Disc, picture: Picture, frame: FaceFrame, window: EyeWindow) -> Disc:
    """The disc where the picture shows it: its sides are where rays from its middle turn white."""
    radii, angles = np.linspace(0.7, 1.3, 31), np.linspace(-1, 1, 25)
    sides = []
    for side in (-1, 1):
        ray = np.stack([side * np.cos(angles), np.sin(angles)], axis=-1) * disc.radius
        local = radii[:, None, None] * ray + [disc.x, disc.y]
        light = sample(picture, floats(frame.pixels(local + window.centre))) @ LUMA
        y = floats(local[..., 1])
        top, bottom = window.edges.at(window.edges.u(floats(local[..., 0])))
        seen = np.minimum(y - top - _LASHES, bottom - y - 2 * _EDGE).min(axis=0) > 0
        if seen.sum() < _LEAST_SEEN:
            return disc
        rise = np.gradient(np.median(light[:, seen], axis=1))
        sides.append(float(radii[rise.argmax()]) if rise.max() > 0 else 1.0)
    left, right = sides
    middle = disc.x + disc.radius * (right - left) / 2
    return Disc(middle, disc.y, disc.radius * (left + right) / 2)


def _by_depth(light: Floats, under: Floats) -> Floats:
    """The median light at _DEPTHS of pixels that lie `under` the upper lid's edge; 1 of none."""
    near = [light[np.abs(under - depth) < _DEPTHS[1]] for depth in _DEPTHS]
    return floats([np.median(ring) if len(ring) else 1.0 for ring in near])


def _find_white(picture: Picture, frame: FaceFrame, window: EyeWindow, disc: Disc) -> Floats | None:
    """The eye without its iris (_DOWN, _ACROSS, 3), from lid to lid; None where no white shows.

    What the iris hides takes its colour from what lies beside it at the same height.
    """
    u, share = np.meshgrid(np.linspace(-1, 1, _ACROSS), np.linspace(-_RIM, 1 + _RIM, _DOWN))
    top, bottom = window.edges.at(floats(u))
    x, y = window.edges.x(floats(u)), top + (bottom - top) * floats(share)
    pixels = frame.pixels(np.dstack([x, y]) + window.centre)
    colour = floats(sample(picture, floats(pixels)))
    away = disc.away(x, y)
    inside = np.minimum(y - top, bottom - y) > _EDGE
    known = floats((away > _LIMBUS) & (np.abs(u) < 0.9))
    pure = inside & (known > 0)
    if pure.sum() < _LEAST_WHITE * max(inside.sum(), 1) or not pure.any():
        return None
    return carried_on(colour, known, ((40.0, 3.0, 0.01), (16.0, 1.5, 0.1), (7.0, 1.0, 1.0)))


def _rings(eye: Floats, away: Floats, clear: Floats) -> Floats:
    """The iris's colour by distance from its middle, (h, w, 3), from `clear` pixels."""
    radii = np.linspace(0, 1.3, 27)
    width = radii[1]
    colours, known = [], []
    for ring in radii:
        near = (clear > 0.5) & (np.abs(away - ring) < width)
        if near.any():
            colours.append(np.median(eye[near], axis=0))
            known.append(ring)
    if not known:
        return eye
    table = np.array(colours)
    return floats(np.dstack([np.interp(away, known, channel) for channel in table.T]))
