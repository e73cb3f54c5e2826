"""The usable stretches of a video, one face in one shot, and why the rest of it is left out."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLES_PER_FRAME
from moda_cli.face.candidates import find_candidates
from moda_cli.face.crops import (
    FRAME_SCALE,
    FRAME_VY,
    crop_image,
    crop_square,
    halve,
    smooth_crops,
)
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.face.mesh_motion import MEASURES, Measures, measure_face
from moda_cli.face.search import find_faces
from moda_cli.face.track import lost_face
from moda_cli.media.cuts import CutDetector
from moda_cli.media.pictures import Picture
from moda_cli.speech.logmel import log_mel

Inside = Callable[[float, float, int, int], bool]  # (x, y, width, height of the frame)

MIDDLE = np.array([0.0, 0.5])  # of a face, in the face frame
SHORTEST_S = 3.0

CHECK_EVERY = 5  # frames between looks for faces; those between count as the last
RIVAL = 0.4  # share of the followed face's size from which another one counts
FACE_MARGIN = 1.2  # of a detector's box around the points from brows to chin

UNSEEN = [math.nan] * (4 + len(MEASURES))

SPEECH_DB = -45.0  # level that a fifth of a clip reaches (dBFS), and
SPEECH_RANGE_DB = 6.0  # range of its level: noise and hum keep below 3, speech over music has 9


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive frames that are alike: all usable, or all left out for one reason."""

    start: int
    stop: int
    reason: str  # why it is left out; empty if it is not
    crops: NDArray[np.float64]  # (T, 3) centre x, y and side in pixels, as measured
    openness: NDArray[np.float64]  # (T,) of the mouth, between the inner lips, in IOD
    measures: Measures  # (T, 18) of the mesh, see `face.mesh_motion`

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, first: int, last: int) -> "Stretch":
        """Its frames from `first` to before `last`, counted from its start."""
        return Stretch(
            self.start + first,
            self.start + last,
            self.reason,
            self.crops[first:last],
            self.openness[first:last],
            self.measures[first:last],
        )

    def pieces(self, longest_s: float) -> list["Stretch"]:
        """Itself, or parts of about equal length where it lasts longer."""
        if self.reason or len(self) <= longest_s * FPS:
            return [self]
        count = math.ceil(len(self) / (longest_s * FPS))
        edges = [round(k * len(self) / count) for k in range(count + 1)]
        return [self.part(first, last) for first, last in pairwise(edges)]


class FaceTrack:
    """Follows the one face of a shot by its mesh."""

    def __init__(self, inside: Inside | None = None) -> None:
        """inside: where in the frame the speaker is to be looked for."""
        self._inside: Inside = inside or (lambda x, y, width, height: True)
        self._face: FaceLandmarks | None = None
        self._reason = ""  # why there is none
        self._age = 0  # frames since the last look for faces

    def cut(self) -> None:
        """The next frame belongs to another shot."""
        self._face, self._age = None, 0

    def __call__(self, frame: Picture) -> tuple[FaceLandmarks | None, str, int]:
        """The next frame's face, or None and the reason.

        Third: how many frames before this one the reason holds for as well.
        """
        age, self._age = self._age, self._age + 1
        if self._face is None:
            if age % CHECK_EVERY == 0:
                self._age = 1
                self._face, self._reason = self._find(frame)
            return self._face, self._reason, 0
        last = Mesh(self._face.mesh)
        mesh = follow_mesh(frame, last)
        face = FaceLandmarks(mesh.points)
        reason, before = lost_face(frame, mesh, last), 0
        if not reason and age == CHECK_EVERY:
            self._age, before = 1, CHECK_EVERY - 1
            reason = self._alone(frame, mesh)
        if not reason:
            self._face = face
            return face, "", 0
        self._face, self._reason, self._age = None, reason, 1
        return None, reason, before

    def _holds(self, frame: Picture, place: Points) -> bool:
        height, width = frame.shape[:2]
        return self._inside(float(place[0]), float(place[1]), width, height)

    def _find(self, frame: Picture) -> tuple[FaceLandmarks | None, str]:
        found = find_faces(frame, quick=True).faces
        faces = [face for face in found if self._holds(frame, face.to_picture(MIDDLE))]
        if not faces:
            return None, "no face"
        largest = max(faces, key=lambda face: face.iod)
        if sum(face.iod >= RIVAL * largest.iod for face in faces) > 1:
            return None, "several faces"
        return largest, ""

    def _alone(self, frame: Picture, mesh: Mesh) -> str:
        """Why a look for faces does not confirm that this mesh is one, and the only one."""
        seen = [each.mesh for each in find_candidates(frame, quick=True) if each.sure]
        away = [float(np.linalg.norm(other.eyes - mesh.eyes)) for other in seen]
        if min(away, default=np.inf) > mesh.iod / 2:
            return "no face"
        rivals = (
            FaceLandmarks(other.points)
            for other, distance in zip(seen, away, strict=True)
            if distance > mesh.iod / 2 and other.iod >= RIVAL * mesh.iod
        )
        alone = not any(self._holds(frame, rival.to_picture(MIDDLE)) for rival in rivals)
        return "" if alone else "several faces"


