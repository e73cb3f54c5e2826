"""The eight articulators as displacements of the face: one smooth field above the lip seam, one
below it, equal at the corners of the mouth so that no cut shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.motion import ARTICULATORS
from moda_cli.render.rig.arrays import Field, Floats, bump, floats, sample, smoothstep, soft_clamp
from moda_cli.render.rig.head import Grid, area_factor
from moda_cli.render.rig.lip_line import Seam

# What one unit of each articulator does to the face; lengths in IOD, lids in closures.
UNITS = {
    "jaw": 0.0038,  # gap between the lips; negative presses them together
    "spread": 0.0042,  # each corner of the mouth outward
    "round": 1 / 12,  # share of full rounding
    "smile": 0.09,  # corners up
    "lid_a": 1 / 12.5,  # share of closure, eye on the picture's left; negative opens wider
    "lid_b": 1 / 12.5,
    "brow_up": 0.006,
    "brow_frown": 0.006,  # inner brows down and together, when negative
}
# What a value may reach after the conversion; drawn in softly so that nothing folds.
LIMITS = {
    "jaw": (-0.045, 0.30),
    "spread": (-0.10, 0.08),
    "round": (-0.6, 1.1),
    "smile": (-0.05, 0.11),
    "lid_a": (-0.8, 1.0),
    "lid_b": (-0.8, 1.0),
    "brow_up": (-0.08, 0.11),
    "brow_frown": (-0.12, 0.06),
}
_CORNERS_IN = 0.13  # IOD each at full rounding
_PRESSED = 0.03  # of `press` at a labial closure (jaw -8): covers the teeth a source shows
_INVERSE_STEPS = 12

_LEAST_AREA = 0.36  # a warp may squeeze the picture to this share
_GRIMACES = (  # in the order of ARTICULATORS
    (120, 20, -12, 2, 0, 0, 0, 0),
    (120, 20, 15, 2, 0, 0, 0, 0),
    (120, -30, 15, -1, 0, 0, 0, 0),
    (120, -30, -12, -1, 0, 0, 0, 0),
)

FieldMaker = Callable[[Floats, Floats, Seam], dict[str, tuple[Floats, Floats]]]


def controls(articulators: NDArray[np.float64]) -> dict[str, float]:
    """Named rig controls of the eight articulators (8) in LivePortrait units."""
    raw = dict(zip(ARTICULATORS, articulators.tolist(), strict=True))
    raw["jaw"] = _opening(raw["jaw"], raw["spread"], raw["round"])
    values = {}
    for name, value in raw.items():
        scaled = value * UNITS[name]
        low, high = LIMITS[name]
        if name.startswith("lid"):
            values[name] = min(max(scaled, low), high)
        else:
            values[name] = soft_clamp(scaled, high if scaled > 0 else -low)
    return values


def _opening(jaw: float, spread: float, rounding: float) -> float:
    """The jaw units that part the lips as far as the three articulators do together.

    In LivePortrait's motion spreading parts the lips as well (real clips: lip ratio against jaw
    alone r = .78 and .90, against jaw + spread .95 and .97). A jaw at -8 closes them regardless.
    """
    parted = 0.8 * spread + 0.4 * max(rounding, 0.0)
    if parted > 0:
        return jaw + parted * min(max((jaw + 8) / 8, 0.0), 1.0)
    return max(jaw + parted, 0.0) if jaw > 0 else jaw


def amplitudes(control: dict[str, float], room: float) -> dict[str, float]:
    """How much of each basis field of `Expression` the controls ask for.

    room: 0..1, how much of the usual range the mouth has before its skin would fold.
    """
    gap, press = max(control["jaw"], 0.0), max(-control["jaw"], 0.0)
    rounding, spread = control["round"], control["spread"]
    full = max(rounding, 0.0)
    narrow = min(full, 1.0)
    opened = min(gap / 0.04, 1.0)
    upper = 0.16 * gap + opened * (0.12 * max(spread, 0.0) + 0.02 * narrow)
    lower = soft_clamp(0.84 * gap, (0.26 - 0.13 * narrow) * room)
    corner = spread - _CORNERS_IN * rounding - 0.10 * gap
    return {
        "corner_x": soft_clamp(corner, (0.14 if corner < 0 else 0.095) * room),
        "corner_y": 0.26 * gap * (1 - narrow) - control["smile"],
        "cheek": -0.45 * control["smile"],
        "upper_wide": upper * (1 - narrow) - 0.35 * press,
        "upper_round": upper * narrow,
        "lower_wide": lower * (1 - narrow) - 0.35 * press,
        "lower_round": lower * narrow,
        "press": press,
        "pout": full,
        "brow_up": control["brow_up"],
        "frown": -control["brow_frown"],
        "wide_a": max(-control["lid_a"], 0.0),
        "wide_b": max(-control["lid_b"], 0.0),
    }


@dataclass(frozen=True, slots=True)
class Half:
    """Basis displacements above or below the seam, on a window of the grid.

    basis: (K, rows * cols * 2) in grid steps per unit of amplitude. nodes: (rows, cols, 2)
    coordinates within the window.
    """

    names: tuple[str, ...]
    basis: Floats
    nodes: Field
    corner: tuple[int, int]  # first column and row of the window

    def forward(self, amplitude: dict[str, float]) -> Field:
        """The displacement (rows, cols, 2) of every node of the face at rest."""
        weights = np.array([amplitude[name] for name in self.names], np.float32)
        return (weights @ self.basis).reshape(self.nodes.shape)

    def backward(self, forward: Field) -> Field:
        """Where each node's skin comes from, relative to it: the inverse, by fixed point."""
        inverse = -forward
        for _ in range(_INVERSE_STEPS):
            inverse = -sample(forward, self.nodes + inverse, outside=0)
        return inverse

    def spread(self, backward: Field, seen: Field) -> Field:
        """`backward` at the grid coordinates `seen`, 0 outside the window."""
        return sample(backward, seen - floats(self.corner), outside=0)


