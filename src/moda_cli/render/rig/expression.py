"""The eight articulators as displacements of the face: one smooth field above the lips' opening,
one below it, equal at the corners of the mouth so that no cut shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from moda_cli.face.landmarks import Points
from moda_cli.render.rig.arrays import Field, Floats, floats, sample, soft_clamp
from moda_cli.render.rig.controls import LABIAL, UNITS, controls
from moda_cli.render.rig.fields import lower_fields, upper_fields
from moda_cli.render.rig.frame import FaceFrame, Grid, area_factor
from moda_cli.render.rig.lip_line import LipLine

_CORNERS_IN = 0.13  # IOD each at full rounding
_INVERSE_STEPS = 5
_LEAST_AREA = 0.36  # a warp may squeeze the picture to this share
FieldMaker = Callable[[Floats], dict[str, Floats]]

_GRIMACES = (  # in the order of ARTICULATORS
    (120, 20, -12, 2, 0, 0, 0, 0),
    (120, 20, 15, 2, 0, 0, 0, 0),
    (120, -30, 15, -1, 0, 0, 0, 0),
    (120, -30, -12, -1, 0, 0, 0, 0),
)


def amplitudes(control: dict[str, float], room: float, lips: LipLine) -> dict[str, float]:
    """How much of each basis field of `Expression` the controls ask for.

    room: 0..1, how much of the usual range the mouth has before its skin would fold. lips: at rest;
    an opening is added to their own, and m, b and p close both.
    """
    gap, press = max(control["jaw"], 0.0), max(-control["jaw"], 0.0)
    rounding, spread = control["round"], control["spread"]
    full = max(rounding, 0.0)
    narrow = min(full, 1.0)
    opened = min(gap / 0.04, 1.0)
    upper = 0.18 * gap + opened * (0.12 * max(spread, 0.0) + 0.02 * narrow)
    lower = soft_clamp(0.895 * gap, (0.30 - 0.15 * narrow) * room)
    corner = spread - _CORNERS_IN * rounding - 0.10 * gap
    return {
        "corner_x": soft_clamp(corner, (0.14 if corner < 0 else 0.095) * room),
        "corner_y": 0.26 * gap * (1 - narrow) - control["smile"],
        "cheek": -0.45 * control["smile"],
        "upper_wide": upper * (1 - narrow) - 0.35 * press,
        "upper_round": upper * narrow,
        "lower_wide": lower * (1 - narrow) - 0.35 * press,
        "lower_round": lower * narrow,
        "close": min(press / (LABIAL * -UNITS["jaw"]), 1.0) * lips.closes,
        "pout": full,
        "brow_up": control["brow_up"],
        "frown": -control["brow_frown"],
        "wide_a": max(-control["lid_a"], 0.0),
        "wide_b": max(-control["lid_b"], 0.0),
    }


@dataclass(frozen=True, slots=True)
class Half:
    """Basis displacements above or below the mouth's opening, on a window of the grid.

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
        """Where each node's skin comes from, relative to it: the inverse, by secants down the face.

        Plain iteration does not settle where the skin is stretched to twice its height and more.
        """
        before, missed_before = np.zeros_like(forward), forward
        inverse = -forward
        for _ in range(_INVERSE_STEPS):
            missed = inverse + sample(forward, self.nodes + inverse, outside=0)
            step = (inverse - before)[..., 1]
            moving = np.abs(step) > 1e-2
            slope = (missed - missed_before)[..., 1] / np.where(moving, step, 1)
            slope = np.where(moving, np.clip(slope, 0.7, 4), 1)
            before, missed_before = inverse, missed
            inverse = inverse - missed / np.stack([np.ones_like(slope), slope], axis=-1)
        return inverse

    def spread(self, backward: Field, seen: Field) -> Field:
        """`backward` at the grid coordinates `seen`, 0 outside the window."""
        return sample(backward, seen - floats(self.corner), outside=0)


@dataclass(frozen=True, slots=True)
class Aperture:
    """The moved edges of the lips: y of the upper and the lower one at even steps of x, all (n,).

    Coordinates of the eyes' plane, IOD. drop: (2,) pixels that the lower jaw has moved.
    closed: 0..1 how far parted lips have been brought together.
    """

    x: Floats
    upper: Floats
    lower: Floats
    drop: Floats
    closed: float

    def at(self, x: Floats) -> Floats:
        """The two edges (h, w, 2) at x (h, w), linear between the samples."""
        position = (x - self.x[0]) / np.float32(self.x[1] - self.x[0])
        edges = np.stack([self.upper, self.lower], axis=-1)[None]
        return sample(edges, np.dstack([position, np.zeros_like(position)]))

    def middle_at(self, x: Floats) -> Floats:
        """Where the picture changes from the upper to the lower half, at x (h, w)."""
        return self.middle_of(self.at(x))

    @staticmethod
    def middle_of(edges: Floats) -> Floats:
        """The same of two edges (h, w, 2): the lower lip's, half way back where they overlap."""
        upper, lower = cv2.split(edges)
        return floats(lower + np.minimum(upper - lower, 0) / 2)


