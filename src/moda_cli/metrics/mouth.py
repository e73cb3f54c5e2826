"""The mouth of any talking head without downloaded weights: how far it opens, and with the sound?

The face is found in one frame and its mesh followed from there.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.face.candidates import SURE_FLAG
from moda_cli.face.crops import align, warp
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.mesh import Mesh, follow_mesh, head_points
from moda_cli.face.search import LEAST_IOD, choose_face, find_faces
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave

Gray = NDArray[np.uint8]
Curve = NDArray[np.float64]  # (T,)

UNIT = 64  # pixels per IOD of the steady crop
ORIGIN = (1.2, 0.8)  # IOD from its left and top edges to the middle of the pupils
SIZE = (round(2 * ORIGIN[0] * UNIT), round((ORIGIN[1] + 2.1) * UNIT))  # width, height
RIGID = (-0.95, 0.95), (-0.6, 0.75)  # x and y in IOD of what does not move with the jaw

STRAY = 0.1  # IOD that the face moves before its crop follows
LEAST_ALIKE = 0.5  # correlation of brows, eyes and nose with the last frame's, or the face is lost
SEARCH_AFTER = 12, 100  # frames from a search in vain to the next, doubled up to the second

BAND_HZ = (200.0, 6000.0)
WINDOW = 1920  # samples
LEAD_FRAMES = 0.75  # mouths open before they are heard: 30 ms in phone-timed speech
LEAST_MOVEMENT = 0.004  # IOD, standard deviation; speech has ten times that
MAX_LAG = 15  # frames
SLOW = 35  # frames of the moving mean that is taken off before mouth and sound are compared


def part(x: tuple[float, float], y: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of the steady crop between face-frame coordinates in IOD."""
    columns, rows = (
        slice(*(int(np.clip(round((v + origin) * UNIT), 0, size)) for v in span))
        for span, origin, size in zip((x, y), ORIGIN, SIZE, strict=True)
    )
    return rows, columns


@dataclass(frozen=True, slots=True)
class FaceView:
    """The face of one frame, and a crop of it in which its head stands still."""

    face: FaceLandmarks  # in the frame
    head: Points  # (3, 2) eyes and nose in the frame, as `head_points` has them
    crop: Gray  # of SIZE
    shot: int  # how often a face had been found anew

    @property
    def mouth(self) -> Points:
        """The middle of the mouth in the crop, IOD right of and below the middle of the eyes."""
        to_crop = align(self.head[:2], UNIT, ORIGIN)
        at: Points = (to_crop[:, :2] @ self.face.mouth + to_crop[:, 2]) / UNIT - ORIGIN
        return at


class FaceFollower:
    """Follows the largest face of consecutive frames; looks for it again where it is lost."""

    def __init__(self) -> None:
        self._wait, self._pause = 0, SEARCH_AFTER[0]
        self._shot = -1
        self._view: FaceView | None = None

    def look(self, frame: Picture) -> FaceView | None:
        """The next frame (H, W, 3); None where no face is."""
        self._wait -= 1
        if self._view is not None:
            self._view = self._step(frame, self._view)
        if self._view is None and self._wait < 0:
            self._view = self._search(frame)
        return self._view

    def _search(self, frame: Picture) -> FaceView | None:
        self._wait, self._pause = self._pause, min(2 * self._pause, SEARCH_AFTER[1])
        found = find_faces(frame, quick=True)
        if not found.faces:
            return None
        self._wait, self._pause = SEARCH_AFTER[0], SEARCH_AFTER[0]
        self._shot += 1
        face = choose_face(found, "largest")
        self._anchor = Mesh(face.mesh)
        return view_of(frame, face, self._shot)

    def _step(self, frame: Picture, last: FaceView) -> FaceView | None:
        # one crop as long as the face is about there: a still face has still points in it
        mesh = follow_mesh(frame, self._anchor)
        if np.linalg.norm(mesh.eyes - self._anchor.eyes) > STRAY * mesh.iod:
            mesh = self._anchor = follow_mesh(frame, mesh)
        if mesh.flag < SURE_FLAG or mesh.iod < LEAST_IOD:
            return None
        view = view_of(frame, FaceLandmarks(mesh.points), last.shot)
        same = correlation(last.crop[part(*RIGID)], view.crop[part(*RIGID)]) >= LEAST_ALIKE
        return view if same else None


def view_of(frame: Picture, face: FaceLandmarks, shot: int) -> FaceView:
    """A face of a frame (H, W, 3) as it is looked at."""
    head = head_points(face.mesh)
    gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
    return FaceView(face, head, warp(gray, align(head[:2], UNIT, ORIGIN), SIZE), shot)


def loudness(wave: Wave, num_frames: int, lead: float = 0.0) -> Curve:
    """Loudness (T,) of a 16 kHz wave at 25 fps: fourth root of the power of the speech band.

    lead: frames by which row k is later than the middle of frame k.
    """
    hop = SAMPLE_RATE // FPS
    start = round((0.5 + lead) * hop) - WINDOW // 2
    padded = np.zeros(num_frames * hop + WINDOW, np.float32)
    source = wave[max(0, start) : max(0, start + len(padded))]
    offset = max(0, -start)
    padded[offset : offset + len(source)] = source[: len(padded) - offset]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop][:num_frames]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), axis=1)) ** 2
    band = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    inside = (band >= BAND_HZ[0]) & (band < BAND_HZ[1])
    return np.asarray(power[:, inside].sum(axis=1) ** 0.25, np.float64)


def audio_mouth_lag(openness: Curve, wave: Wave) -> tuple[int, float]:
    """Frames by which the mouth (T,) at 25 fps is late against the sound, and their correlation.

    A positive lag is a late mouth (an early sound), a negative one a late sound; within 15 frames.
    The correlation is that at the lag, the largest; 0 where either never changes.
    """
    lags, fits = audio_mouth_fits(openness, wave)
    best = int(fits.argmax())
    return (int(lags[best]), float(fits[best])) if fits[best] > 0 else (0, 0.0)


def audio_mouth_fits(openness: Curve, wave: Wave) -> tuple[NDArray[np.int_], Curve]:
    """Lags (K,) of the mouth (T,) against a 16 kHz wave in frames, and the correlation at each.

    Frames without a face (nan) are bridged. All is 0 within a second, without a face, and where the
    mouth does not move by more than its measure trembles.
    """
    num_frames = len(openness)
    reach = min(MAX_LAG, num_frames // 3)
    lags = np.arange(-reach, reach + 1)
    known = np.isfinite(openness)
    if num_frames < FPS or not known.any():
        return lags, np.zeros(len(lags))
    frames = np.arange(num_frames)
    mouth = without_drift(np.interp(frames, frames[known], openness[known]))
    if mouth.std() < LEAST_MOVEMENT:
        return lags, np.zeros(len(lags))
    sound = without_drift(loudness(wave, num_frames, LEAD_FRAMES))
    fits = [
        correlation(
            mouth[max(0, k) : num_frames + min(0, k)], sound[max(0, -k) : num_frames - max(0, k)]
        )
        for k in lags.tolist()
    ]
    return lags, np.array(fits)


def without_drift(curve: Curve) -> Curve:
    """A curve (T,) less its moving mean: pose and pauses are slow, syllables are not."""
    half = min(SLOW, len(curve)) // 2
    padded = np.pad(curve, half, mode="reflect")
    return np.asarray(
        curve - np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), "valid")
    )


def correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Pearson's, of arrays of one shape; 0 where one is constant."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 1e-9 else 0.0
