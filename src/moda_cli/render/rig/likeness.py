"""A filmed head as a rig needs it: one face for the whole film, and what it does in a frame.

All is measured in the axes of the head, found by what no expression moves: neither a jaw that drops
nor eyes that look aside shift them.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from moda_cli.face.landmarks import CHIN, LOWER_LIP, UPPER_LIP, Points
from moda_cli.face.mesh import RIGID, similarity
from moda_cli.render.rig.arrays import Floats, floats, sample, smoothstep
from moda_cli.render.rig.expression import Expression
from moda_cli.render.rig.fields import lower_fields, upper_fields
from moda_cli.render.rig.frame import FaceFrame, Grid
from moda_cli.render.rig.head import Head, depth_of
from moda_cli.render.rig.lip_line import LipLine, find_lips
from moda_cli.render.rig.points import LOWER_OUTER, UPPER_OUTER

UNIT = 100.0  # pixels per IOD of the frontal view that a head's depth is found in
SIDE = 6.0  # IOD of its sides
SETTLED = 3  # times that a node's place on the surface is found again, deeper by its own depth
CURVES = (UPPER_OUTER, UPPER_LIP, LOWER_LIP, LOWER_OUTER)  # of the lips, from above
PLACES = np.linspace(-1, 1, 41)  # along the mouth, its corners at the ends


@dataclass(frozen=True, slots=True)
class Lips:
    """Where the lips are, in the axes of the head, IOD.

    curves: (4, 41) y at PLACES along the mouth, of CURVES. corners: (2, 2) of the inner lips. chin:
    y.
    """

    curves: Floats
    corners: Points
    chin: float

    @classmethod
    def of(cls, face: Points) -> "Lips":
        """Those of a mesh (478, 3) in the axes of the head."""
        corners = face[[UPPER_LIP[0], UPPER_LIP[-1]], :2]
        middle, half = corners[:, 0].mean(), max(float(np.ptp(corners[:, 0])) / 2, 1e-3)
        curves = []
        for points in CURVES:
            place = np.maximum.accumulate((face[points, 0] - middle) / half)
            curves.append(np.interp(PLACES, place, face[points, 1]))
        return cls(floats(curves), corners, float(face[CHIN, 1]))

    @property
    def gap(self) -> float:
        """How far they are parted."""
        return float((self.curves[2] - self.curves[1]).max())

    @property
    def half_width(self) -> float:
        return float(np.ptp(self.corners[:, 0])) / 2

    @property
    def level(self) -> float:
        """y of the corners."""
        return float(self.corners[:, 1].mean())


@dataclass(frozen=True, slots=True)
class _Front:
    """A head from the front: depth and radius (rows, cols, 2), and what it can do."""

    grid: Grid
    known: Floats
    reach: float
    room: float


class Likeness:
    """What stays the same of a filmed head.

    face: (478, 3) with the lips together, in the axes of the head. lips: its own.
    """

    def __init__(self, meshes: list[Points]) -> None:
        """meshes: (478, 3) each, of frames in which the lips are as good as closed."""
        first = FaceFrame.of(meshes[0])
        self.face = first.to_face(meshes[0])
        frames = [self.frame(mesh) for mesh in meshes]
        self.face = np.mean([f.to_face(m) for f, m in zip(frames, meshes, strict=True)], axis=0)
        lips = (self.face[UPPER_LIP] + self.face[LOWER_LIP]) / 2
        self.face[UPPER_LIP], self.face[LOWER_LIP] = lips, lips
        self.lips = Lips.of(self.face)

    def frame(self, mesh: Points) -> FaceFrame:
        """The axes of the head in a picture that shows it with a mesh (478, 3)."""
        scale, rotation, shift = similarity(self.face[RIGID], mesh[RIGID])
        return FaceFrame(shift, rotation.T, scale)

    def posed(self, frame: FaceFrame) -> Points:
        """The face at rest (478, 3) in pixels, turned as a frame's head is."""
        return np.asarray(self.face @ frame.axes * frame.iod + frame.origin)

    @cached_property
    def _front(self) -> _Front:
        side = round(SIDE * UNIT)
        frame = FaceFrame(np.full(3, side / 2), np.eye(3), UNIT)
        grid = Grid((side, side), np.array([[0, 0], [side, side]]), UNIT)
        mesh = self.posed(frame)
        depth, radius = depth_of(grid, frame, mesh)
        head = Head.of(grid, frame, mesh)
        lips = find_lips(grid, head.surface, frame, mesh)
        room = Expression(grid, frame, head.surface, lips, mesh).room
        return _Front(grid, floats(np.dstack([depth, radius])), head.reach, room)

    @property
    def reach(self) -> float:
        """As in `Head`, where no edge is near."""
        return self._front.reach

    @property
    def room(self) -> float:
        """As in `amplitudes`, seen from the front."""
        return self._front.room

    def surface(self, grid: Grid, frame: FaceFrame) -> tuple[Floats, Floats]:
        """What each node of a picture's grid shows: (rows, cols, 3), and radius, as `Head` has it.

        The depth of the head is known from the front; where a slanting line of sight meets it is
        found by going there step by step.
        """
        front = self._front
        seen = floats(frame.plane(grid.pixels))
        lean = floats(frame.to_plane[:, :2] @ frame.axes[2, :2] * frame.iod)
        at = seen
        for _ in range(SETTLED):
            nodes = front.grid.to_nodes((at + SIDE / 2) * UNIT)
            depth, radius = cv2.split(sample(front.known, nodes))
            at = seen - depth[..., None] * lean
        return np.dstack([at, depth]), floats(radius)


