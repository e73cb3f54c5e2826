"""Closing the eyes: a curtain of skin with the person's own lash line, painted in the picture.

A warp would smear lashes and liner into streaks and drag brows and glasses along.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample, smoothstep

_HALF_WIDTH, _ABOVE, _BELOW = 0.36, 0.24, 0.26  # of the painted box round a pupil, IOD
_FLATTER = 0.75  # depth of the closed lash line as a share of the lower lid's
_MARGIN = 0.006  # below the lower lid, IOD, that a closed eye covers
_LASH = np.linspace(-0.075, 0.075, 61, dtype=np.float32)  # across the lash line, IOD


def find_eyelids(picture: NDArray[np.uint8], face: FaceLandmarks) -> tuple["Eyelid", "Eyelid"]:
    """The eyelids of `picture` (H, W, 3) RGB, left and right.

    The two eyes first vote for one mirrored shape: a fold or a shadow rarely fools both.
    """
    eyes = [
        _Evidence(_unrolled(picture, face, face.to_face(pupil)), inward)
        for pupil, inward in zip(face.pupils, (1.0, -1.0), strict=True)
    ]
    shared = _fit_almond(eyes, _PRIOR, _SPREAD)
    shapes = [_fit_almond([eye], shared, 0.6 * _SPREAD) * eye.mirror for eye in eyes]
    left, right = (
        Eyelid(picture, face, face.to_face(pupil), *_settled(shape, eye))
        for pupil, shape, eye in zip(face.pupils, shapes, eyes, strict=True)
    )
    return left, right


class Eyelid:
    """One eye of a picture and the skin that covers it when closed.

    centre: its pupil in the face frame. shape: of its lids, see `_almond`. lashes: how far they
    reach above the lid, IOD. rect: (x0, y0, x1, y1) pixels the lid may change.
    """

    def __init__(
        self,
        picture: NDArray[np.uint8],
        face: FaceLandmarks,
        centre: NDArray[np.float64],
        shape: Floats,
        lashes: float,
    ) -> None:
        height, width = picture.shape[:2]
        box = centre + np.array(
            [[sx * _HALF_WIDTH, sy] for sx in (-1, 1) for sy in (-_ABOVE, _BELOW)]
        )
        pixels = face.to_picture(box)
        x0, y0 = np.clip(np.floor(pixels.min(axis=0)), 1, (width - 1, height - 1)).astype(int)
        x1, y1 = np.clip(np.ceil(pixels.max(axis=0)), 1, (width - 1, height - 1)).astype(int)
        self.rect = (int(x0), int(y0), int(x1), int(y1))
        self._empty = x1 - x0 < 4 or y1 - y0 < 4
        if self._empty:
            return
        grid = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        local = (face.to_face(grid) - centre).astype(np.float32)
        self._source = picture[y0:y1, x0:x1].astype(np.float32)
        self._pixel = np.float32(1 / face.iod)

        unrolled = _unrolled(picture, face, centre)
        u = (local[..., 0] - shape[0]) / shape[1]
        self._u, self._v = u, local[..., 1]
        self._top, bottom = _almond(u, shape)
        self._floor = bottom + np.float32(_MARGIN)
        base = shape[2] + shape[3] * shape[1] * u
        self._closed = base + np.float32(_FLATTER) * (self._floor - base)
        self._roof = self._top - np.float32(lashes)
        skin = _skin_behind(unrolled, shape, lashes)
        cheek = _unrolled(picture, face, centre + np.array([0, 0.45]))
        grain = np.clip(cheek - cv2.GaussianBlur(cheek, (0, 0), 2.5), -11, 11)
        self._skin = _sampled(skin + grain, local[..., 0], local[..., 1])
        self._lash = _lash_line(unrolled, skin, shape)
        self._bow = np.sqrt(np.maximum(1 - u * u, 0))
        self._taper = 1 - smoothstep((np.abs(u) - 1.0) / np.float32(0.28))

    def paint(self, picture: NDArray[np.uint8], closure: float) -> None:
        """Write the eye, closed by `closure` in 0..1, into its rect of `picture`."""
        x0, y0, x1, y1 = self.rect
        if self._empty or closure <= 0:
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


def _unrolled(
    picture: NDArray[np.uint8], face: FaceLandmarks, centre: NDArray[np.float64]
) -> Floats:
    """The eye's box in face axes, 160 texels per IOD: (rows, cols, 3)."""
    x, y = _axes()
    points = np.dstack(np.meshgrid(x, y)) + centre
    at = face.to_picture(points).astype(np.float32)
    return floats(sample(picture, at))


