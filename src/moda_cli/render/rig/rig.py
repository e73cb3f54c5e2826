"""The renderer without weights: moves one portrait by head pose and eight articulators."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, POSE, decode, decode_gaze
from moda_cli.render.rig.arrays import Field, Floats, floats, sample
from moda_cli.render.rig.controls import controls
from moda_cli.render.rig.expression import Aperture, Expression
from moda_cli.render.rig.eyes import Eyes
from moda_cli.render.rig.frame import FaceFrame, Grid, Rect, shows_face
from moda_cli.render.rig.head import Head, head_box
from moda_cli.render.rig.inner_lips import find_inner_lips
from moda_cli.render.rig.lip_line import find_lips
from moda_cli.render.rig.mouth import Mouth
from moda_cli.render.rig.palette import find_palette
from moda_cli.render.rig.shading import find_light
from moda_cli.render.rig.side_by_side import side_by_side
from moda_cli.render.rig.still import Still

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

    picture: (H, W, 3) uint8 RGB, or (H, W, 4) whose alpha moves with it. face: its landmarks.
    neutral: (70) motion at which a frame is the picture itself; scale and translation are ignored.
    grid: what its warps are computed on. moves: False where the mesh is no face's; every frame is
    then the picture.
    """

    def __init__(self, picture: Picture, face: FaceLandmarks, neutral: Tensor) -> None:
        self._picture = np.ascontiguousarray(picture[..., :3])
        self._alpha = picture[..., 3].copy() if picture.shape[2] == 4 else None
        self._neutral = neutral.double()
        mesh = face.mesh
        self.moves = shows_face(mesh, picture.shape)
        if not self.moves:
            return
        self._frame = FaceFrame.of(mesh)
        mesh = find_inner_lips(self._picture, self._frame, mesh)
        self._to_plane = self._frame.to_plane
        self.grid = Grid(picture.shape, head_box(self._frame), self._frame.iod)
        self._head = Head.of(self.grid, self._frame, mesh)
        surface = self._head.surface
        self.lips = find_lips(self.grid, surface, self._frame, mesh)
        self._expression = Expression(self.grid, self._frame, surface, self.lips, mesh)
        palette = find_palette(self._picture, mesh)
        self._mouth = Mouth(self._picture, self._frame, self.lips, mesh, palette)
        light = find_light(self._picture, self.grid, surface)
        self._eyes = Eyes(self._picture, self._frame, mesh, light)
        self._still = Still(self._picture, self.grid.rect)
        x0, y0, x1, y1 = self.grid.rect
        pixels = np.dstack(np.meshgrid(np.arange(x1 - x0), np.arange(y1 - y0)))
        self._pixels = floats(pixels * self._still.zoom)

    def render(self, motion: Tensor, gaze: Tensor | None = None) -> Iterator[Picture]:
        """One frame, uint8 of the picture's shape, per row of physical motion (T, 70), in order.

        gaze: (T, 2), see `Renderer`; it is added to what the motion itself says of it.
        """
        if not self.moves:
            yield from (self._cut_out(self._picture.copy(), None) for _ in motion)
            return
        offset = motion.double() - self._neutral
        asked = torch.zeros(len(motion), 2).double() if gaze is None else gaze.double()
        asked[:, 0] += decode_gaze(offset[:, EXPRESSION])
        looks, pose = asked.numpy().round(6), offset[:, POSE].numpy()
        articulators = decode(offset[:, EXPRESSION]).numpy().round(6)
        rows = ((controls(articulators[row], looks[row]), pose[row]) for row in range(len(motion)))
        yield from side_by_side(partial(self._draw, *row) for row in rows)

    def warp(self, control: dict[str, float], pose: NDArray[np.float64]) -> Warp | None:
        """The displacements of one frame, None where nothing moves. pose: (3) degrees."""
        moved = self._moved(control)
        turned = self._head.displacement(pose)
        if turned is None and moved is None:
            return None
        seen = self.grid.nodes if turned is None else self.grid.nodes + turned
        if moved is None:
            still = np.zeros_like(seen)
            return Warp(seen, still, still, None)
        field, aperture = moved
        halves = self._expression.halves
        upper, lower = halves.spread(halves.backward(field), seen)
        return Warp(seen, upper, lower, aperture)

    def _moved(self, control: dict[str, float]) -> tuple[Field, Aperture] | None:
        return self._expression.forward(control)

    def _eyes_painted(self, picture: Picture, control: dict[str, float]) -> list[Rect]:
        return self._eyes.paint(picture, control)

    def _draw(self, control: dict[str, float], pose: NDArray[np.float64]) -> Picture:
        out = self._picture.copy()
        painted = self._eyes_painted(out, control)
        warp = self.warp(control, pose)
        if warp is None:
            return self._cut_out(out, None)
        still, source = self._still, self._still.source(out, painted)
        grid, x0, y0, x1, y1 = self.grid, *self.grid.rect
        scale = np.float32(grid.step * still.zoom)
        turned = (warp.seen - grid.nodes) * scale
        if warp.aperture is None:
            at = grid.enlarged(turned, grid.rect) + self._pixels
            out[y0:y1, x0:x1] = still.sample(source, at)
            return self._cut_out(out, at)
        aperture, plane = warp.aperture, self.in_plane(warp)
        near = self._near(plane, aperture)
        below = plane[..., 1] > aperture.upper.min()
        below[near] = plane[near][..., 1] > aperture.middle_at(plane[near][..., 0])
        at = grid.enlarged(
            turned + np.where(below[..., None], warp.lower, warp.upper) * scale, grid.rect
        )
        at += self._pixels  # in place: 2 MB of a 512 px picture need not be found again
        opening = self._opening(near)
        if opening is None:
            out[y0:y1, x0:x1] = still.sample(source, at)
            return self._cut_out(out, at)
        left, top, right, bottom = opening
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        seen = grid.enlarged(turned, opening) + self._pixels[inside]
        upper, lower = (grid.enlarged(field * scale, opening) for field in (warp.upper, warp.lower))
        shown = seen / np.float32(still.zoom) + floats([x0, y0])
        plane = self._in_plane(shown)
        edges = aperture.at(plane[..., 0].copy())
        away = (plane[..., 1] - aperture.middle_of(edges)) * np.float32(self._frame.iod)
        share = np.clip(away / 1.5 + 0.5, 0, 1)[..., None]
        at[inside] = seen + upper + (lower - upper) * share
        warped = still.sample(source, at)
        narrow = min(max(control["round"], 0.0), 1.0)
        self._mouth.paint(warped[inside], shown, plane, edges, aperture, narrow)
        out[y0:y1, x0:x1] = warped
        return self._cut_out(out, at)

    def _cut_out(self, frame: Picture, at: Floats | None) -> Picture:
        """A frame with the picture's alpha, if it has one, moved as the frame was.

        at: (h, w, 2) where `_still` has the pixels of its rectangle, None where nothing moves.
        """
        if self._alpha is None:
            return frame
        alpha = self._alpha.copy()
        if at is not None:
            x0, y0, x1, y1 = self.grid.rect
            alpha[y0:y1, x0:x1] = sample(alpha[y0:y1, x0:x1], at / np.float32(self._still.zoom))
        return np.dstack((frame, alpha))

    def in_plane(self, warp: Warp) -> Floats:
        """Coordinates (rows, cols, 2) in the eyes' plane, IOD, of the resting head at each node."""
        return self._in_plane(warp.seen * np.float32(self.grid.step) + floats(self.grid.origin))

    def _in_plane(self, pixels: Floats) -> Floats:
        return floats(cv2.transform(pixels, self._to_plane))

    def _near(self, plane: Field, aperture: Aperture) -> tuple[slice, slice]:
        """The rows and columns of nodes that show the lips and _MARGIN round them."""
        x, y = plane[..., 0], plane[..., 1]
        inside = (x > aperture.x[0]) & (x < aperture.x[-1])
        inside &= y > min(aperture.upper.min(), aperture.lower.min()) - _MARGIN
        inside &= y < max(aperture.upper.max(), aperture.lower.max()) + _MARGIN
        left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
        return slice(top, top + height), slice(left, left + width)

    def _opening(self, near: tuple[slice, slice]) -> Rect | None:
        """The pixels of these nodes that may change, None where there are hardly any."""
        x0, y0, x1, y1 = self.grid.rect
        height, width = self._picture.shape[:2]
        step, (rows, columns) = self.grid.step, near
        box = (
            max(x0 + columns.start * step, 1),
            max(y0 + rows.start * step, 1),
            min(x0 + columns.stop * step, x1, width - 1),
            min(y0 + rows.stop * step, y1, height - 1),
        )
        return box if box[2] - box[0] > 2 and box[3] - box[1] > 2 else None
