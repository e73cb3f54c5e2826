"""The head in depth, from its mesh, and its turning as a displacement of the picture."""

from functools import cache
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.face.mesh import mean_mesh
from moda_cli.render.rig.arrays import Field, Floats, floats, sample, smoothstep, soft_clamp
from moda_cli.render.rig.frame import FaceFrame, Grid, area_factor

POSE_LIMITS_DEG = (8.0, 12.0, 8.0)  # pitch, yaw, roll; beyond them the warp would fold
_PIVOT = (0.0, 1.45, 0.75)  # of the neck, IOD
_CENTRE, _AXES = (0.0, 0.32), (1.30, 1.76, 1.40)  # of the ellipsoid behind the mesh, IOD
_MASK, _FADE = 1.10, 0.62  # the ellipsoid's outline that moves as one, and what follows softly
_EASED = 0.16  # IOD within the mesh's outline where its depth becomes the ellipsoid's
_FLATTEST = 0.12  # of the ellipsoid's height, so that its rim does not fall off
_STEPS = 2
_LEAST_AREA = 0.4  # a warp may squeeze the picture to this share


def head_box(frame: FaceFrame) -> Points:
    """Corners (2, 2) in pixels of what a turning head moves."""
    reach = np.sqrt(np.diag(_outline(frame))) * frame.iod * (_MASK + _FADE)
    middle = frame.origin[:2] + frame.shown(np.array([*_CENTRE, 0.0]))
    return np.stack([middle - reach, middle + reach])


class Head:
    """The surface a picture shows, and how it moves when the head turns.

    surface: (rows, cols, 3) face coordinates of what each node shows at rest, IOD. reach: share of
    POSE_LIMITS_DEG that it turns by.
    """

    def __init__(
        self,
        grid: Grid,
        frame: FaceFrame,
        surface: Floats,
        radius: Floats,
        reach: float | None = None,
    ) -> None:
        """radius: (rows, cols), see `depth_of`. reach: where it is known."""
        self.grid, self.surface = grid, surface
        mask = (1 - smoothstep((radius - _MASK) / np.float32(_FADE))) * grid.border
        arm = self.surface - floats(_PIVOT)
        shown = floats(frame.axes[:, :2] * frame.iod / grid.step)
        # One field for each entry of (rotation - identity).
        basis = [
            arm[..., column, None] * shown[row] * mask[..., None]
            for row in range(3)
            for column in range(3)
        ]
        self._basis = np.stack([field.ravel() for field in basis])
        self.reach = reach or 1.0
        while reach is None and self.reach > 0.1 and self._tightest() < _LEAST_AREA:
            self.reach *= 0.85  # a face near the edge

    @classmethod
    def of(cls, grid: Grid, frame: FaceFrame, mesh: Points) -> Self:
        """That of a mesh (478, 3) in pixels."""
        depth, radius = depth_of(grid, frame, mesh)
        points = np.dstack([grid.pixels, depth * frame.iod + frame.origin[2]])
        return cls(grid, frame, floats(frame.to_face(points)), radius)

    def displacement(self, pose: NDArray[np.float64]) -> Field | None:
        """Where each node's picture comes from, relative to it; None for a pose of zero.

        pose: (3,) pitch, yaw, roll in degrees, LivePortrait's sense (R^T = Rz Ry Rx: a positive
        pitch looks down); drawn softly into the ellipsoid of POSE_LIMITS_DEG, one that is smaller
        where the picture's edge is near.
        """
        if not np.any(pose):
            return None
        size = float(np.linalg.norm(pose / np.array(POSE_LIMITS_DEG)))
        turn = _rotation(*np.deg2rad(pose * (soft_clamp(size, self.reach) / size)))
        forward, backward = self._turned(turn), self._turned(turn.T)
        for _ in range(_STEPS):
            backward = -sample(forward, self.grid.nodes + backward)
        return np.asarray(backward)

    def _turned(self, turn: Points) -> Field:
        """How far each node of the head at rest goes when it turns by `turn` (3, 3)."""
        entries = floats(turn - np.eye(3)).ravel()
        return np.asarray((entries @ self._basis).reshape(*self.grid.shape, 2))

    def _tightest(self) -> float:
        """The least area factor of the warp over extreme poses; 0 and below is a fold."""
        signs = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T
        poses = [sign * 3 * np.array(POSE_LIMITS_DEG) for sign in signs if sign.any()]
        fields = [self.displacement(pose) for pose in poses]
        return min(float(area_factor(field).min()) for field in fields if field is not None)