def _axes() -> tuple[Floats, Floats]:
    step = 1 / 160
    return (
        np.arange(-_HALF_WIDTH, _HALF_WIDTH + step / 2, step, dtype=np.float32),
        np.arange(-_ABOVE, _BELOW + step / 2, step, dtype=np.float32),
    )


def _sampled(texture: Floats, x: Floats, y: Floats) -> Floats:
    at_x, at_y = (x + _HALF_WIDTH) * np.float32(160), (y + _ABOVE) * np.float32(160)
    return sample(texture, np.dstack([at_x, at_y]))


def _almond(u: Floats, shape: Floats) -> tuple[Floats, Floats]:
    """Upper and lower lid line (y in IOD from the pupil) at u, -1 and 1 being the eye's corners.

    shape: centre x, half width, centre y, slope, height above, depth below.
    """
    _, width, middle, slope, above, below = shape
    base = middle + slope * width * u
    bow = np.maximum(1 - u * u, 0)
    return base - above * bow ** np.float32(0.75), base + below * bow ** np.float32(0.7)


class _Evidence:
    """What tells an eye from skin in its unrolled box, both (rows, cols) and about 0..1."""

    def __init__(self, eye: Floats, inward: float) -> None:
        wide = _PRIOR * floats([inward, 1, 1, inward, 1.5, 1.5])
        strange = np.abs(eye - _skin_behind(eye, wide, 0.05)).max(axis=-1)
        strange = cv2.GaussianBlur(strange, (0, 0), 2)
        self.strange = np.clip(strange / max(float(np.percentile(strange, 88)), 12.0), 0, 1.3)
        grey = cv2.GaussianBlur(eye @ LUMA, (0, 0), 1.5)
        self.grey = (grey - grey.mean()) / max(float(grey.std()), 4.0)
        self.mirror = floats([inward, 1, 1, inward, 1, 1])  # makes a left eye's shape this eye's

    def score(self, shape: Floats) -> float:
        """How well `shape`, given for a left eye, holds the eye with bright skin just outside."""
        shape = shape * self.mirror
        u = np.linspace(-0.95, 0.95, 27, dtype=np.float32)
        weight = (1 - 0.4 * u * u) / (1 - 0.4 * u * u).mean()
        inner, outer = floats([0.008, 0.02, 0.035]), floats([0.015, 0.03, 0.045])
        top, bottom = _almond(u, shape)
        rows = np.concatenate(
            [
                top + inner[:, None],
                bottom - inner[:, None],
                top - outer[:, None],
                bottom + outer[:, None],
            ]
        )
        x = np.broadcast_to(shape[0] + shape[1] * u, rows.shape).copy()
        odd = _sampled(self.strange, x, rows).reshape(4, 3, -1).mean(axis=1)
        light = _sampled(self.grey, x, rows).reshape(4, 3, -1).mean(axis=1)
        upper = np.clip(light[2] - light[0], -1, 2) + 1.2 * (odd[0] - 0.6 * odd[2])
        lower = 0.5 * np.clip(light[3] - light[1], -1, 1.5) + 2.4 * (odd[1] - odd[3])
        return float((weight * (upper + lower)).mean())


def _fit_almond(eyes: list[_Evidence], start: Floats, spread: Floats) -> Floats:
    """The shape, as of a left eye, that suits `eyes` best near `start` (coordinate search)."""

    def score(shape: Floats) -> float:
        deviation = (shape - start) / spread
        fits = sum(eye.score(shape) for eye in eyes) / len(eyes)
        return fits - 0.10 * float(deviation @ deviation)

    best, best_score = start, score(start)
    for size in (1.0, 1.0, 0.5, 0.25):
        for index in (2, 4, 5, 0, 1, 3, 4, 5):
            for step in (-2, -1, 1, 2):
                trial = best.copy()
                trial[index] += step * size * spread[index]
                value = score(trial)
                if value > best_score and trial[4] > 0.03 and trial[5] > 0.03:
                    best, best_score = trial, value
    return best