@dataclass(frozen=True, slots=True)
class Calm:
    """What a mouth does slowly round a frame, which is no speech and stays, IOD.

    half_width, level: of its corners, as in `Lips`: a smile. chin: y where it rests.
    """

    half_width: float
    level: float
    chin: float


@dataclass(frozen=True, slots=True)
class Undoing:
    """Fields that bring the lips of a frame back to rest: its own speech taken from its mouth.

    jaw: how far its chin has dropped, IOD. curves: (4, 41) how far each of CURVES is from rest.
    """

    lips: LipLine
    jaw: float
    curves: Floats

    def upper(self, surface: Floats, face: Points) -> dict[str, Floats]:
        x, y = surface[..., 0], surface[..., 1]
        above = self.lips.upper_at(x) - y
        inner, outer = self._at(x, 1), self._at(x, 0)
        field = outer + (inner - outer) * _inside(above, self.lips.thickness[0])
        return {**upper_fields(surface, self.lips, face), "close": _down(field * _near(above))}

    def lower(self, surface: Floats, face: Points) -> dict[str, Floats]:
        x, y = surface[..., 0], surface[..., 1]
        fields = lower_fields(surface, self.lips, face)
        below = y - self.lips.lower_at(x)
        arch = np.maximum(1 - np.abs(self.lips.t(x)) ** 2.6, 0) ** 1.3  # of `lower_wide` at the lip
        jaw = np.float32(self.jaw) * arch
        inner, outer = self._at(x, 2) + jaw, self._at(x, 3) + jaw
        field = outer + (inner - outer) * _inside(below, self.lips.thickness[1])
        close = _down(field * _near(below)) - np.float32(self.jaw) * fields["lower_wide"]
        return {**fields, "close": close}

    def _at(self, x: Floats, curve: int) -> Floats:
        return floats(np.interp(self.lips.t(x), PLACES, self.curves[curve]))


def _down(dy: Floats) -> Floats:
    return floats(np.stack([np.zeros_like(dy), dy, np.zeros_like(dy)], axis=-1))


def _inside(away: Floats, thickness: float) -> Floats:
    """1 at a lip's inner edge and inside, 0 at its outer edge."""
    return 1 - smoothstep(away / np.float32(max(thickness, 0.04)))


def _near(away: Floats) -> Floats:
    """1 on the lips, 0 well away from them."""
    return 1 - smoothstep((away - np.float32(0.12)) / np.float32(0.30))


def undoing(own: Lips, rest: Lips, lips: LipLine, calm: Calm) -> tuple[Undoing, dict[str, float]]:
    """What brings a frame's lips to rest: the fields, and amplitudes of others."""
    corner_x, corner_y = calm.half_width - own.half_width, calm.level - own.level
    smile, jaw = calm.level - rest.level, max(0.0, own.chin - calm.chin)
    bow = floats(PLACES**2)
    curves = rest.curves + np.float32(smile) * bow - own.curves - np.float32(corner_y) * bow
    # corners that are not level stay so
    ends = curves[1:3, [0, -1]].mean(axis=0)
    curves = curves - floats(np.interp(PLACES, [-1, 1], ends))
    return (
        Undoing(lips, jaw, curves),
        {"close": 1.0, "corner_x": corner_x, "corner_y": corner_y},
    )