def _outline(frame: FaceFrame) -> Points:
    """The ellipsoid's outline in the picture as a covariance (2, 2), IOD^2."""
    seen = frame.axes[:, :2]
    return np.asarray(seen.T @ np.diag(np.square(_AXES)) @ seen)


def depth_of(grid: Grid, frame: FaceFrame, mesh: Points) -> tuple[Floats, Floats]:
    """Depth behind the eyes in IOD and radius in the ellipsoid's outline, both (rows, cols).

    The mesh gives the depth of the face, eased near its outline into the ellipsoid: there its
    points change their order in the picture as the head turns, and hair and ears lie behind it.
    """
    whole = frame.axes.T @ np.diag(np.square(_AXES)) @ frame.axes
    seen, lean = whole[:2, :2], whole[2, :2]
    inverse = np.linalg.inv(seen)
    middle = frame.origin[:2] + frame.shown(np.array([*_CENTRE, 0.0]))
    height = np.sqrt(whole[2, 2] - lean @ inverse @ lean)

    def shell(pixels: Points) -> tuple[Points, Points]:
        away = (pixels - middle) / frame.iod
        radius = np.sqrt(np.einsum("...i,ij,...j", away, inverse, away))
        bow = np.sqrt(np.maximum(1 - radius**2, _FLATTEST))
        lean_to = (away / np.maximum(radius, 1)[..., None]) @ (inverse @ lean)
        return lean_to - height * bow, radius

    depth, radius = shell(grid.pixels)
    face_depth = (mesh[:, 2] - frame.origin[2]) / frame.iod
    depth += np.median(face_depth - shell(mesh[:, :2])[0])
    measured, known = _rasterised(grid, mesh, face_depth)
    blur = max(0.5, 0.05 * frame.iod / grid.step)
    inside = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 5)
    weight = smoothstep(inside * np.float32(grid.step / (_EASED * frame.iod)))
    mixed = floats(depth + (measured - depth) * weight)
    return floats(cv2.GaussianBlur(mixed, (0, 0), blur)), floats(radius)


def _rasterised(grid: Grid, mesh: Points, depth: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Depth of the mesh's nearest triangle at each node, and whether there is one."""
    nearest = np.full(grid.shape, np.inf)
    at = grid.to_nodes(mesh[:, :2]).astype(np.float64)
    for triangle in _triangles():
        ax, ay = at[triangle[0]]
        b, c = at[triangle[1]] - (ax, ay), at[triangle[2]] - (ax, ay)
        area = b[0] * c[1] - b[1] * c[0]
        low = np.maximum(np.ceil(at[triangle].min(axis=0)), 0).astype(int)
        high = np.minimum(np.floor(at[triangle].max(axis=0)), np.array(grid.shape[::-1]) - 1)
        if area <= 1e-9 or (high < low).any():  # it shows its back, or holds no node
            continue
        x, y = np.meshgrid(
            np.arange(low[0], int(high[0]) + 1) - ax, np.arange(low[1], int(high[1]) + 1) - ay
        )
        u, v = (x * c[1] - y * c[0]) / area, (y * b[0] - x * b[1]) / area
        near, *others = depth[triangle]
        z = near + u * (others[0] - near) + v * (others[1] - near)
        patch = nearest[low[1] : low[1] + z.shape[0], low[0] : low[0] + z.shape[1]]
        inside = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6)
        patch[inside] = np.minimum(patch, z)[inside]
    known = np.isfinite(nearest)
    return np.where(known, nearest, 0), known


@cache
def _triangles() -> list[list[int]]:
    """Triangles of point numbers between the mesh's 468 points of skin, clockwise as drawn."""
    points = floats(mean_mesh()[:468, :2])
    low, size = points.min(axis=0) - 1, np.ptp(points, axis=0) + 2
    plane = cv2.Subdiv2D()
    plane.initDelaunay(tuple(np.rint([0, 0, *size * 100]).astype(int).tolist()))
    placed = (points - low) * 100
    plane.insert(placed.tolist())
    corners = floats(plane.getTriangleList()).reshape(-1, 3, 1, 2)
    away = np.linalg.norm(corners - placed, axis=-1)  # (triangles, 3, 468)
    names = away.argmin(axis=-1)[(away.min(axis=-1) < 1e-2).all(axis=-1)]
    return [triangle.tolist() for triangle in names]


def _rotation(pitch: float, yaw: float, roll: float) -> Points:
    """R^T of angles in radians: x right, y down, z away from the viewer."""
    (cp, cy, cr), (sp, sy, sr) = np.cos([pitch, yaw, roll]), np.sin([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)
