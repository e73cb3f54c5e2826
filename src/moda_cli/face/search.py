"""Which faces of a picture can be animated, why not the others, and which of them is meant."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moda_cli.errors import InputError, UsageError
from moda_cli.face.candidates import (
    SURE_DISTANCE,
    SURE_FLAG,
    SURE_SCORE,
    Candidate,
    find_candidates,
)
from moda_cli.face.crops import portrait_crop, upright_crop
from moda_cli.face.landmarks import LIP_EDGES, FaceLandmarks, Points
from moda_cli.face.mesh import Mesh, follow_mesh, head_angles, mean_mesh
from moda_cli.media.pictures import Picture

LEAST_IOD = 20.0  # pixels; a smaller face is too soft to animate
# Degrees. Past these one eye and half the mouth are hidden, or the lips or the lids; the renderer
# would have to invent what it should move.
MAX_YAW, MAX_PITCH = 60.0, 50.0
CHIN_MARGIN = 0.1  # IOD that a chin may lie outside the picture: its lowest point is a guess
NEAR = 0.15  # IOD between given points and the network's of the same face

FORM = 'it reads "xL,yL xR,yR xM,yM": left pupil, right pupil, mouth centre, in pixels'
# How far below the pupils a mouth can be, and how far aside, in IOD: 1.04 +- 0.1 on frontal faces.
# Yaw shortens the eye line by its cosine, pitch the drop.
DROP, ASIDE = (0.5, 2.0), 0.6


@dataclass(frozen=True, slots=True)
class FaceSearch:
    """The faces that can be animated, from left to right, or the best of what was refused."""

    faces: tuple[FaceLandmarks, ...]
    refused: FaceLandmarks | None = None
    why: str = "no face found"  # it was refused
    remedy: str = "use another portrait"
    doubtful: bool = False  # whether it is a face: --force takes it


def find_faces(picture: Picture, *, quick: bool = False) -> FaceSearch:
    """The faces of a picture (H, W, 3) RGB. quick: as in `find_candidates`."""
    return judge(find_candidates(picture, quick), picture)


def judge(candidates: Sequence[Candidate], picture: Picture, force: bool = False) -> FaceSearch:
    """Which candidates of a picture (H, W, 3) can be animated.

    force: the best doubtful one where none is sure.
    """
    faces = [face_of(candidate) for candidate in candidates if candidate.sure]
    usable = [face for face in faces if not fault_of(face, picture)]
    if usable:
        usable.sort(key=lambda face: float(face.pupils[:, 0].mean()))
        return FaceSearch(tuple(usable))
    if faces:
        largest = max(faces, key=lambda face: face.iod)
        why, remedy = fault_of(largest, picture) or ("", "")
        return FaceSearch((), largest, why, remedy)
    best = max(candidates, key=lambda candidate: candidate.score, default=None)
    if best is None or not best.score:
        return FaceSearch(())
    face = face_of(best)
    if fault := fault_of(face, picture):
        return FaceSearch((), face, fault[0], fault[1])
    if force:
        return FaceSearch((face,))
    return FaceSearch((), face, doubt(best), "use another portrait", doubtful=True)


def face_of(candidate: Candidate) -> FaceLandmarks:
    """The landmarks of a candidate."""
    return FaceLandmarks(candidate.mesh.points, candidate.score)


def doubt(candidate: Candidate) -> str:
    """Why a candidate may be no face."""
    if candidate.score < SURE_SCORE:
        chance, needed = candidate.score, SURE_SCORE
        reason = f"the likeliest place shows one with probability {chance:.2f}"
    elif candidate.mesh.flag < SURE_FLAG:
        chance, needed = candidate.mesh.flag, SURE_FLAG
        reason = f"the points of the likeliest place are a face's with probability {chance:.2f}"
    else:
        distance = candidate.mesh.distance
        return (
            "no face found for sure: measured twice, the points of the likeliest place are"
            f" {distance:.2f} eye distances apart; {SURE_DISTANCE} or less is trusted"
        )
    return f"no face found for sure: {reason}; {needed} or more is trusted"


def fault_of(face: FaceLandmarks, picture: Picture) -> tuple[str, str] | None:
    """Why a face of a picture (H, W, 3) cannot be animated and what helps, if so."""
    pitch, yaw, _ = head_angles(face.mesh)
    if abs(yaw) > MAX_YAW or abs(pitch) > MAX_PITCH:
        return (
            f"the head is turned too far: yaw {yaw:.0f}, pitch {pitch:.0f} degrees",
            f"use a portrait within {MAX_YAW:.0f} degrees of yaw and {MAX_PITCH:.0f} of pitch",
        )
    if face.iod < LEAST_IOD:
        size = f"{face.iod:.0f} pixels between the eyes, {LEAST_IOD:.0f} are needed"
        return f"the face is too small: {size}", "use a larger picture of it"
    limit = np.array(picture.shape[1::-1]) - 1

    def outside(points: Points, margin: float) -> bool:
        return bool(((points < -margin) | (points > limit + margin)).any())

    whole = "use a picture that shows the whole face, chin included"
    if outside(face.mesh[LIP_EDGES, :2], 0):
        return "the picture ends at the mouth", whole
    if outside(face.chin, CHIN_MARGIN * face.iod):
        return "the picture ends above the chin", whole
    return None


def choose_face(found: FaceSearch, which: str, drawn: Path | None = None) -> FaceLandmarks:
    """One of the faces: "largest", "left", "right" or its number from the left, from 1.

    drawn: the picture in which `found` was drawn, to be named. Raises UsageError for another word,
    InputError if there is no such face.
    """
    faces = found.faces
    if which not in ("largest", "left", "right") and not which.isdecimal():
        raise UsageError(f"no such face: {which!r}", hint="largest, left, right or a number from 1")
    if not faces:
        raise InputError(found.why, hint=advice(found, drawn))
    if which == "largest":
        return max(faces, key=lambda face: face.iod)
    number = {"left": 1, "right": len(faces)}.get(which) or int(which)
    if not 1 <= number <= len(faces):
        eyes = (face.pupils.mean(axis=0) for face in faces)
        found_at = ", ".join(f"{n} at {x:.0f},{y:.0f}" for n, (x, y) in enumerate(eyes, start=1))
        raise InputError(
            f"no face {number}: {len(faces)} found", hint=f"they count from the left: {found_at}"
        )
    return faces[number - 1]


def advice(found: FaceSearch, drawn: Path | None) -> str:
    """What helps where no face can be animated."""
    if found.refused is None:
        place = 'give the pupils and the mouth centre in pixels: --face-points "xL,yL xR,yR xM,yM"'
        return f"{found.remedy}, or {place}"
    seen = f"{drawn} shows it" if drawn else "--show-landmarks F.png draws it"
    if not found.doubtful:
        return f"{found.remedy}; {seen}"
    points = np.vstack((found.refused.pupils, found.refused.mouth))
    text = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return f'{seen}; --force takes it, --face-points "{text}" places it; or {found.remedy}'


def face_from_points(picture: Picture, points: str | Points) -> FaceLandmarks:
    """The face whose pupils (left, right) and mouth centre the user gave, exactly through them.

    points: "xL,yL xR,yR xM,yM" or (3, 2), pixels of the picture (H, W, 3), in whatever way the
    face is turned. The rest is measured where the network sees a face there, and that of a mean
    face where it does not: an animal, a puppet.
    Raises UsageError for text that is not three points, InputError for points that are no face.
    """
    given = _three_points(points)
    height, width = picture.shape[:2]
    if (given < 0).any() or (given > (width - 1, height - 1)).any():
        raise InputError(f"face points outside the {width} x {height} picture", hint=FORM)
    if _drop(given)[1] < 0:  # the mouth says which pupil is which
        given = given[[1, 0, 2]]
    iod = float(np.linalg.norm(given[1] - given[0]))
    if iod < LEAST_IOD:
        raise InputError(
            f"the face is too small: {iod:.0f} pixels between the eyes, {LEAST_IOD:.0f} are needed",
            hint="use a larger picture of it, and check that the pupils are two different points",
        )
    x, y = _drop(given)
    if not (DROP[0] < y < DROP[1] and abs(x) < ASIDE):
        raise InputError(
            f"the mouth is not below the pupils: {y:.2f} of their distance down, {x:.2f} across",
            hint="a frontal face has it about 1 down and 0 across",
        )
    laid = laid_through(FaceLandmarks(mean_mesh()), given)
    found = follow_mesh(picture, follow_mesh(picture, Mesh(laid.mesh)))
    measured = FaceLandmarks(found.points)
    off = np.linalg.norm(_own_points(measured) - given, axis=1).max()
    is_face = found.flag >= SURE_FLAG and found.distance <= SURE_DISTANCE
    face = laid_through(measured, given) if is_face and off <= NEAR * iod else laid
    if fault := fault_of(face, picture):
        raise InputError(fault[0], hint=fault[1])
    return face


def _three_points(points: str | Points) -> Points:
    if isinstance(points, str):
        try:
            given = np.array([[float(v) for v in point.split(",")] for point in points.split()])
        except ValueError:
            raise UsageError(f"not face points: {points!r}", hint=FORM) from None
    else:
        given = np.asarray(points, np.float64)
    if given.shape != (3, 2) or not np.isfinite(given).all():
        raise UsageError(f"not face points: {points!r}", hint=FORM)
    return given


def _drop(given: Points) -> tuple[float, float]:
    """How far the mouth is across and below the middle of the pupils, in IOD."""
    axis = given[1] - given[0]
    x, y = given[2] - given[:2].mean(axis=0)
    square = max(float(axis @ axis), 1e-9)
    return float(axis @ (x, y)) / square, float(axis[0] * y - axis[1] * x) / square


def _own_points(face: FaceLandmarks) -> Points:
    return np.vstack((face.pupils, face.mouth))


def laid_through(face: FaceLandmarks, given: Points) -> FaceLandmarks:
    """A face stretched so that its pupils and its mouth come where they were given (3, 2)."""
    own = np.column_stack((_own_points(face), np.ones(3)))
    affine = np.linalg.solve(own, given).T  # (2, 3)
    mesh = np.column_stack((face.mesh[:, :2], np.ones(len(face.mesh)))) @ affine.T
    deep = face.mesh[:, 2] * np.linalg.norm(given[1] - given[0]) / face.iod
    return replace(face, mesh=np.column_stack((mesh, deep)))


def face_crop(face: FaceLandmarks, size: int) -> Points:
    """The (2, 3) similarity to a `size` px square as LivePortrait frames a face.

    Its very crop where the landmark network ran, else one from the proportions of faces.
    """
    if face.cloud is None:
        return upright_crop(face, size)
    to_crop, _ = portrait_crop(face.cloud, size)
    return to_crop[:2].astype(np.float64)