@dataclass(frozen=True, slots=True)
class Aperture:
    """The moved edges of the lips: y of the upper and the lower one at `x`, all (n,) in IOD."""

    x: Floats
    upper: Floats
    lower: Floats

    def at(self, x: Floats) -> Floats:
        """The two edges (h, w, 2) at face-frame x (h, w), linear between the samples."""
        position = (x - self.x[0]) / np.float32(self.x[1] - self.x[0])
        edges = np.stack([self.upper, self.lower], axis=-1)[None]
        return sample(edges, np.dstack([position, np.zeros_like(position)]))

    def middle_at(self, x: Floats) -> Floats:
        """Where the picture changes from the upper to the lower half, at x (h, w)."""
        upper, lower = cv2.split(self.at(x))
        return floats(lower + np.minimum(upper - lower, 0) / 2)


class Expression:
    """Expression fields over a grid for one mouth."""

    def __init__(self, grid: Grid, seam: Seam) -> None:
        self.grid, self.seam = grid, seam
        level = float(seam.curve.mean())
        self.halves = (
            self._half((-1.5, -1.0, 1.5, level + 0.75), _upper_fields),
            self._half((-1.5, level - 0.45, 1.5, seam.chin + 0.95), _lower_fields),
        )
        t = np.linspace(-1.3, 1.3, 131, dtype=np.float32)
        self._x = seam.x + seam.half_width * t
        self._points = np.stack([self._x, seam.y_at(self._x)], axis=-1).astype(np.float64)
        self.room = 1.0
        while self.room > 0.3 and self._tightest() < _LEAST_AREA:  # a small or slanting mouth
            self.room *= 0.85

    def _half(self, box: tuple[float, float, float, float], fields: FieldMaker) -> Half:
        rows, cols = self.grid.shape
        x0, y0, x1, y1 = box
        inside = (
            (self.grid.x >= x0) & (self.grid.x <= x1) & (self.grid.y >= y0) & (self.grid.y <= y1)
        )
        ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        top, bottom = max(ys.min() - 1, 0), min(ys.max() + 2, rows)
        left, right = max(xs.min() - 1, 0), min(xs.max() + 2, cols)
        window = (slice(top, bottom), slice(left, right))
        made = fields(self.grid.x[window], self.grid.y[window], self.seam)
        border = self.grid.border[window][..., None]
        basis = [self.grid.from_face(np.dstack(field)) * border for field in made.values()]
        nodes = self.grid.nodes[window] - floats([left, top])
        flat = np.stack([field.ravel() for field in basis]).astype(np.float32)
        return Half(tuple(made), flat, nodes, (int(left), int(top)))

    def _tightest(self) -> float:
        """The least area factor of the warp over the widest grimaces; 0 and below is a fold."""
        least = 1.0
        for units in _GRIMACES:
            amplitude = amplitudes(controls(np.array(units)), self.room)
            forward = [half.forward(amplitude) for half in self.halves]
            aperture = self.aperture(forward)
            for half, field, sign in zip(self.halves, forward, (-1, 1), strict=True):
                nodes = half.nodes[:-1, :-1]
                at = self.grid.face_axes(nodes + floats(half.corner))
                edges = aperture.at(at[..., 0].copy())
                seen = sign * (at[..., 1] - edges[..., max(sign, 0)]) > self.grid.scale
                least = min(least, float(area_factor(half.backward(field))[seen].min()))
        return least

    def aperture(self, forward: Sequence[Field]) -> Aperture:
        """The edges of the lips under forward displacements of the two halves."""
        edges = []
        for half, field in zip(self.halves, forward, strict=True):
            at = self.grid.to_nodes(self._points) - floats(half.corner)
            moved = self._points + self.grid.to_face(sample(field, at[None], outside=0)[0])
            edges.append(np.interp(self._x, moved[:, 0], moved[:, 1]).astype(np.float32))
        return Aperture(self._x, edges[0], edges[1])


