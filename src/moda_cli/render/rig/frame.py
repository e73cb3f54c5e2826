"""The frame a face is measured in, and the coarse grid a rig computes on."""

from dataclasses import dataclass

import cv2
import numpy as np

from moda_cli.face.landmarks import (
    CHIN,
    LEFT_PUPIL,
    LOWER_LIP,
    RIGHT_PUPIL,
    UPPER_LIP,
    Points,
)
from moda_cli.render.rig.arrays import Field, Floats, floats, smoothstep
from moda_cli.render.rig.points import EYE_CORNERS, FOREHEAD

Rect = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels

_STEP = 0.036  # grid spacing, IOD
_LEAST_SEEN = 0.2  # of its front that a face may show, turned and bent by 78 degrees in all
_BORDER = 0.7  # IOD from the picture's edge in which displacements fade


@dataclass(frozen=True, slots=True)
class FaceFrame:
    """Axes fixed to a head: x to the picture's right, y down the face, z away from the viewer.

    origin: (3) midway between the irises, pixels. axes: (3, 3), a row each. iod: the irises'
    distance in space, in pixels, the unit of length; the picture shows it orthographically.
    """

    origin: Points
    axes: Points
    iod: float

    @classmethod
    def of(cls, mesh: Points) -> "FaceFrame":
        """The frame of a mesh (478, 3) in pixels."""
        x = mesh[EYE_CORNERS[1]] - mesh[EYE_CORNERS[0]]
        x /= np.linalg.norm(x)
        y = mesh[CHIN] - mesh[FOREHEAD]
        y -= (y @ x) * x
        y /= np.linalg.norm(y)
        left, right = mesh[[LEFT_PUPIL, RIGHT_PUPIL]]
        return cls(
            (left + right) / 2,
            np.stack([x, y, np.cross(x, y)]),
            float(np.linalg.norm(right - left)),
        )

    def to_face(self, points: Points) -> Points:
        """Face coordinates (..., 3) in IOD of points (..., 3) in pixels."""
        return np.asarray((points - self.origin) @ self.axes.T / self.iod)

    def shown(self, vectors: Points) -> Points:
        """Pixels (..., 2) that vectors (..., 3) in IOD span in the picture."""
        return np.asarray(vectors @ self.axes[:, :2] * self.iod)

    @property
    def to_plane(self) -> Points:
        """(2, 3): pixels to face coordinates x, y of what lies at the irises' depth."""
        linear = np.linalg.inv(self.axes[:2, :2].T * self.iod)
        return np.column_stack([linear, -linear @ self.origin[:2]])

    def plane(self, pixels: Points) -> Points:
        """Coordinates (..., 2) in the eyes' plane of pixels (..., 2)."""
        return np.asarray(pixels @ self.to_plane[:, :2].T + self.to_plane[:, 2])

    def pixels(self, plane: Points) -> Points:
        """Pixels (..., 2) of coordinates (..., 2) in the eyes' plane."""
        return np.asarray(plane @ self.axes[:2, :2] * self.iod + self.origin[:2])


def shows_face(mesh: Points, shape: tuple[int, ...]) -> bool:
    """Whether a mesh (478, 3) is a face's that a picture (H, W, ...) shows."""
    across, down = mesh[EYE_CORNERS[1]] - mesh[EYE_CORNERS[0]], mesh[CHIN] - mesh[FOREHEAD]
    width, height = np.linalg.norm(across), np.linalg.norm(down)
    if not np.isfinite(mesh).all() or np.linalg.norm(np.cross(across, down)) <= width * height / 2:
        return False
    frame = FaceFrame.of(mesh)
    seen = np.clip(mesh[:, :2], 0, np.array(shape[1::-1]) - 1)
    if np.ptp(seen, axis=0).min() < 4 or not 2 < frame.iod < width < 4 * frame.iod:
        return False
    if np.linalg.det(frame.axes[:2, :2]) < _LEAST_SEEN:
        return False
    lips = frame.plane((mesh[UPPER_LIP, :2] + mesh[LOWER_LIP, :2]) / 2)[:, 0]
    return bool(np.diff(lips).min() > -0.1 * (lips[-1] - lips[0]) and lips[-1] - lips[0] > 0.1)


class Grid:
    """A coarse grid over the part of a picture that a head can move.

    Node i lies at the middle of its `step` pixels. rect: the pixels covered. nodes: (rows, cols, 2)
    grid coordinates. border: (rows, cols), 0 at the picture's edge so that nothing moves there.
    """

    def __init__(self, shape: tuple[int, ...], box: Points, iod: float) -> None:
        """shape: the picture's (H, W, ...). box: (2, 2) corners of what may move, pixels."""
        size = np.array(shape[1::-1])
        low = np.clip(np.floor(box[0]), 0, size - 2).astype(int)
        high = np.clip(np.ceil(box[1]), low + 2, size).astype(int)
        self.rect: Rect = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        self.step = max(1, round(_STEP * iod))
        cols, rows = -(-(high - low) // self.step)
        self.shape = (int(rows), int(cols))
        self.nodes = np.dstack(np.meshgrid(np.arange(cols), np.arange(rows))).astype(np.float32)
        self.origin = low + (self.step - 1) / 2  # pixels of node 0
        self.pixels = self.nodes * float(self.step) + self.origin
        distance = np.minimum(self.pixels, size - 1 - self.pixels).min(axis=-1)
        self.border = smoothstep(floats((distance - self.step) / (_BORDER * iod)))

    def to_nodes(self, pixels: Points) -> Floats:
        """Grid coordinates (..., 2) of pixels (..., 2)."""
        return floats((pixels - self.origin) / self.step)

    def enlarged(self, field: Field, rect: Rect) -> Field:
        """`field` (rows, cols, 2) over the grid, at every pixel of `rect`."""
        x0, y0, x1, y1 = (a - b for a, b in zip(rect, self.rect[:2] * 2, strict=True))
        if self.step == 1:
            return field[y0:y1, x0:x1]
        step = self.step
        c0, r0 = max(x0 // step - 1, 0), max(y0 // step - 1, 0)
        c1, r1 = min(-(-x1 // step) + 1, self.shape[1]), min(-(-y1 // step) + 1, self.shape[0])
        size = ((c1 - c0) * step, (r1 - r0) * step)
        large = cv2.resize(field[r0:r1, c0:c1], size, interpolation=cv2.INTER_LINEAR)
        return large[y0 - r0 * step : y1 - r0 * step, x0 - c0 * step : x1 - c0 * step]


def area_factor(field: Field) -> Floats:
    """Jacobian determinant (rows - 1, cols - 1) of the map node -> node + field; below 0 folds."""
    dx, dy = np.diff(field, axis=1)[:-1], np.diff(field, axis=0)[:, :-1]
    return np.asarray((1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0])
