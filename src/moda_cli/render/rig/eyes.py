"""The two eyes of a picture: where they look and how far they are closed."""

import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import Floats
from moda_cli.render.rig.eye_shape import EyeWindow, is_covered
from moda_cli.render.rig.eyeball import STILL, find_eyeball
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.lids import Eyelid

_REACH = np.array([0.115, 0.065])  # of an iris sideways and up or down, IOD


class Eyes:
    """Paints both eyes of a picture (H, W, 3); those closed or covered in it stay as they are."""

    def __init__(self, picture: Picture, frame: FaceFrame, mesh: Points, light: Floats) -> None:
        """light: (3, 3), see `find_light`."""
        self._eyes = [
            (
                name,
                window.rect,
                Eyelid(picture, frame, window, light),
                find_eyeball(picture, frame, mesh, window, side),
            )
            for side, name in enumerate(("lid_a", "lid_b"))
            if not (window := EyeWindow(picture.shape, frame, mesh, side)).shut
            and not is_covered(picture, mesh, side)
        ]
        # Both go as far as the one with less room: eyes that part company look drunk.
        rooms = [ball.room if ball else np.zeros(4) for *_, ball in self._eyes]
        self._room = np.min(rooms, axis=0) if rooms else np.zeros(4)

    def paint(self, picture: Picture, control: dict[str, float]) -> list[Rect]:
        """Draw the eyes that the controls move into `picture`; the rects that changed."""
        changed = []
        offset = self._offset(control["look_x"], control["look_y"])
        away = float(np.linalg.norm(offset)) > STILL
        for name, rect, lid, ball in self._eyes:
            closure = max(control[name], 0.0)
            if not closure and not away:
                continue
            x0, y0, x1, y1 = rect
            eye = picture[y0:y1, x0:x1].astype(np.float32)
            if ball and away and closure < 1:
                ball.over(eye, offset)
            if closure:
                eye = lid.over(eye, closure)
            picture[y0:y1, x0:x1] = np.rint(eye).clip(0, 255).astype(np.uint8)
            changed.append(rect)
        return changed

    def _offset(self, x: float, y: float) -> NDArray[np.float64]:
        """How far the irises go, IOD, of shares of their reach."""
        asked = np.array([x, y]) * _REACH
        return np.asarray(np.clip(asked, -self._room[::2], self._room[1::2]))
