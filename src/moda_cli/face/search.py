"""Find the frontal faces of a picture, refuse what is uncertain, choose one.

With a FaceDetector the networks look for them, without one the classical cascade and fits.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import InputError, UsageError
from moda_cli.face.cascade import FaceBox, refine_box, search_boxes
from moda_cli.face.crops import portrait_crop, upright_crop
from moda_cli.face.detect import DROP, FaceDetector
from moda_cli.face.landmark_fit import MIN_IOD, fit_face, fit_points
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Picture

WORK_SIZE = 400  # pixels of the longer side the cascade reads
# Smallest box as a share of the shorter side, and rolls in degrees; the first that finds a face.
PASSES = ((0.14, (0.0,)), (0.14, (-25.0, 25.0)), (0.06, (0.0,)))
TRIED = 6  # boxes refined and fitted in a pass
MIN_AGREEING = 3.0  # windows that make a box worth fitting
NO_FACE_HINT = (
    "use another portrait, or give the pupils and the mouth centre in pixels: "
    '--face-points "xL,yL xR,yR xM,yM"'
)
LARGER_HINT = "use a larger picture"
# Degrees. Past about 60 of yaw one eye and half the mouth are hidden, and past about 50 of pitch
# the lips or the lids; the renderer would have to invent what it should move. M itself reads +-99.
MAX_YAW, MAX_PITCH = 60.0, 50.0


@dataclass(frozen=True, slots=True)
class FaceSearch:
    """The accepted faces from left to right, and the best fit of what was refused."""

    faces: tuple[FaceLandmarks, ...]
    refused: FaceLandmarks | None = None


def find_faces(picture: Picture, detector: FaceDetector | None = None) -> FaceSearch:
    """The faces of a picture (H, W, 3) RGB with a score of at least 1, the gate."""
    if detector is not None:
        return gate(list(detector.faces(picture)))
    scale = min(1.0, WORK_SIZE / max(picture.shape[:2]))
    full = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(full, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    gray = np.asarray(small, np.uint8)
    refused: list[FaceLandmarks] = []
    for share, rolls in PASSES:
        least = share * min(gray.shape)
        boxes = [box for roll in rolls for box in search_boxes(gray, least, roll)]
        fits = [fit_face(picture, box.scaled(1 / scale)) for box in distinct(gray, boxes)]
        if (found := gate(fits)).faces:
            return found
        refused += fits
    return gate(refused)


def gate(fits: list[FaceLandmarks]) -> FaceSearch:
    """The fits that pass, or the best of those that do not."""
    accepted = [fit for fit in fits if fit.score >= 1]
    accepted.sort(key=lambda face: float(face.pupils[:, 0].mean()))
    best = max(fits, key=lambda fit: fit.score, default=None)
    return FaceSearch(tuple(accepted), None if accepted else best)


def distinct(gray: NDArray[np.uint8], boxes: list[FaceBox]) -> list[FaceBox]:
    """The best supported boxes after refinement, without those that cover a better one's face."""
    first = sorted(boxes, key=lambda box: -box.support)[:TRIED]
    first = [box for box in first if box.support > 0.1 * first[0].support]
    refined = [refine_box(gray, box) for box in first]
    refined = [refine_box(gray, box) for box in refined if box.support >= MIN_AGREEING]
    kept: list[FaceBox] = []
    for box in sorted(refined, key=lambda box: -box.support):
        overlaps = any(
            np.abs(box.centre - other.centre).max() < 0.5 * max(box.size, other.size)
            for other in kept
        )
        if box.support >= MIN_AGREEING and not overlaps:
            kept.append(box)
    return kept


def choose_face(found: FaceSearch, which: str) -> FaceLandmarks:
    """One of the accepted faces: "largest", "left", "right" or its number from the left, from 1.

    Raises UsageError for another word, InputError if there is no such face.
    """
    faces = found.faces
    if which not in ("largest", "left", "right") and not which.isdecimal():
        raise UsageError(f"no such face: {which!r}", hint="largest, left, right or a number from 1")
    if not faces:
        hint = LARGER_HINT if too_small(found.refused) else NO_FACE_HINT
        raise InputError(why_none(found.refused), hint=hint)
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


def too_small(refused: FaceLandmarks | None) -> bool:
    return refused is not None and refused.score == refused.iod / MIN_IOD


def why_none(refused: FaceLandmarks | None) -> str:
    if refused is None:
        return "no frontal face found"
    if too_small(refused):
        return f"the face is too small: {refused.iod:.0f} pixels between the pupils < {MIN_IOD:.0f}"
    drop = float(refused.to_face(refused.mouth)[1])
    if refused.cloud is not None and not DROP[0] <= drop <= DROP[1]:
        return f"the head is turned too far: the mouth is {drop:.2f} pupil distances below the eyes"
    return f"no frontal face found with enough confidence (best score {refused.score:.2f} < 1)"


