"""The eight articulators as displacements of the face: one smooth field above the lips' opening,
one below it, equal at the corners of the mouth so that no cut shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

from moda_cli.face.landmarks import Points
from moda_cli.render.rig.arrays import Field, Floats, floats, sample, sample_each, soft_clamp
from moda_cli.render.rig.controls import LABIAL, UNITS, controls
from moda_cli.render.rig.fields import lower_fields, upper_fields
from moda_cli.render.rig.frame import FaceFrame, Grid, area_factor
from moda_cli.render.rig.lip_line import BEYOND, LipLine

_CORNERS_IN = 0.13  # IOD each at full rounding
_INVERSE_STEPS, _SURE_STEPS = 4, 10
_SEEN = (0.7, 1.1)  # of the jaw's way down that a picture may show
_LEAST_AREA = 0.36  # a warp may squeeze the picture to this share
FieldMaker = Callable[[Floats], dict[str, Floats]]
FieldsOf = Callable[[Floats, Points], dict[str, Floats]]  # of a surface, of a mesh on it
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 on the face, IOD

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
        "corner_y": 0.26 * gap * (1 - narrow) + lips.smile * narrow - control["smile"],
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


class Halves:
    """Basis displacements above and below the mouth's opening, on a window of the grid each.

    The windows have one shape, so that both are sampled at once: fields are (2, rows, cols, 2), in
    grid steps, and 0 where a window ends. corners: (2, 2) the first column and row of each.
    """

    def __init__(self, corners: Floats, fields: Sequence[dict[str, Floats]]) -> None:
        """fields: by name (rows, cols, 2) per unit of amplitude, for each half."""
        self.corners = corners
        self.names = [tuple(made) for made in fields]
        self.shape = next(iter(fields[0].values())).shape
        for field in (field for made in fields for field in made.values()):
            field[[0, -1]] = field[:, [0, -1]] = 0
        self.basis = [np.stack([*made.values()]).reshape(len(made), -1) for made in fields]
        rows, cols = self.shape[:2]
        self._nodes = np.dstack(np.meshgrid(np.arange(cols), np.arange(rows))).astype(np.float32)

    def weights(self, amplitude: dict[str, float]) -> list[Floats]:
        """What the basis of each half is multiplied by."""
        return [floats([amplitude[name] for name in names]) for names in self.names]

    def forward(self, weights: Sequence[Floats]) -> Field:
        """The displacement of every node of the face at rest."""
        moved = [weight @ basis for weight, basis in zip(weights, self.basis, strict=True)]
        return floats(np.stack(moved)).reshape(2, *self.shape)

    def backward(self, forward: Field, steps: int = _INVERSE_STEPS) -> Field:
        """Where each node's skin comes from, relative to it: the inverse, by secants down the face.

        Plain iteration does not settle where the skin is stretched to twice its height and more.
        """
        before, missed_before = np.zeros_like(forward), forward
        inverse = -forward
        for _ in range(steps):
            missed = inverse + sample_each(forward, self._nodes + inverse)
            step = (inverse - before)[..., 1]
            moving = np.abs(step) > 1e-2
            slope = (missed - missed_before)[..., 1] / np.where(moving, step, 1)
            slope = np.where(moving, np.clip(slope, 0.7, 4), 1)
            before, missed_before = inverse, missed
            inverse = inverse - missed / np.stack([np.ones_like(slope), slope], axis=-1)
        return inverse

    def spread(self, backward: Field, seen: Field) -> Field:
        """`backward` at the grid coordinates `seen` (h, w, 2), for both halves (2, h, w, 2)."""
        return sample_each(backward, seen - self.corners[:, None, None])


@dataclass(frozen=True, slots=True)
class Aperture:
    """The moved edges of the lips: y of the upper and the lower one at even steps of x, all (n,).

    Coordinates of the eyes' plane, IOD. drop: (2,) pixels that the lower jaw has moved.
    closed: 0..1 how far parted lips have been brought together. corners: x of the mouth's.
    """

    x: Floats
    upper: Floats
    lower: Floats
    drop: Floats
    closed: float
    corners: tuple[float, float]

    def at(self, x: Floats) -> Floats:
        """The two edges (h, w, 2) at x (h, w), linear between the samples."""
        position = (x - self.x[0]) / np.float32(self.x[1] - self.x[0])
        edges = np.stack([self.upper, self.lower], axis=-1)[None]
        return sample(edges, np.dstack([position, np.zeros_like(position)]))

    def middle_at(self, x: Floats) -> Floats:
        """Where the picture changes from the upper to the lower half, at x of any shape."""
        middle = self.lower + np.minimum(self.upper - self.lower, 0) / 2
        return floats(np.interp(x, self.x, middle))

    @staticmethod
    def middle_of(edges: Floats) -> Floats:
        """The same of two edges (h, w, 2): the lower lip's, half way back where they overlap."""
        upper, lower = cv2.split(edges)
        return floats(lower + np.minimum(upper - lower, 0) / 2)