def stretches(
    frames: Iterable[Picture], landmarks: LandmarkNetwork | None, inside: Inside | None = None
) -> list[Stretch]:
    """What a video's frames (H, W, 3) at 25 fps fall into, in order. Holds no frame.

    landmarks: what LivePortrait's crops are made from; without them there are none.
    """
    is_cut, track = CutDetector(), FaceTrack(inside)
    labels: list[tuple[int, str]] = []  # shot and reason
    rows: list[list[float]] = []
    shot = 0
    for number, frame in enumerate(frames):
        if is_cut(frame):
            shot += 1
            track.cut()
        face, reason, doubtful = track(frame)
        for k in range(number - doubtful, number):
            labels[k] = (labels[k][0], reason)
        labels.append((shot, reason))
        rows.append(_seen(frame, face, landmarks) if face else UNSEEN)
    values = np.array(rows).reshape(-1, len(UNSEEN))
    found = []
    for (_, reason), run in groupby(range(len(labels)), key=lambda k: labels[k]):
        members = list(run)
        start, stop = members[0], members[-1] + 1
        crops, openness, measures = np.split(values[start:stop], [3, 4], axis=1)
        found.append(Stretch(start, stop, reason, crops, openness[:, 0], measures))
    return found


def _seen(frame: Picture, face: FaceLandmarks, landmarks: LandmarkNetwork | None) -> list[float]:
    """Centre x, y and side of LivePortrait's crop, how far the mouth is open, and the measures."""
    crop = crop_square(landmarks.cloud(frame, face)) if landmarks else UNSEEN[:3]
    return [*crop, face.opening, *measure_face(face.mesh)]


def views(
    frames: Iterable[Picture], stretch: Stretch, face_every: int
) -> Iterator[tuple[Picture, Picture | None]]:
    """Crops (256, 256, 3) of a stretch's frames for the motion extractor, and now and then a face.

    The face (h, w, 3) is that of every `face_every`-th frame, as a detector's box shows it.
    """
    each = zip(frames, smooth_crops(stretch.crops), stretch.crops, strict=True)
    for number, (frame, to_crop, measured) in enumerate(each):
        face = None if number % face_every else face_box(frame, *measured)
        yield halve(crop_image(frame, to_crop)), face


def face_box(frame: Picture, x: float, y: float, side: float) -> Picture:
    """The face, forehead included, in LivePortrait's crop of that centre and side.

    At least a pixel of the frame (H, W, 3), wherever that is.
    """
    half = FACE_MARGIN * side / FRAME_SCALE / 2

    def shown(middle: float, limit: int) -> slice:
        start = min(max(0, round(middle - half)), limit - 1)
        return slice(start, max(start + 1, round(middle + half)))

    height, width = frame.shape[:2]
    return frame[shown(y - FRAME_VY * side, height), shown(x, width)].copy()


def unusable(stretch: Stretch, wave: NDArray[np.float32]) -> str:
    """Why a stretch and its own sound (N,) at 16 kHz are left out; empty if they are not."""
    if stretch.reason:
        return stretch.reason
    seconds = min(len(stretch), len(wave) // SAMPLES_PER_FRAME) / FPS
    if seconds < SHORTEST_S:
        return f"{seconds:.2f} s, shorter than {SHORTEST_S:.0f} s"
    return "" if has_speech(wave) else "no speech"


def has_speech(wave: NDArray[np.float32]) -> bool:
    """Whether a sound (N,) at 16 kHz is loud enough and rises and falls as speech does.

    Silence, noise and hum do not; music does.
    """
    frames = wave[: len(wave) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    power = np.square(frames.reshape(-1, SAMPLES_PER_FRAME), dtype=np.float64).mean(axis=1)
    if 10 * np.log10(np.percentile(power, 80) + 1e-12) < SPEECH_DB:
        return False
    levels = 10 / np.log(10) * log_mel(wave)[..., 10:60].mean(dim=-1).flatten().numpy()
    low, high = np.percentile(levels, (10, 95))
    return bool(high - low >= SPEECH_RANGE_DB)
