"""The basis displacements of an expression, on the face's surface and along its own axes.

Every field takes the surface (h, w, 3) that a grid shows and gives a displacement of the same
shape, both in IOD. Those of one half of the face end smoothly within it; where the halves meet
beyond the corners of the mouth they agree.
"""

import numpy as np

from moda_cli.face.landmarks import Points
from moda_cli.render.rig.arrays import Floats, bump, floats, smoothstep
from moda_cli.render.rig.lip_line import LipLine
from moda_cli.render.rig.points import BROWS, CHEEKS, INNER_BROWS, UPPER_LIDS

_HINGE_Y, _HINGE_Z = 0.35, 1.35  # of the jaw's joints
# Parted lips come together by the jaw, and for the rest by their own skin.
_JAW_CLOSES, _UPPER_CLOSES = 0.35, 0.4
_LEAST_CHIN = 0.7  # IOD from the lips to there; a shorter chin would be stretched beside the mouth
_CHIN_WIDTH = 0.9  # IOD from the middle to where the jaw no longer moves the skin, at the chin
_ROUND = 0.88  # share of the mouth's width that opens when it is rounded
_OUTER_FOLLOWS = 0.3  # share of an inner edge's way that the outer edge of the lip goes


def upper_fields(surface: Floats, lips: LipLine, face: Points) -> dict[str, Floats]:
    """Fields above the opening. face: (478, 3) the mesh in face coordinates."""
    x, y = surface[..., 0], surface[..., 1]
    t, above = lips.t(x), lips.upper_at(x) - y
    fade = 1 - smoothstep((np.abs(above) - 0.03) / np.float32(0.33))
    brows = _brow(x, y, face, 0) + _brow(x, y, face, 1)
    inner = [_bump_at(x, y, face[points], 0.17, 0.13) for points in INNER_BROWS]
    lids = [_bump_at(x, y, face[points[3:6]], 0.17, 0.07) for points in UPPER_LIDS]
    skin = _UPPER_CLOSES * _skin_gap(lips, x) * _rolled(above, lips.thickness[0])
    return {
        **_shared_fields(x, y, lips, face),
        "upper_wide": _down(-fade * _arch(t, 2.0, 1.15)),
        "upper_round": _down(-fade * _arch(t / _ROUND, 2.4, 1.0)),
        "close": _down(skin),
        "pout": _down(-0.022 * _swell(above, lips.thickness[0]) * _arch(t / 0.85, 2.0, 1.2)),
        "brow_up": _down(-brows),
        "frown": _along((inner[0] - inner[1]) * 0.7, inner[0] + inner[1]),
        "wide_a": _down(-0.022 * lids[0]),
        "wide_b": _down(-0.022 * lids[1]),
    }


def lower_fields(surface: Floats, lips: LipLine, face: Points) -> dict[str, Floats]:
    """Fields below the opening."""
    x, y, z = (surface[..., axis] for axis in range(3))
    t, below = lips.t(x), y - lips.lower_at(x)
    swing = np.clip((y - _HINGE_Y) / np.maximum(_HINGE_Z - z, 0.5), 0, 1.2)

    def dropped(share: float, flat: float, power: float) -> Floats:
        """The jaw turned about its joints until its lip has gone down by 1."""
        depth = _drop(lips, x, y, share, flat, power)
        return _along(np.zeros_like(x), depth, depth * swing)

    wide = dropped(1.0, 2.6, 1.3)
    skin = (1 - _UPPER_CLOSES) * _skin_gap(lips, x) * _rolled(below, lips.thickness[1])
    return {
        **_shared_fields(x, y, lips, face),
        "lower_wide": wide,
        "lower_round": dropped(_ROUND, 3.0, 1.1),
        "close": _down(-skin) - np.float32(_JAW_CLOSES * lips.gap) * wide,
        "pout": _down(0.022 * _swell(below, lips.thickness[1]) * _arch(t / 0.85, 2.0, 1.2)),
    }