class Expression:
    """Expression fields over a grid for one face."""

    def __init__(
        self,
        grid: Grid,
        frame: FaceFrame,
        surface: Floats,
        lips: LipLine,
        mesh: Points,
        makers: tuple[FieldsOf, FieldsOf] | None = None,
        room: float | None = None,
    ) -> None:
        """makers: of the fields of each half. room: as in `amplitudes`, where it is known."""
        self.grid, self.frame, self.lips = grid, frame, lips
        face = frame.to_face(mesh)
        upper, lower = makers or (
            lambda at, face: upper_fields(at, lips, face),
            lambda at, face: lower_fields(at, lips, face),
        )
        self.halves = self._halves(
            surface,
            (
                (-1.5, -1.1, 1.5, lips.level + 0.75),
                (-1.5, lips.level - 0.45, 1.5, lips.chin + 0.95),
            ),
            (lambda at: upper(at, face), lambda at: lower(at, face)),
        )
        # What the basis does to the lips' edges, in pixels of the picture.
        self._edge_basis = [
            self._along(basis, edge, corner)
            for basis, edge, corner in zip(
                self.halves.basis, lips.edges, self.halves.corners, strict=True
            )
        ]
        self._reach_as_seen()
        ends = frame.plane(lips.edges[0, [0, -1]])[:, 0]
        self._x = np.linspace(ends[0], ends[1], 121).astype(np.float32)
        self.room = room or 1.0
        while (
            room is None and self.room > 0.3 and self._tightest() < _LEAST_AREA
        ):  # a small or slanting mouth
            self.room *= 0.85

    def forward(
        self, control: dict[str, float], undone: Mapping[str, float] = MappingProxyType({})
    ) -> tuple[Field, Aperture] | None:
        """Displacement of the halves at rest and the lips' edges then; None at rest.

        undone: amplitudes beside those of the controls.
        """
        amplitude = amplitudes(control, self.room, self.lips)
        for name, amount in undone.items():
            amplitude[name] += amount
        if not any(amplitude.values()):
            return None
        weights = self.halves.weights(amplitude)
        return self.halves.forward(weights), self._aperture(weights, amplitude["close"])

    def _aperture(self, weights: Sequence[Floats], closed: float) -> Aperture:
        shifts = [
            np.tensordot(weight, basis, 1)
            for weight, basis in zip(weights, self._edge_basis, strict=True)
        ]
        planes = self.frame.plane(self.lips.edges + np.stack(shifts))
        upper, lower = (np.interp(self._x, plane[:, 0], plane[:, 1]) for plane in planes)
        middle = len(shifts[1]) // 2
        left, right = planes[:, [BEYOND, -BEYOND - 1], 0].mean(axis=0).tolist()
        return Aperture(
            *(self._x, floats(upper), floats(lower), floats(shifts[1][middle])),
            closed,
            (left, right),
        )

    def _halves(
        self, surface: Floats, boxes: Sequence[Box], fields: Sequence[FieldMaker]
    ) -> Halves:
        """The halves on the nodes that show what is in `boxes` of the face, and one beyond."""
        size = np.array(self.grid.shape[::-1])
        seen = [
            np.all(
                (surface[..., :2] >= floats(box[:2])) & (surface[..., :2] <= floats(box[2:])), -1
            )
            for box in boxes
        ]
        spans = [cv2.boundingRect(inside.astype(np.uint8)) for inside in seen]
        shape = np.minimum(np.array([span[2:] for span in spans]).max(axis=0) + 2, size)
        corners = np.clip(np.array([span[:2] for span in spans]) - 1, 0, size - shape)
        shown = floats(self.frame.axes[:, :2] * self.frame.iod / self.grid.step)
        made = []
        for (left, top), maker in zip(corners, fields, strict=True):
            window = (slice(top, top + shape[1]), slice(left, left + shape[0]))
            border = self.grid.border[window][..., None]
            bent = maker(surface[window])
            made.append({name: (field @ shown) * border for name, field in bent.items()})
        return Halves(floats(corners), made)

    def _reach_as_seen(self) -> None:
        """Let the jaw part the lips as far as is asked where they are seen.

        It swings back as it goes down, which a head that is bent forward shows foreshortened.
        """
        basis, edge = self.halves.basis[1], self._edge_basis[1]
        for row in map(self.halves.names[1].index, ("lower_wide", "lower_round")):
            down = self.frame.to_plane[1, :2] @ edge[row, edge.shape[1] // 2]
            seen = np.float32(np.clip(down, *_SEEN))
            basis[row] /= seen
            edge[row] /= seen

    def _along(self, basis: Floats, edge: Points, corner: Floats) -> Floats:
        """`basis` (K, rows * cols * 2) at an edge (n, 2): (K, n, 2) pixels."""
        at = (self.grid.to_nodes(edge) - corner)[None]
        step = np.float32(self.grid.step)
        fields = basis.reshape(-1, *self.halves.shape)
        return floats(np.stack([sample(field, at, outside=0)[0] * step for field in fields]))

    def _tightest(self) -> float:
        """The least area factor of the warp over the widest grimaces; 0 and below is a fold."""
        least = 1.0
        rows, cols = self.halves.shape[:2]
        plane = floats(self.frame.plane(self.grid.pixels))
        for units in _GRIMACES:
            moved = self.forward(controls(np.array(units, float)))
            assert moved is not None
            field, aperture = moved
            backward = self.halves.backward(field, steps=_SURE_STEPS)
            for half, sign in enumerate((-1, 1)):
                left, top = self.halves.corners[half].astype(int)
                at = plane[top : top + rows - 1, left : left + cols - 1]
                edges = aperture.at(at[..., 0].copy())
                beyond = sign * (at[..., 1] - edges[..., half])
                factors = area_factor(backward[half])[beyond > self.grid.step / self.frame.iod]
                least = min(least, float(factors.min(initial=1.0)))
        return least
