"""One face followed along a video by its mesh: among other faces, through losses and cuts."""

from dataclasses import dataclass

import numpy as np

from moda_cli.face.candidates import SURE_FLAG
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.face.search import choose_face, fault_of, find_faces
from moda_cli.media.cuts import CutDetector
from moda_cli.media.pictures import Picture

JUMP = 1.0  # IOD between two frames that no head moves: another face, after an unseen cut
HIDDEN = 10  # frames after a loss in which the face is looked for where it was, in each
SEARCH_EVERY = 5  # frames between searches while there is none
SAME_WITHIN = 50  # frames without it after which a face in the same place may be another one's


@dataclass(frozen=True, slots=True)
class Sight:
    """The followed face in one frame. person: counts up wherever it may be another face."""

    mesh: Mesh
    person: int


class FaceTracker:
    """Follows one face of consecutive frames (H, W, 3): in each shot the largest where it begins.

    It is kept as long as it is seen, whoever else comes. Where it is lost it is looked for again,
    and what is found in its place within two seconds is taken for it.
    """

    def __init__(self, first: Mesh | None = None) -> None:
        """first: which face of the first frame it is, where that is known."""
        self._is_cut = CutDetector()
        self._last = first  # where it was seen last, in this shot
        self._lost = 0  # frames since then, or since the shot began
        self._person = -1 if first is None else 0
        self.most_faces = 0  # that a frame has shown where one was looked for

    def look(self, frame: Picture) -> Sight | None:
        """The face in the next frame, None where it is not seen whole."""
        if self._is_cut(frame):
            self._last, self._lost = None, 0
        if self._last is not None and self._lost < HIDDEN:
            mesh = follow_mesh(frame, self._last)
            if not lost_face(frame, mesh, self._last):
                self._last, self._lost = mesh, 0
                return Sight(mesh, self._person)
        searched = self._lost % SEARCH_EVERY == 0
        found = find_faces(frame, quick=True) if searched else None
        if found is None or not found.faces:
            self._lost += 1
            return None
        self.most_faces = max(self.most_faces, len(found.faces))
        known = [face for face in found.faces if self._is_known(face)]
        face = known[0] if known else choose_face(found, "largest")
        if not known:
            self._person += 1
        self._last, self._lost = follow_mesh(frame, Mesh(face.mesh)), 0
        return Sight(self._last, self._person)

    def _is_known(self, face: FaceLandmarks) -> bool:
        """Is it where the face was that is looked for?"""
        if self._last is None or self._lost > SAME_WITHIN:
            return False
        away = np.linalg.norm(face.pupils.mean(axis=0) - self._last.eyes)
        return bool(away < JUMP * face.iod and 0.7 < face.iod / self._last.iod < 1.4)


def lost_face(frame: Picture, mesh: Mesh, last: Mesh) -> str:
    """Why the points followed into a frame (H, W, 3) cannot be the last one's face; or empty."""
    if mesh.flag < SURE_FLAG:
        return "no face"
    if fault_of(FaceLandmarks(mesh.points), frame):
        return "the face is too small, cut off or turned away"
    moved = np.linalg.norm(mesh.middle - last.middle)
    return "the face jumps" if moved > JUMP * mesh.iod else ""
