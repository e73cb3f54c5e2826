"""The usable stretches of a video, one face in one shot, and why the rest of it is left out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import CROP_SIZE, FPS, SAMPLES_PER_FRAME
from moda_cli.face.candidates import SURE_FLAG, find_candidates
from moda_cli.face.crops import FRAME_SCALE, FRAME_VY, crop_image, halve, portrait_crop
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.face.search import fault_of, find_faces
from moda_cli.media.pictures import Picture
from moda_cli.speech.logmel import log_mel

Curve = NDArray[np.float64]
Inside = Callable[[float, float, int, int], bool]  # (x, y, width, height of the frame)

MIDDLE = np.array([0.0, 0.5])  # of a face, in the face frame
SHORTEST_S, LONGEST_S = 3.0, 60.0

# Mean change of a Lab value (0 to 255) between frames of 64 px. Talking heads stay below 5, a
# rendered one below 7; unrelated pictures differ by 25 and more.
CUT_CHANGE = 10.0
SMALL_SIDE = 64

CHECK_EVERY = 5  # frames between looks for faces; those between count as the last
RIVAL = 0.4  # share of the followed face's size from which another one counts
JUMP = 1.0  # IOD between two frames that no head moves: another face, after an unseen cut
FACE_MARGIN = 1.2  # of a detector's box around the points from brows to chin
SMOOTHING_S = 1.0  # sd of the Gaussian over the crops: drift is followed, nods are not

SPEECH_DB = -45.0  # level that a fifth of a clip reaches (dBFS), and
SPEECH_RANGE_DB = 6.0  # range of its level: noise and hum keep below 3, speech over music has 9


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive frames that are alike: all usable, or all left out for one reason."""

    start: int
    stop: int
    reason: str  # why it is left out; empty if it is not
    crops: Curve  # (T, 3) centre x, y and side in pixels, as measured
    openness: Curve  # (T,) of the mouth, between the inner lips, in IOD

    def __len__(self) -> int:
        return self.stop - self.start


class CutDetector:
    """Says of each frame (H, W, 3) whether it begins another shot."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None

    def __call__(self, frame: Picture) -> bool:
        scale = SMALL_SIDE / max(frame.shape[:2])
        size = [max(1, round(scale * side)) for side in frame.shape[1::-1]]
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
        last, self._last = self._last, lab
        return last is not None and float(np.abs(lab - last).mean()) >= CUT_CHANGE


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
        mesh = follow_mesh(frame, Mesh(self._face.mesh))
        face = FaceLandmarks(mesh.points)
        reason, before = self._doubt(frame, mesh, face), 0
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

    def _doubt(self, frame: Picture, mesh: Mesh, face: FaceLandmarks) -> str:
        """Why these points cannot be the face that was followed."""
        assert self._face is not None
        if mesh.flag < SURE_FLAG:
            return "no face"
        if fault_of(face, frame):
            return "the face is too small, cut off or turned away"
        moved = np.linalg.norm(mesh.middle - self._face.mesh[:, :2].mean(axis=0))
        return "the face jumps" if moved > JUMP * face.iod else ""

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
    frames: Iterable[Picture], landmarks: LandmarkNetwork, inside: Inside | None = None
) -> list[Stretch]:
    """What a video's frames (H, W, 3) at 25 fps fall into, in order. Holds no frame."""
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
        rows.append(_measures(frame, face, landmarks) if face else [np.nan] * 4)
    values = np.array(rows).reshape(-1, 4)
    found = []
    for (_, reason), run in groupby(range(len(labels)), key=lambda k: labels[k]):
        members = list(run)
        start, stop = members[0], members[-1] + 1
        found.append(Stretch(start, stop, reason, values[start:stop, :3], values[start:stop, 3]))
    return found


def _measures(frame: Picture, face: FaceLandmarks, landmarks: LandmarkNetwork) -> list[float]:
    """Centre x, y and side of LivePortrait's crop, unturned, and how far the mouth is open."""
    to_crop, from_crop = portrait_crop(landmarks.cloud(frame, face), rotate=False)
    x, y = from_crop[:2, :2] @ np.full(2, CROP_SIZE / 2) + from_crop[:2, 2]
    return [float(x), float(y), CROP_SIZE / float(to_crop[0, 0]), face.opening]


def smooth_crops(crops: Curve) -> NDArray[np.float64]:
    """Matrices (T, 2, 3) into 512 px crops that follow slow drift alone; (T, 3) as measured.

    The crops do not turn with the head: its roll stays in the motion.
    """
    frames = np.arange(len(crops))
    reach = np.arange(-round(3 * SMOOTHING_S * FPS), round(3 * SMOOTHING_S * FPS) + 1)
    weights = np.exp(-0.5 * (reach / (SMOOTHING_S * FPS)) ** 2)
    near = frames[:, None] + reach
    present = weights * ((near >= 0) & (near < len(crops)))
    present /= present.sum(axis=1, keepdims=True)
    values = np.column_stack((crops[:, :2], np.log(crops[:, 2])))
    smooth = (present[:, :, None] * values[near.clip(0, len(crops) - 1)]).sum(axis=1)
    matrices = np.zeros((len(crops), 2, 3))
    zoom = CROP_SIZE / np.exp(smooth[:, 2])
    matrices[:, 0, 0] = matrices[:, 1, 1] = zoom
    matrices[:, :, 2] = CROP_SIZE / 2 - zoom[:, None] * smooth[:, :2]
    return matrices


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
    """The face, forehead included, in LivePortrait's crop of that centre and side."""
    half, middle = FACE_MARGIN * side / FRAME_SCALE / 2, y - FRAME_VY * side
    top, bottom = (max(0, round(v)) for v in (middle - half, middle + half))
    left, right = (max(0, round(v)) for v in (x - half, x + half))
    return frame[top:bottom, left:right].copy()


def unusable(stretch: Stretch, wave: NDArray[np.float32]) -> str:
    """Why a stretch and its own sound (N,) at 16 kHz are left out; empty if they are not."""
    if stretch.reason:
        return stretch.reason
    seconds = min(len(stretch), len(wave) // SAMPLES_PER_FRAME) / FPS
    if seconds < SHORTEST_S:
        return f"{seconds:.2f} s, shorter than {SHORTEST_S:.0f} s"
    if seconds > LONGEST_S:
        return f"{seconds:.1f} s without a cut, longer than {LONGEST_S:.0f} s"
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
