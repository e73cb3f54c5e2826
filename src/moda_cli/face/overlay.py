"""A picture with its faces drawn in, to be looked at."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Colour, Picture

GREEN, RED = (0, 220, 60), (255, 40, 40)
SHIFT = 4  # binary digits of a pixel's fraction, as OpenCV draws


def draw_landmarks(
    picture: Picture, faces: Iterable[FaceLandmarks], refused: FaceLandmarks | None = None
) -> Picture:
    """A copy of a picture (H, W, 3) RGB with the faces drawn in green and the refused in red."""
    drawn = picture.copy()
    for face in faces:
        _draw(drawn, face, GREEN)
    if refused:
        _draw(drawn, refused, RED)
    return drawn


def _draw(picture: Picture, face: FaceLandmarks, colour: Colour) -> None:
    """The mesh, the pupils' rings and the line between the lips, and how surely it is a face."""
    thin = max(1, round(face.iod / 80))

    def pixels(points: Points) -> NDArray[np.int32]:
        return np.asarray(np.rint(np.atleast_2d(points) * 2**SHIFT), np.int32)

    def dots(points: Points, radius: float) -> None:
        for point in pixels(points).tolist():
            size = round(radius * thin * 2**SHIFT)
            cv2.circle(picture, point, size, colour, -1, cv2.LINE_AA, SHIFT)

    dots(face.mesh[:, :2], 0.5)
    dots(np.vstack((face.mouth, face.corners, face.chin)), 1.5)
    for pupil in pixels(face.pupils).tolist():
        ring = round(0.09 * face.iod * 2**SHIFT)
        cv2.circle(picture, pupil, ring, colour, thin, cv2.LINE_AA, SHIFT)
    cv2.polylines(picture, [pixels(face.seam)], False, colour, thin, cv2.LINE_AA, SHIFT)
    if face.score is not None:
        x, y = face.to_picture(np.array([-0.5, -0.55])).astype(int).tolist()
        font, size = cv2.FONT_HERSHEY_SIMPLEX, face.iod / 150
        text = f"face {face.score:.0%}"
        cv2.putText(picture, text, (x, y), font, size, colour, thin, cv2.LINE_AA)