def _shared_fields(x: Floats, y: Floats, seam: Seam) -> dict[str, tuple[Floats, Floats]]:
    """Fields of both halves; they must agree along the seam beyond the corners."""
    level, zero = float(seam.curve[[0, -1]].mean()), np.zeros_like(x)
    t, below = (x - seam.x) / seam.half_width, y - seam.y_at(x)
    sideways = t * (1 - smoothstep((np.abs(t) - 0.75) / np.float32(1.9)))
    near = 1 - smoothstep((np.abs(below) - 0.04) / np.float32(0.75))
    ends = np.minimum(t * t, 1) * (1 - smoothstep((np.abs(t) - 0.85) / np.float32(1.1)))
    left, right = (bump(x, y, (side * 0.62, level - 0.4), 0.25, 0.22) for side in (-1, 1))
    return {
        "corner_x": (sideways * near, zero),
        "corner_y": (zero, ends * near),
        "cheek": ((left - right) * 0.35, left + right),
    }


def _upper_fields(x: Floats, y: Floats, seam: Seam) -> dict[str, tuple[Floats, Floats]]:
    zero = np.zeros_like(x)
    t, above = (x - seam.x) / seam.half_width, seam.y_at(x) - y
    fade = 1 - smoothstep((np.abs(above) - 0.03) / np.float32(0.33))
    brows = [bump(x, y, (side * 0.56, -0.36), 0.30, 0.15) for side in (-1, 1)]
    inner = [bump(x, y, (side * 0.26, -0.32), 0.17, 0.15) for side in (-1, 1)]
    lids = [bump(x, y, (side * 0.5, -0.10), 0.17, 0.07) for side in (-1, 1)]
    return {
        **_shared_fields(x, y, seam),
        "upper_wide": (zero, -fade * _arch(t / _opened(seam), 2.0, 1.15)),
        "upper_round": (zero, -fade * _arch(t / 0.72, 2.2, 1.15)),
        "pout": (zero, -0.022 * _swell(above) * _arch(t / 0.85, 2.0, 1.2)),
        "brow_up": (zero, -brows[0] - brows[1]),
        "frown": ((inner[0] - inner[1]) * 0.7, inner[0] + inner[1]),
        "wide_a": (zero, -0.022 * lids[0]),
        "wide_b": (zero, -0.022 * lids[1]),
    }


def _lower_fields(x: Floats, y: Floats, seam: Seam) -> dict[str, tuple[Floats, Floats]]:
    zero = np.zeros_like(x)
    below = y - seam.y_at(x)
    depth = np.clip(below / (seam.chin - seam.y_at(x)), 0, 1)
    widen = smoothstep(depth)
    neck = 1 - smoothstep((y - seam.chin) / np.float32(0.9))
    centre = seam.x * (1 - widen)

    def drop(share: float, flat: float, power: float) -> Floats:
        half = seam.half_width * share * (1 - widen) + np.float32(1.02) * widen
        return np.asarray(_arch((x - centre) / half, flat, power) * neck)

    t = (x - seam.x) / seam.half_width
    return {
        **_shared_fields(x, y, seam),
        "lower_wide": (zero, drop(_opened(seam), 2.2, 1.3)),
        "lower_round": (zero, drop(0.72, 2.6, 1.25)),
        "press": (
            zero,
            -(0.4 + 1.0 * seam.teeth / _PRESSED)
            * _arch(t, 2.4, 1.2)
            * (1 - smoothstep(below / np.float32(0.42))),
        ),
        "pout": (zero, 0.022 * _swell(below) * _arch(t / 0.85, 2.0, 1.2)),
    }


def _opened(seam: Seam) -> float:
    """Share of the mouth's width that opens: below shown teeth, only between the steep corners."""
    return 0.66 if seam.teeth else 1.0


def _arch(t: Floats, flat: float, power: float) -> Floats:
    """1 in the middle, 0 with zero slope at |t| = 1 and beyond."""
    return np.maximum(1 - np.abs(t) ** flat, 0) ** np.float32(power)


def _swell(d: Floats) -> Floats:
    """0 at the seam, 1 a lip's thickness (.09 IOD) away from it, fading beyond."""
    u = np.maximum(d, 0) / np.float32(0.09)
    return u * np.exp(0.5 - 0.5 * u * u)