def check_pose(pitch: float, yaw: float) -> None:
    """Raises InputError for a source head (degrees, LivePortrait's M) turned too far to animate."""
    if abs(yaw) > MAX_YAW or abs(pitch) > MAX_PITCH:
        raise InputError(
            f"the head is turned too far: yaw {yaw:.0f}, pitch {pitch:.0f} degrees",
            hint=f"use a portrait within {MAX_YAW:.0f} degrees of yaw and {MAX_PITCH:.0f} of pitch",
        )


def face_from_points(
    picture: Picture, points: str | Points, detector: FaceDetector | None = None
) -> FaceLandmarks:
    """The face whose pupils (left, right in the picture) and mouth centre the user gave.

    points: "xL,yL xR,yR xM,yM" or (3, 2), pixels of the picture (H, W, 3); the rest is fitted, or
    measured by the landmark network on the face they show.
    Raises UsageError for text that is not three points, InputError for points that are no face.
    """
    form = 'it reads "xL,yL xR,yR xM,yM": left pupil, right pupil, mouth centre, in pixels'
    if isinstance(points, str):
        try:
            given = np.array([[float(v) for v in point.split(",")] for point in points.split()])
        except ValueError:
            raise UsageError(f"not face points: {points!r}", hint=form) from None
    else:
        given = np.asarray(points, np.float64)
    if given.shape != (3, 2) or not np.isfinite(given).all():
        raise UsageError(f"not face points: {points!r}", hint=form)
    height, width = picture.shape[:2]
    if (given < 0).any() or (given > (width - 1, height - 1)).any():
        raise InputError(f"face points outside the {width} x {height} picture", hint=form)
    pupils, mouth = given[:2], given[2]
    if pupils[0, 0] >= pupils[1, 0]:
        raise InputError("the first pupil has to be the one on the picture's left", hint=form)
    frame = FaceLandmarks(pupils, mouth, pupils, mouth, pupils)
    if frame.iod < MIN_IOD:
        raise InputError(
            f"the face is too small: {frame.iod:.0f} pixels between the pupils < {MIN_IOD:.0f}",
            hint=LARGER_HINT,
        )
    x, y = frame.to_face(mouth)
    if not (DROP[0] < y < DROP[1] and abs(x) < 0.6):
        raise InputError(
            f"the mouth is not below the pupils: {y:.2f} of their distance down, {x:.2f} across",
            hint="a frontal face has it about 1 down and 0 across",
        )
    face = fit_points(picture, pupils, mouth)
    if detector is None:
        return face
    measured = detector.measured(picture, face)
    shift = mouth - measured.mouth
    return replace(
        measured,
        pupils=pupils,
        mouth=mouth,
        corners=measured.corners + shift,
        seam=measured.seam + shift,
    )


def draw_landmarks(
    picture: Picture, faces: tuple[FaceLandmarks, ...], refused: FaceLandmarks | None = None
) -> Picture:
    """A copy of a picture (H, W, 3) RGB with the faces drawn in green and the refused in red."""
    drawn = picture.copy()
    fits = [(face, (0, 220, 60)) for face in faces]
    for face, colour in fits + ([(refused, (255, 40, 40))] if refused else []):
        thin = max(1, round(face.iod / 80))

        def pixels(points: Points) -> NDArray[np.int32]:
            return np.rint(np.atleast_2d(points) * 16).astype(np.int32)

        ring = round(0.09 * face.iod * 16)
        for pupil in pixels(face.pupils):
            cv2.circle(drawn, pupil.tolist(), ring, colour, thin, cv2.LINE_AA, 4)
            cv2.circle(drawn, pupil.tolist(), 16 * thin, colour, -1, cv2.LINE_AA, 4)
        cv2.polylines(drawn, [pixels(face.seam)], False, colour, thin, cv2.LINE_AA, 4)
        for point in pixels(face.cloud) if face.cloud is not None else ():
            cv2.circle(drawn, point.tolist(), 12 * thin, colour, -1, cv2.LINE_AA, 4)
        for point in pixels(np.vstack((face.mouth, face.corners, face.chin))):
            cv2.circle(drawn, point.tolist(), 24 * thin, colour, -1, cv2.LINE_AA, 4)
        if np.isfinite(face.score):
            x, y = face.to_picture(np.array([-0.5, -0.55])).astype(int)
            font, size = cv2.FONT_HERSHEY_SIMPLEX, face.iod / 150
            cv2.putText(drawn, f"{face.score:.2f}", (x, y), font, size, colour, thin, cv2.LINE_AA)
    return drawn


def face_crop(face: FaceLandmarks, size: int) -> Points:
    """The (2, 3) similarity to a `size` px square as LivePortrait frames a face.

    Its very crop where the landmark network ran, else one from the proportions of faces.
    """
    if face.cloud is None:
        return upright_crop(face, size)
    to_crop, _ = portrait_crop(face.cloud, size)
    return to_crop[:2].astype(np.float64)
