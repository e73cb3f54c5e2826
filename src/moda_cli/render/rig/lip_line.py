"""The lips at rest: their inner edges as the mesh sees them, and how far they are parted."""

from dataclasses import dataclass

import numpy as np

from moda_cli.face.landmarks import CHIN, LOWER_LIP, UPPER_LIP, Points
from moda_cli.render.rig.arrays import Floats, floats, sample
from moda_cli.render.rig.frame import FaceFrame, Grid
from moda_cli.render.rig.points import LOWER_OUTER, UPPER_OUTER

CLOSED = 0.03  # IOD: what the mesh sees between closed lips
CLOSABLE = 0.20  # IOD: lips farther apart do not meet
_DENSE = 81  # samples of an edge between the corners
BEYOND = 20  # and on each side of them
_REACH = 0.3  # how far those go, as a share of the mouth's width
INSET = 0.015  # IOD that parted lips are taken to begin behind their edge, where teeth mix in


@dataclass(frozen=True, slots=True)
class LipLine:
    """The inner edges of the lips, from the left corner to the right.

    x, upper, lower: (n,) face coordinates of the surface, IOD; the edges are one where the lips are
    closed. edges: (2, n + 2 m, 2) the same points in pixels, carried on level beyond the corners.
    chin: y of the chin. thickness: (2,) of the lips at their middle, IOD. closes: share of their
    gap that they can close.
    """

    x: Floats
    upper: Floats
    lower: Floats
    edges: Points
    chin: float
    thickness: tuple[float, float]
    closes: float

    @property
    def middle(self) -> float:
        return float(self.x[0] + self.x[-1]) / 2

    @property
    def half_width(self) -> float:
        return max(float(self.x[-1] - self.x[0]) / 2, 1e-3)  # 0 where it lies outside the picture

    @property
    def level(self) -> float:
        """y of the corners."""
        return float(self.upper[0] + self.upper[-1]) / 2

    @property
    def gap(self) -> float:
        """How far the lips are parted, IOD."""
        return float((self.lower - self.upper).max())

    @property
    def smile(self) -> float:
        """How far the corners lie above the upper lip's middle, IOD."""
        return max(float(self.upper[len(self.upper) // 2]) - self.level, 0.0)

    def t(self, x: Floats) -> Floats:
        """Place along the mouth of face coordinates x: -1 and 1 are its corners."""
        return floats((x - self.middle) / self.half_width)

    def upper_at(self, x: Floats) -> Floats:
        """Height of the upper lip's edge at x of any shape; level beyond the corners."""
        return floats(np.interp(x, self.x, self.upper))

    def lower_at(self, x: Floats) -> Floats:
        return floats(np.interp(x, self.x, self.lower))


def find_lips(
    grid: Grid,
    surface: Floats,
    frame: FaceFrame,
    mesh: Points,
    parted: float | None = None,
    inset: float = INSET,
) -> LipLine:
    """The lips of a mesh (478, 3); surface: (rows, cols, 3), see `Head`.

    parted: 0..1, how far they count as parted; whole or not at all unless it is given. inset: IOD
    behind their edges that they are then taken to begin.
    """
    upper, lower = mesh[UPPER_LIP, :2], mesh[LOWER_LIP, :2]
    gaps = np.linalg.norm(lower - upper, axis=-1) / frame.iod
    if parted is None:
        parted = float(gaps.max() >= CLOSED)
    middle = (upper + lower) / 2
    edges = np.stack([_smooth(middle + (edge - middle) * parted) for edge in (upper, lower)])
    arch = 1 - np.linspace(-1, 1, _DENSE)[:, None] ** 8
    behind = frame.shown(np.array([0.0, max(inset, 1 / frame.iod), 0.0])) * arch * parted
    edges += np.stack([-behind, behind])
    at = sample(surface, grid.to_nodes(edges))
    x = np.maximum.accumulate(at[..., 0].mean(axis=0) + np.linspace(0, 1e-4, _DENSE))
    edges = np.concatenate(
        [
            _beyond(grid, surface, frame, edges, 0)[:, ::-1],
            edges,
            _beyond(grid, surface, frame, edges, -1),
        ],
        axis=1,
    )

    def thickness(outer: list[int], inner: list[int]) -> float:
        return float(np.linalg.norm(mesh[outer[5]] - mesh[inner[5]]) / frame.iod)

    return LipLine(
        floats(x),
        at[0, :, 1].copy(),
        at[1, :, 1].copy(),
        edges,
        float(frame.to_face(mesh[CHIN])[1]),
        (thickness(UPPER_OUTER, UPPER_LIP), thickness(LOWER_OUTER, LOWER_LIP)),
        min(1.0, CLOSABLE / max(float(gaps.max()), 1e-6)),
    )


def _beyond(grid: Grid, surface: Floats, frame: FaceFrame, edges: Points, end: int) -> Points:
    """(2, m, 2) pixels outward from a corner, at its height on the surface."""
    corner = edges[0, end]
    across = _REACH * (corner - edges[0, -1 - end])
    points = corner + across * np.linspace(0, 1, BEYOND + 1)[1:, None]
    height = sample(surface, grid.to_nodes(corner[None, None]))[0, 0, 1]
    for _ in range(2):
        off = height - sample(surface, grid.to_nodes(points[None]))[0, :, 1].astype(np.float64)
        points = points + off[:, None] * frame.axes[1, :2] * frame.iod
    return np.stack([points, points])


def _smooth(points: Points) -> Points:
    """(n, 2) points along the cubic (Catmull-Rom) curve through `points` (11, 2)."""
    place = np.linspace(0, len(points) - 1, _DENSE)
    first = np.clip(place.astype(int), 0, len(points) - 2)
    s = (place - first)[:, None]
    slopes = np.gradient(points, axis=0)
    a, b = points[first], points[first + 1]
    bend_a, bend_b = slopes[first] - (b - a), (b - a) - slopes[first + 1]
    return np.asarray(a + (b - a) * s + s * (1 - s) * (bend_a * (1 - s) + bend_b * s))
