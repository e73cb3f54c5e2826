"""The faces of a portrait, drawn over it before anything is made, and which of them is meant."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from moda_cli.errors import InputError
from moda_cli.face import search
from moda_cli.face.kept import candidates_once
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.overlay import draw_landmarks
from moda_cli.media import read_image
from moda_cli.media.pictures import Picture, opaque, shrunk
from moda_cli.weights import store

SHOWN_SIDE = 1024  # pixels, of the picture that is shown
OTHERS, RIM = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True, slots=True)
class Seen:
    """A portrait with the chosen face's mesh, and what there is to choose from."""

    picture: Picture  # (H, W, 3), at most SHOWN_SIDE long
    eyes: tuple[tuple[float, float], ...]  # of the faces from left to right, in its pixels
    words: str

    def nearest(self, x: float, y: float) -> str:
        """The number of the face next to a point of the picture, from 1."""
        away = [np.hypot(x - left, y - top) for left, top in self.eyes]
        return str(int(np.argmin(away)) + 1)


def look(portrait: Path, which: str, face_points: str, force: bool) -> Seen:
    """Draw the face that would be animated. Raises InputError, UsageError as `find_face`."""
    whole = opaque(read_image(portrait))
    scale = min(1.0, SHOWN_SIDE / max(whole.shape[:2]))
    picture = shrunk(whole, scale)

    def shown(face: FaceLandmarks) -> FaceLandmarks:
        return face.moved(np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]]))

    if face_points:
        found = search.FaceSearch((search.face_from_points(whole, face_points),))
        which = "largest"
    else:
        found = search.judge(candidates_once(whole, store.seen_portraits()), whole, force)
    try:
        chosen = search.choose_face(found, which)
    except InputError as error:
        raise InputError(f"{portrait}: {error}", hint=error.hint) from None
    faces = [shown(face) for face in found.faces]
    number = found.faces.index(chosen) + 1
    drawn = draw_landmarks(picture, [faces[number - 1]])
    for position, face in enumerate(faces, start=1):
        if len(faces) > 1:
            _numbered(drawn, face, position)
    words = "This face will be animated."
    if len(faces) > 1:
        words = f"Face {number} of {len(faces)} will be animated; click another to take it."
    eyes = tuple(tuple(face.pupils.mean(axis=0).tolist()) for face in faces)
    return Seen(drawn, eyes, words)


def _numbered(picture: Picture, face: FaceLandmarks, number: int) -> None:
    """Write a face's number over its brow."""
    x, y = face.to_picture(np.array([0, -0.9])).astype(int).tolist()
    size = max(0.6, face.iod / 90)
    for ink, thick in ((RIM, 5), (OTHERS, 2)):
        cv2.putText(
            picture, str(number), (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, thick, cv2.LINE_AA
        )
