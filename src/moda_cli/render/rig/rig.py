"""The renderer without weights: warps one portrait by head pose and eight articulators."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.motion import EXPRESSION, POSE, decode
from moda_cli.render.rig.arrays import Field, sample
from moda_cli.render.rig.expression import Aperture, Expression, amplitudes, controls
from moda_cli.render.rig.head import Grid, Head
from moda_cli.render.rig.lids import find_eyelids
from moda_cli.render.rig.lip_line import find_seam
from moda_cli.render.rig.mouth import Mouth

_MARGIN = 0.08  # round the mouth's opening, IOD


@dataclass(frozen=True, slots=True)
class Warp:
    """Where a frame's picture comes from, on the coarse grid (rows, cols, 2).

    upper, lower: displacement in grid steps above and below the mouth's opening. at: the place in
    the resting head that each node shows, face frame, IOD.
    """

    upper: Field
    lower: Field
    at: Field
    aperture: Aperture


class Rig:
    """Animates one picture; every frame depends on its motion row alone.

    picture: (H, W, 3) uint8 RGB. face: its landmarks. neutral: (70) motion at which a frame is the
    picture itself; scale and translation are ignored.
    """

    def __init__(self, picture: NDArray[np.uint8], face: FaceLandmarks, neutral: Tensor) -> None:
        self._picture = np.ascontiguousarray(picture)
        self._neutral = neutral.double()
        self._grid = Grid(picture.shape, face)
        self._head = Head(self._grid)
        self._iod = np.float32(face.iod)
        seam = find_seam(self._picture, face)
        self._expression = Expression(self._grid, seam)
        self._mouth = Mouth(self._picture, face, seam)
        self._eyelids = find_eyelids(self._picture, face)
        x0, y0, x1, y1 = self._grid.rect
        columns, rows = np.arange(x1 - x0), np.arange(y1 - y0)
        self._pixels = np.dstack(np.meshgrid(columns, rows)).astype(np.float32)

    def render(self, motion: Tensor) -> Iterator[NDArray[np.uint8]]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""
        offset = motion.double() - self._neutral
        articulators, pose = decode(offset[:, EXPRESSION]).numpy().round(6), offset[:, POSE].numpy()
        for row in range(len(motion)):
            yield self._frame(controls(articulators[row]), pose[row])

    def warp(self, control: dict[str, float], pose: NDArray[np.float64]) -> Warp | None:
        """The displacements of one frame, None where nothing moves. pose: (3) degrees."""
        amplitude = amplitudes(control, self._expression.room)
        turned = self._head.displacement(pose)
        if turned is None and not any(amplitude.values()):
            return None
        halves = self._expression.halves
        forward = [half.forward(amplitude) for half in halves]
        seen = self._grid.nodes if turned is None else self._grid.nodes + turned
        moved = seen - self._grid.nodes
        upper, lower = (
            half.spread(half.backward(field), seen) + moved
            for half, field in zip(halves, forward, strict=True)
        )
        return Warp(upper, lower, self._grid.face_axes(seen), self._expression.aperture(forward))

    def _frame(self, control: dict[str, float], pose: NDArray[np.float64]) -> NDArray[np.uint8]:
        out = self._picture.copy()
        for lid, closure in zip(self._eyelids, (control["lid_a"], control["lid_b"]), strict=True):
            lid.paint(out, closure)
        warp = self.warp(control, pose)
        if warp is None:
            return out
        x0, y0, x1, y1 = self._grid.rect
        step, aperture = self._grid.step, warp.aperture
        below = warp.at[..., 1] > aperture.middle_at(warp.at[..., 0])
        coarse = np.where(below[..., None], warp.lower, warp.upper) * step
        source_at = self._grid.enlarged(coarse, self._grid.rect)
        source_at += self._pixels  # in place: 2 MB of a 512 px picture need not be found again
        opening = self._opening(warp.at, aperture)
        if opening is None:
            out[y0:y1, x0:x1] = sample(out[y0:y1, x0:x1], source_at, cv2.INTER_CUBIC)
            return out
        left, top, right, bottom = opening
        inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
        upper, lower, at = (
            self._grid.enlarged(field, opening)
            for field in (warp.upper * step, warp.lower * step, warp.at)
        )
        x, y = at[..., 0].copy(), at[..., 1].copy()
        share = np.clip((y - aperture.middle_at(x)) * self._iod / 1.5 + 0.5, 0, 1)[..., None]
        source_at[inside] = self._pixels[inside] + upper + (lower - upper) * share
        warped = sample(out[y0:y1, x0:x1], source_at, cv2.INTER_CUBIC)
        narrow = min(max(control["round"], 0.0), 1.0)
        self._mouth.paint(warped[inside], x, y, aperture, narrow)
        out[y0:y1, x0:x1] = warped
        return out

    def _opening(self, at: Field, aperture: Aperture) -> tuple[int, int, int, int] | None:
        """Pixels (x0, y0, x1, y1) round the parted lips as nodes `at` show them, if any."""
        parted = np.flatnonzero(np.abs(aperture.lower - aperture.upper) > 2e-4)
        if len(parted) == 0:
            return None
        x, y = at[..., 0], at[..., 1]
        inside = (x > aperture.x[parted[0]] - _MARGIN) & (x < aperture.x[parted[-1]] + _MARGIN)
        inside &= y > min(aperture.upper[parted].min(), aperture.lower[parted].min()) - _MARGIN
        inside &= y < max(aperture.upper[parted].max(), aperture.lower[parted].max()) + _MARGIN
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
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
