"""The renderer without weights: moves one portrait by head pose and eight articulators."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.motion import EXPRESSION, POSE, decode
from moda_cli.render.rig.arrays import Field, Floats, Picture, floats, sample
from moda_cli.render.rig.controls import controls
from moda_cli.render.rig.expression import Aperture, Expression
from moda_cli.render.rig.frame import FaceFrame, Grid, Rect
from moda_cli.render.rig.head import Head, head_box
from moda_cli.render.rig.lids import Eyelid
from moda_cli.render.rig.lip_line import find_lips
from moda_cli.render.rig.mouth import Mouth
from moda_cli.render.rig.palette import find_palette

_MARGIN = 0.08  # round the mouth's opening, IOD


@dataclass(frozen=True, slots=True)
class Warp:
    """Where a frame's picture comes from, on the coarse grid.

    seen: (rows, cols, 2) the grid coordinates of the resting head that each node shows. upper,
    lower: (rows, cols, 2) displacement from there to its source above and below the mouth's
    opening, grid steps; none where only the head turns.
    """

    seen: Field
    upper: Field | None = None
    lower: Field | None = None
    aperture: Aperture | None = None


class Rig:
    """Animates one picture; every frame depends on its motion row alone.

    picture: (H, W, 3) uint8 RGB. face: its landmarks. neutral: (70) motion at which a frame is the
    picture itself; scale and translation are ignored.
    """

    def __init__(self, picture: Picture, face: FaceLandmarks, neutral: Tensor) -> None:
        self._picture = np.ascontiguousarray(picture)
        self._neutral = neutral.double()
        mesh = face.mesh
        self._frame = FaceFrame.of(mesh)
        self._grid = Grid(picture.shape, head_box(self._frame), self._frame.iod)
        self._head = Head(self._grid, self._frame, mesh)
        surface = self._head.surface
        self._lips = find_lips(self._grid, surface, self._frame, mesh)
        self._expression = Expression(self._grid, self._frame, surface, self._lips, mesh)
        palette = find_palette(self._picture, mesh)
        self._mouth = Mouth(self._picture, self._frame, self._lips, mesh, palette)
        self._eyelids = [Eyelid(self._picture, self._frame, mesh, side) for side in (0, 1)]
        x0, y0, x1, y1 = self._grid.rect
        self._pixels = np.dstack(np.meshgrid(np.arange(x1 - x0), np.arange(y1 - y0))).astype(
            np.float32
        )

    def render(self, motion: Tensor) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""
        offset = motion.double() - self._neutral
        articulators, pose = decode(offset[:, EXPRESSION]).numpy().round(6), offset[:, POSE].numpy()
        for row in range(len(motion)):
            yield self._draw(controls(articulators[row]), pose[row])

    def warp(self, control: dict[str, float], pose: NDArray[np.float64]) -> Warp | None:
        """The displacements of one frame, None where nothing moves. pose: (3) degrees."""
        moved = self._expression.forward(control)
        turned = self._head.displacement(pose)
        if turned is None and moved is None:
            return None
        seen = self._grid.nodes if turned is None else self._grid.nodes + turned
        if moved is None:
            return Warp(seen)
        fields, aperture = moved
        upper, lower = (
            half.spread(half.backward(field), seen)
            for half, field in zip(self._expression.halves, fields, strict=True)
        )
        return Warp(seen, upper, lower, aperture)

    def _draw(self, control: dict[str, float], pose: NDArray[np.float64]) -> Picture:
        out = self._picture.copy()
        for lid, closure in zip(self._eyelids, (control["lid_a"], control["lid_b"]), strict=True):
            lid.paint(out, closure)
        warp = self.warp(control, pose)
        if warp is None:
            return out
        grid, step = self._grid, self._grid.step
        x0, y0, x1, y1 = grid.rect
        source = (warp.seen - grid.nodes) * step
        if warp.aperture is None:
            at = grid.enlarged(source, grid.rect) + self._pixels
            out[y0:y1, x0:x1] = sample(out[y0:y1, x0:x1], at, cv2.INTER_CUBIC)
            return out
        assert warp.upper is not None
        assert warp.lower is not None
        plane = self._in_plane(warp.seen * step + floats(grid.origin))
        below = plane[..., 1] > warp.aperture.middle_at(plane[..., 0].copy())
        source += np.where(below[..., None], warp.lower, warp.upper) * step
        at = grid.enlarged(source, grid.rect) + self._pixels
        opening = self._opening(plane, warp.aperture)
        if opening is None:
            out[y0:y1, x0:x1] = sample(out[y0:y1, x0:x1], at, cv2.INTER_CUBIC)
            return out
        left, top, right, bottom = opening
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        seen = grid.enlarged((warp.seen - grid.nodes) * step, opening) + self._pixels[inside]
        upper, lower = (grid.enlarged(f * step, opening) for f in (warp.upper, warp.lower))
        seen_plane = self._in_plane(seen + floats([x0, y0]))
        middle = warp.aperture.middle_at(seen_plane[..., 0].copy())
        share = np.clip((seen_plane[..., 1] - middle) * np.float32(self._frame.iod / 1.5) + 0.5, 0, 1)
        at[inside] = seen + upper + (lower - upper) * share[..., None]
        warped = sample(out[y0:y1, x0:x1], at, cv2.INTER_CUBIC)
        narrow = min(max(control["round"], 0.0), 1.0)
        self._mouth.paint(
            warped[inside], seen + floats([x0, y0]), seen_plane, warp.aperture, narrow
        )
        out[y0:y1, x0:x1] = warped
        return out

    def _in_plane(self, pixels: Floats) -> Floats:
        to_plane = floats(self._frame.to_plane)
        return pixels @ to_plane[:, :2].T + to_plane[:, 2]

    def _opening(self, plane: Field, aperture: Aperture) -> Rect | None:
        """Pixels round the lips as the nodes show them, None where they meet as at rest."""
        x, y = plane[..., 0], plane[..., 1]
        inside = (x > aperture.x[0]) & (x < aperture.x[-1])
        inside &= y > min(aperture.upper.min(), aperture.lower.min()) - _MARGIN
        inside &= y < max(aperture.upper.max(), aperture.lower.max()) + _MARGIN
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            return None
        x0, y0, x1, y1 = self._grid.rect
        height, width = self._picture.shape[:2]
        step = self._grid.step
        box = (
            max(x0 + int(columns[0]) * step, 1),
            max(y0 + int(rows[0]) * step, 1),
            min(x0 + (int(columns[-1]) + 1) * step, x1, width - 1),
            min(y0 + (int(rows[-1]) + 1) * step, y1, height - 1),
        )
        return box if box[2] - box[0] > 2 and box[3] - box[1] > 2 else None