def _shared_fields(x: Floats, y: Floats, lips: LipLine, face: Points) -> dict[str, Floats]:
    t, below = lips.t(x), y - (lips.upper_at(x) + lips.lower_at(x)) / 2
    sideways = t * (1 - smoothstep((np.abs(t) - 0.75) / np.float32(1.9)))
    near = 1 - smoothstep((np.abs(below) - 0.04) / np.float32(0.75))
    ends = np.minimum(t * t, 1) * (1 - smoothstep((np.abs(t) - 0.85) / np.float32(1.1)))
    left, right = (_bump_at(x, y, face[points], 0.25, 0.22) for points in CHEEKS)
    return {
        "corner_x": _along(sideways * near, np.zeros_like(x)),
        "corner_y": _down(ends * near),
        "cheek": _along((left - right) * 0.35, left + right),
    }


def _along(dx: Floats, dy: Floats, dz: Floats | None = None) -> Floats:
    return floats(np.stack([dx, dy, np.zeros_like(dx) if dz is None else dz], axis=-1))


def _down(dy: Floats) -> Floats:
    return _along(np.zeros_like(dy), dy)


def _bump_at(x: Floats, y: Floats, points: Points, sx: float, sy: float) -> Floats:
    """A bump about the middle of `points` (n, 3)."""
    centre = points.mean(axis=0)
    return bump(x, y, (float(centre[0]), float(centre[1])), sx, sy)


def _brow(x: Floats, y: Floats, face: Points, side: int) -> Floats:
    """A bump over a brow that ends above the lid below it."""
    brow, lid = face[BROWS[side]], face[UPPER_LIDS[side]]
    centre = brow.mean(axis=0)
    room = float(lid[3:6, 1].mean() - centre[1])
    down = np.where(y > centre[1], np.float32(min(0.15, room / 2.6)), np.float32(0.15))
    return bump(x, y, (float(centre[0]), float(centre[1])), 0.30, down)


def _drop(lips: LipLine, x: Floats, y: Floats, share: float, flat: float, power: float) -> Floats:
    """How far the jaw takes the skin down where it takes the middle of its lip by 1.

    Between the corners at the lips, from cheek to cheek at the chin, and softly into the neck.
    """
    edge = lips.lower_at(x)
    widen = np.clip((y - edge) / np.maximum(lips.chin - edge, _LEAST_CHIN), 0, 1)
    neck = 1 - smoothstep((y - lips.chin) / np.float32(0.9))
    half = lips.half_width * share * (1 - widen) + np.float32(_CHIN_WIDTH) * widen
    centre = lips.middle * (1 - widen)
    return np.asarray(_arch((x - centre) / half, flat, power) * neck)


def _skin_gap(lips: LipLine, x: Floats) -> Floats:
    """What is left of the lips' own gap at x when the jaw has done its share."""
    jaw = _arch(lips.t(x), 2.6, 1.3)
    gap = lips.lower_at(x) - lips.upper_at(x)
    return floats(gap - _JAW_CLOSES * lips.gap * jaw)


def _rolled(d: Floats, thickness: float) -> Floats:
    """1 at a lip's inner edge and inside, _OUTER_FOLLOWS at its outer edge, 0 away from it."""
    thickness = max(thickness, 0.04)
    lip = 1 - smoothstep(d / np.float32(thickness))
    skin = 1 - smoothstep((d - np.float32(thickness)) / np.float32(0.3))
    return floats((1 - _OUTER_FOLLOWS) * lip + _OUTER_FOLLOWS * skin)


def _arch(t: Floats, flat: float, power: float) -> Floats:
    """1 in the middle, 0 with zero slope at |t| = 1 and beyond."""
    return np.maximum(1 - np.abs(t) ** np.float32(flat), 0) ** np.float32(power)


def _swell(d: Floats, thickness: float) -> Floats:
    """0 at a lip's edge, 1 its thickness away, fading beyond."""
    u = np.maximum(d, 0) / np.float32(max(thickness, 0.05))
    return u * np.exp(0.5 - 0.5 * u * u)
