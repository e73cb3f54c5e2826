"""The coarse grid a rig computes on, and the turning of the head as a displacement of that grid."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.render.rig.arrays import Field, Floats, bump, floats, sample, smoothstep, soft_clamp

POSE_LIMITS_DEG = (8.0, 12.0, 8.0)  # pitch, yaw, roll; beyond them the warp would fold
_PIVOT = (0.0, 1.55, -0.25)  # of the neck, IOD, z towards the viewer
_CAMERA = 9.0  # distance of the viewer, IOD
_STEP = 0.036  # grid spacing, IOD
_LEAST_AREA = 0.4  # a warp may squeeze the picture to this share


def area_factor(field: Field) -> Floats:
    """Jacobian determinant (rows - 1, cols - 1) of the map node -> node + field."""
    dx, dy = np.diff(field, axis=1)[:-1], np.diff(field, axis=0)[:, :-1]
    return np.asarray((1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0])


class Grid:
    """A coarse grid over the face's part of a picture; node i lies at origin + step i + centre.

    rect: (x0, y0, x1, y1) of the picture covered. step: pixels per grid step. x, y: (rows, cols)
    face-frame coordinates of the nodes in IOD. border: (rows, cols), 0 at the picture's edge so
    that no displacement reaches it.
    """

    def __init__(self, shape: tuple[int, ...], face: FaceLandmarks) -> None:
        height, width = shape[:2]
        box = np.array([[-3.1, -2.7], [3.1, -2.7], [3.1, 3.1], [-3.1, 3.1]])
        corners = face.to_picture(box)
        x0, y0 = np.floor(np.clip(corners.min(axis=0), 0, (width - 2, height - 2))).astype(int)
        x1, y1 = np.ceil(np.clip(corners.max(axis=0), (x0 + 2, y0 + 2), (width, height))).astype(
            int
        )
        self.rect = (int(x0), int(y0), int(x1), int(y1))
        self.face = face
        self.step = max(1, round(_STEP * face.iod))
        self.scale = self.step / face.iod  # IOD per grid step
        cols, rows = -(-(x1 - x0) // self.step), -(-(y1 - y0) // self.step)
        self.shape = (int(rows), int(cols))
        self.nodes = np.dstack(np.meshgrid(np.arange(cols), np.arange(rows))).astype(np.float32)
        pixels = self.to_pixels(self.nodes)
        points = face.to_face(pixels).astype(np.float32)
        self.x, self.y = points[..., 0].copy(), points[..., 1].copy()
        far_edge = np.array([width - 1, height - 1])
        distance = np.minimum(pixels, far_edge - pixels).min(axis=-1).astype(np.float32)
        self.border = smoothstep((distance - self.step) / np.float32(0.7 * face.iod))
        axis = (face.pupils[1] - face.pupils[0]) / face.iod
        self._axes = np.array([[axis[0], axis[1]], [-axis[1], axis[0]]], np.float32)
        self._origin = points[0, 0].copy()

    def to_pixels(self, nodes: Floats) -> NDArray[np.float64]:
        """Picture pixels (..., 2) of grid coordinates (..., 2)."""
        return nodes * float(self.step) + (np.array(self.rect[:2]) + (self.step - 1) / 2)

    def to_nodes(self, points: NDArray[np.float64]) -> Floats:
        """Grid coordinates (..., 2) of face-frame points (..., 2)."""
        pixels = self.face.to_picture(points)
        origin = np.array(self.rect[:2]) + (self.step - 1) / 2
        return ((pixels - origin) / self.step).astype(np.float32)

    def from_face(self, vectors: Floats) -> Floats:
        """Displacements (..., 2) in grid steps of displacements in IOD of the face frame."""
        return (vectors @ self._axes) / np.float32(self.scale)

    def to_face(self, vectors: Floats) -> Floats:
        """Displacements (..., 2) in IOD of the face frame of displacements in grid steps."""
        return (vectors @ self._axes.T) * np.float32(self.scale)

    def face_axes(self, nodes: Field) -> Field:
        """Face-frame coordinates (..., 2) in IOD of grid coordinates (..., 2)."""
        return np.asarray(self.to_face(nodes) + self._origin)

    def enlarged(self, field: Field, rect: tuple[int, int, int, int]) -> Field:
        """`field` (rows, cols, 2) over the grid, at every pixel of `rect` (x0, y0, x1, y1)."""
        if self.step == 1:
            x0, y0, x1, y1 = (a - b for a, b in zip(rect, self.rect[:2] * 2, strict=True))
            return field[y0:y1, x0:x1]
        left, top = rect[0] - self.rect[0], rect[1] - self.rect[1]
        right, bottom = rect[2] - self.rect[0], rect[3] - self.rect[1]
        c0, r0 = max(left // self.step - 1, 0), max(top // self.step - 1, 0)
        c1 = min(-(-right // self.step) + 1, self.shape[1])
        r1 = min(-(-bottom // self.step) + 1, self.shape[0])
        size = ((c1 - c0) * self.step, (r1 - r0) * self.step)
        large = cv2.resize(field[r0:r1, c0:c1], size, interpolation=cv2.INTER_LINEAR)
        top, left, bottom, right = (
            edge - start * self.step
            for edge, start in ((top, r0), (left, c0), (bottom, r0), (right, c0))
        )
        return large[top:bottom, left:right]


class Head:
    """Depth and mask of the head over a grid; turns a pose into a backward displacement."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        x, y = grid.x, grid.y
        inside = 1 - (x / 1.28) ** 2 - ((y - 0.42) / 1.72) ** 2
        depth: Floats = 1.30 * np.sqrt(np.maximum(inside, 0.12))
        depth += 0.30 * bump(x, y, (0, 0.62), 0.16, 0.17) + 0.12 * bump(x, y, (0, 0.15), 0.12, 0.30)
        depth += 0.06 * bump(x, y, (0, 1.07), 0.32, 0.16) + 0.06 * bump(x, y, (0, 1.75), 0.25, 0.16)
        for side in (-1, 1):
            depth -= 0.08 * bump(x, y, (0.5 * side, 0), 0.24, 0.14)
        radius = floats(np.sqrt((x / 1.42) ** 2 + ((y - 0.3) / 1.8) ** 2))
        mask = (1 - smoothstep((radius - 1) / np.float32(0.85))) * grid.border
        blur = max(0.5, 0.06 / grid.scale)
        depth = floats(cv2.GaussianBlur(depth, (0, 0), blur)) - np.float32(_PIVOT[2])
        self._depth_and_mask = np.dstack([depth, mask])
        self._reach = 1.0
        while self._reach > 0.1 and self._tightest() < _LEAST_AREA:  # a face near the edge
            self._reach *= 0.85

    def _tightest(self) -> float:
        """The least area factor of the warp over extreme poses; 0 and below is a fold."""
        signs = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T
        poses = [sign * 3 * np.array(POSE_LIMITS_DEG) for sign in signs if sign.any()]
        fields = [self.displacement(pose) for pose in poses]
        return min(float(area_factor(field).min()) for field in fields if field is not None)

    def displacement(self, pose: NDArray[np.float64]) -> Field | None:
        """Where each node's picture comes from, relative to it; None for a pose of zero.

        pose: (3,) pitch, yaw, roll in degrees, LivePortrait's sense (R^T = Rz Ry Rx, x right,
        y down, z away from the viewer: a positive pitch looks down); drawn softly into the
        ellipsoid of POSE_LIMITS_DEG, one that is smaller where the picture's edge is near.
        """
        if not np.any(pose):
            return None
        size = float(np.linalg.norm(pose / np.array(POSE_LIMITS_DEG)))
        back = _rotation(*np.deg2rad(pose * (soft_clamp(size, self._reach) / size))).T
        x, y = self.grid.x - np.float32(_PIVOT[0]), self.grid.y - np.float32(_PIVOT[1])
        flat_x, flat_y, flat_z = (row[0] * x + row[1] * y for row in back)
        values, camera = self._depth_and_mask, np.float32(_CAMERA + _PIVOT[2])
        for _ in range(3):  # the source point sets the depth, the depth sets the source point
            z = values[..., 0]
            turned_z = (z - flat_z) / back[2, 2]
            perspective = (camera - turned_z) / (camera - z)
            moved = np.empty((*x.shape, 2), np.float32)
            moved[..., 0] = (flat_x + back[0, 2] * turned_z) * perspective - x
            moved[..., 1] = (flat_y + back[1, 2] * turned_z) * perspective - y
            field = self.grid.from_face(moved * values[..., 1:])
            values = sample(self._depth_and_mask, self.grid.nodes + field, outside=0)
        return field


def _rotation(pitch: float, yaw: float, roll: float) -> Floats:
    """R^T of angles in radians, for the depth used here, which grows towards the viewer."""
    (cp, cy, cr), (sp, sy, sr) = np.cos([pitch, yaw, roll]), np.sin([-pitch, -yaw, roll])
    rx = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return floats(rz @ ry @ rx)