class Expression:
    """Expression fields over a grid for one face."""

    def __init__(
        self, grid: Grid, frame: FaceFrame, surface: Floats, lips: LipLine, mesh: Points
    ) -> None:
        self.grid, self.frame, self.lips = grid, frame, lips
        self._iod = frame.iod
        face = frame.to_face(mesh)
        level = lips.level
        self.halves = (
            self._half(
                surface, (-1.5, -1.1, 1.5, level + 0.75), lambda at: upper_fields(at, lips, face)
            ),
            self._half(
                surface,
                (-1.5, level - 0.45, 1.5, lips.chin + 0.95),
                lambda at: lower_fields(at, lips, face),
            ),
        )
        self._edges = lips.edges
        ends = frame.plane(lips.edges[0, [0, -1]])[:, 0]
        self._x = np.linspace(ends[0], ends[1], 121).astype(np.float32)
        self.plane = floats(frame.plane(grid.pixels))
        self.room = 1.0
        while self.room > 0.3 and self._tightest() < _LEAST_AREA:  # a small or slanting mouth
            self.room *= 0.85

    def forward(self, control: dict[str, float]) -> tuple[list[Field], Aperture] | None:
        """Displacements of the two halves at rest and the lips' edges then; None at rest."""
        amplitude = amplitudes(control, self.room, self.lips)
        if not any(amplitude.values()):
            return None
        fields = [half.forward(amplitude) for half in self.halves]
        return fields, self._aperture(fields, amplitude["close"])

    def _aperture(self, forward: Sequence[Field], closed: float) -> Aperture:
        moved = []
        for half, field, edge in zip(self.halves, forward, self._edges, strict=True):
            at = self.grid.to_nodes(edge) - floats(half.corner)
            shift = sample(field, at[None], outside=0)[0].astype(np.float64) * self.grid.step
            moved.append((edge + shift, shift))
        planes = [self.frame.plane(points) for points, _ in moved]
        upper, lower = (np.interp(self._x, plane[:, 0], plane[:, 1]) for plane in planes)
        middle = len(self._edges[0]) // 2
        return Aperture(self._x, floats(upper), floats(lower), floats(moved[1][1][middle]), closed)

    def _half(
        self, surface: Floats, box: tuple[float, float, float, float], fields: FieldMaker
    ) -> Half:
        rows, cols = self.grid.shape
        low, high = floats(box[:2]), floats(box[2:])
        inside = np.all((surface[..., :2] >= low) & (surface[..., :2] <= high), axis=-1)
        ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        top, bottom = max(ys.min() - 1, 0), min(ys.max() + 2, rows)
        left, right = max(xs.min() - 1, 0), min(xs.max() + 2, cols)
        window = (slice(top, bottom), slice(left, right))
        made = fields(surface[window])
        border = self.grid.border[window][..., None]
        shown = floats(self.frame.axes[:, :2] * self.frame.iod / self.grid.step)
        basis = [((field @ shown) * border).ravel() for field in made.values()]
        nodes = self.grid.nodes[window] - floats([left, top])
        return Half(tuple(made), np.stack(basis), nodes, (int(left), int(top)))

    def _tightest(self) -> float:
        """The least area factor of the warp over the widest grimaces; 0 and below is a fold."""
        least = 1.0
        for units in _GRIMACES:
            moved = self.forward(controls(np.array(units, float)))
            assert moved is not None
            fields, aperture = moved
            for half, field, sign in zip(self.halves, fields, (-1, 1), strict=True):
                left, top = half.corner
                rows, cols = half.nodes.shape[:2]
                at = self.plane[top : top + rows - 1, left : left + cols - 1]
                edges = aperture.at(at[..., 0].copy())
                beyond = sign * (at[..., 1] - edges[..., max(sign, 0)])
                factors = area_factor(half.backward(field))[beyond > self.grid.step / self._iod]
                least = min(least, float(factors.min(initial=1.0)))
        return least
