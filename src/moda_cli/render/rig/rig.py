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
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, POSE, decode
from moda_cli.render.rig.arrays import Field, Floats, floats, sample
from moda_cli.render.rig.controls import controls
from moda_cli.render.rig.expression import Aperture, Expression
from moda_cli.render.rig.frame import FaceFrame, Grid, Rect
from moda_cli.render.rig.head import Head, head_box
from moda_cli.render.rig.lids import Eyelid
from moda_cli.render.rig.lip_line import find_lips
from moda_cli.render.rig.mouth import Mouth
from moda_cli.render.rig.palette import find_palette

_MOST_WORKERS = 4  # frames drawn at once; what waits to be taken costs memory
_MARGIN = 0.08  # round the mouth's opening, IOD


@dataclass(frozen=True, slots=True)
class Warp:
    """Where a frame's picture comes from, on the coarse grid.

    seen: (rows, cols, 2) the grid coordinates of the resting head that each node shows. upper,
    lower: (rows, cols, 2) displacement from there to its source above and below the mouth's
    opening, grid steps. aperture: None where only the head turns.
    """

    seen: Field
    upper: Field
    lower: Field
    aperture: Aperture | None


class Rig:
    """Animates one picture; every frame depends on its motion row alone.

    picture: (H, W, 3) uint8 RGB. face: its landmarks. neutral: (70) motion at which a frame is the
    picture itself; scale and translation are ignored. grid: what its warps are computed on.
    """

    def __init__(self, picture: Picture, face: FaceLandmarks, neutral: Tensor) -> None:
        self._picture = np.ascontiguousarray(picture)
        self._neutral = neutral.double()
        mesh = face.mesh
        self._frame = FaceFrame.of(mesh)
        self._to_plane = self._frame.to_plane
        self.grid = Grid(picture.shape, head_box(self._frame), self._frame.iod)
        self._head = Head(self.grid, self._frame, mesh)
        surface = self._head.surface
        self._lips = find_lips(self.grid, surface, self._frame, mesh)
        self._expression = Expression(self.grid, self._frame, surface, self._lips, mesh)
        palette = find_palette(self._picture, mesh)
        self._mouth = Mouth(self._picture, self._frame, self._lips, mesh, palette)
        self._eyelids = [Eyelid(self._picture, self._frame, mesh, side) for side in (0, 1)]
        x0, y0, x1, y1 = self.grid.rect
        self._pixels = np.dstack(np.meshgrid(np.arange(x1 - x0), np.arange(y1 - y0))).astype(
            np.float32
        )

    def render(self, motion: Tensor) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""
        offset = motion.double() - self._neutral
        articulators, pose = decode(offset[:, EXPRESSION]).numpy().round(6), offset[:, POSE].numpy()
        rows = ((controls(articulators[row]), pose[row]) for row in range(len(motion)))
        workers = min(cv2.getNumThreads(), len(motion), _MOST_WORKERS)
        if workers < 2:
            yield from (self._draw(*row) for row in rows)
            return
        with ThreadPoolExecutor(workers) as pool:  # OpenCV and NumPy let go of the interpreter
            pending: deque[Future[Picture]] = deque()
            try:
                for row in rows:
                    pending.append(pool.submit(self._draw, *row))
                    if len(pending) > workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for frame in pending:
                    frame.cancel()

    def warp(self, control: dict[str, float], pose: NDArray[np.float64]) -> Warp | None:
        """The displacements of one frame, None where nothing moves. pose: (3) degrees."""
        moved = self._expression.forward(control)
        turned = self._head.displacement(pose)
        if turned is None and moved is None:
            return None
        seen = self.grid.nodes if turned is None else self.grid.nodes + turned
        if moved is None:
            still = np.zeros_like(seen)
            return Warp(seen, still, still, None)
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
        grid, step = self.grid, np.float32(self.grid.step)
        x0, y0, x1, y1 = grid.rect
        turned = (warp.seen - grid.nodes) * step
        source, opening = turned, None
        if warp.aperture is not None:
            plane = self.in_plane(warp)
            below = plane[..., 1] > warp.aperture.middle_at(plane[..., 0].copy())
            source = turned + np.where(below[..., None], warp.lower, warp.upper) * step
            opening = self._opening(plane, warp.aperture)
        at = grid.enlarged(source, grid.rect)
        at += self._pixels  # in place: 2 MB of a 512 px picture need not be found again
        if opening is None or warp.aperture is None:
            out[y0:y1, x0:x1] = sample(out[y0:y1, x0:x1], at, cv2.INTER_CUBIC)
            return out
        left, top, right, bottom = opening
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        seen = grid.enlarged(turned, opening) + self._pixels[inside]
        upper, lower = (grid.enlarged(field, opening) for field in (warp.upper, warp.lower))
        shown = seen + floats([x0, y0])
        plane = self._in_plane(shown)
        edges = warp.aperture.at(plane[..., 0].copy())
        away = (plane[..., 1] - warp.aperture.middle_of(edges)) * np.float32(self._frame.iod)
        share = np.clip(away / 1.5 + 0.5, 0, 1)[..., None]
        at[inside] = seen + (upper + (lower - upper) * share) * step
        warped = sample(out[y0:y1, x0:x1], at, cv2.INTER_CUBIC)
        narrow = min(max(control["round"], 0.0), 1.0)
        self._mouth.paint(warped[inside], shown, plane, edges, warp.aperture, narrow)
        out[y0:y1, x0:x1] = warped
        return out

    def in_plane(self, warp: Warp) -> Floats:
        """Coordinates (rows, cols, 2) in the eyes' plane, IOD, of the resting head at each node."""
        return self._in_plane(warp.seen * np.float32(self.grid.step) + floats(self.grid.origin))

    def _in_plane(self, pixels: Floats) -> Floats:
        return floats(cv2.transform(pixels, self._to_plane))

    def _opening(self, plane: Field, aperture: Aperture) -> Rect | None:
        """Pixels round the lips as the nodes show them, None where they meet as at rest."""
        x, y = plane[..., 0], plane[..., 1]
        inside = (x > aperture.x[0]) & (x < aperture.x[-1])
        inside &= y > min(aperture.upper.min(), aperture.lower.min()) - _MARGIN
        inside &= y < max(aperture.upper.max(), aperture.lower.max()) + _MARGIN
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            return None
        x0, y0, x1, y1 = self.grid.rect
        height, width = self._picture.shape[:2]
        step = self.grid.step
        box = (
            max(x0 + int(columns[0]) * step, 1),
            max(y0 + int(rows[0]) * step, 1),
            min(x0 + (int(columns[-1]) + 1) * step, x1, width - 1),
            min(y0 + (int(rows[-1]) + 1) * step, y1, height - 1),
        )
        return box if box[2] - box[0] > 2 and box[3] - box[1] > 2 else None