def _settled(shape: Floats, eye: _Evidence) -> tuple[Floats, float]:
    """The almond with its upper edge on the dark lash line, and the reach of the lashes above."""
    u = np.concatenate([np.linspace(-0.85, -0.35, 12), np.linspace(0.35, 0.85, 12)]).astype(
        np.float32
    )
    x, down = shape[0] + shape[1] * u, np.arange(-0.01, 0.045, 0.005, dtype=np.float32)
    rows = _almond(u, shape)[0] + down[:, None]
    dark = _sampled(eye.grey, np.broadcast_to(x, rows.shape).copy(), rows).mean(axis=1)
    shift = float(np.clip(down[int(dark.argmin())] + 0.006, 0, 0.035))
    settled = shape * floats([1, 1.05, 1, 1, 1, 1]) + floats([0, 0, 0, 0, -shift, 0.016])
    settled[4] = max(settled[4], 0.02)
    up = np.arange(0.03, 0.10, 0.005, dtype=np.float32)
    rows = _almond(u, settled)[0] - up[:, None]
    odd = _sampled(eye.strange, np.broadcast_to(x, rows.shape).copy(), rows).mean(axis=1)
    calm = np.flatnonzero(odd < 0.22)
    return settled, float(up[calm[0]]) + 0.012 if len(calm) else 0.075


_PRIOR = floats([0.015, 0.23, 0.0, 0.06, 0.085, 0.08])
_SPREAD = floats([0.04, 0.025, 0.015, 0.08, 0.022, 0.016])


def _skin_behind(eye: Floats, shape: Floats, lashes: float) -> Floats:
    """`eye` with the eye and its lashes replaced by skin stretched smoothly across (a membrane)."""
    x, y = np.meshgrid(*_axes())
    u = (x - shape[0]) / shape[1]
    top, bottom = _almond(u / 1.2, floats([*shape[:3], shape[3] * 1.2, *shape[4:]]))
    hole = (y > top - lashes) & (y < bottom + 0.03) & (np.abs(u) < 1.2)
    size = tuple(n // 2 for n in eye.shape[1::-1])
    small = cv2.resize(eye, size, interpolation=cv2.INTER_AREA)
    open_ = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    # Lashes, liner and glasses that reach past the hole must not bleed in: the skin's colour near
    # the edge is the local bright median, not the pixel.
    calm = cv2.medianBlur(np.clip(small, 0, 255).astype(np.uint8), 5).astype(np.float32)
    calm = np.where(open_[..., None], 0, calm)
    near = (~open_).astype(np.float32)
    mean = (
        cv2.GaussianBlur(calm, (0, 0), 7)
        / np.maximum(cv2.GaussianBlur(near, (0, 0), 7), 1e-3)[..., None]
    )
    boundary = np.where((calm @ LUMA < 0.94 * (mean @ LUMA))[..., None], mean, calm)
    fill = np.where(open_[..., None], mean, boundary).astype(np.float32)
    for _ in range(300):
        fill = np.where(
            open_[..., None], cv2.blur(fill, (3, 3), borderType=cv2.BORDER_REPLICATE), boundary
        )
    filled = cv2.resize(fill, eye.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(filled, (0, 0), 2).astype(np.float32)


def _lash_line(eye: Floats, skin: Floats, shape: Floats) -> Floats:
    """How much darker than skin the upper lash line is: (across, along u -1.3..1.3), 1 is skin."""
    u = np.linspace(-1.3, 1.3, 105, dtype=np.float32)
    top, _ = _almond(u, shape)
    x = np.broadcast_to(shape[0] + shape[1] * u, (len(_LASH), len(u))).copy()
    y = top + _LASH[:, None]
    ratio = (_sampled(eye, x, y) @ LUMA) / np.maximum(_sampled(skin, x, y) @ LUMA, 8)
    ratio = np.clip(ratio, 0.12, 1.0)
    rows = _LASH[:, None]
    own = np.exp(-((np.minimum(rows + 0.01, 0) / 0.025) ** 2)) * (
        1 - smoothstep((rows - 0.004) / 0.012)
    )
    least = 1 - 0.5 * np.exp(-(((rows + 0.002) / 0.009) ** 2)) * np.maximum(1 - u**2 * 0.8, 0)
    return floats(np.minimum(1 + (ratio - 1) * own, least))
