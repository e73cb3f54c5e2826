"""The mouth of any talking head without downloaded weights: how far it opens, and with the sound?

The face is found in one frame and followed by its brows, eyes and nose into a steady crop. There
optical flow says how far lower lip and chin have gone down since that frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.face.crops import align
from moda_cli.face.detect import LIP_MIDDLES, FaceDetector
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave

Gray = NDArray[np.uint8]
Curve = NDArray[np.float64]  # (T,)

UNIT = 64  # pixels per IOD of the steady crop
ORIGIN = (1.2, 0.8)  # IOD from its left and top edges to the middle of the pupils
SIZE = (round(2 * ORIGIN[0] * UNIT), round((ORIGIN[1] + 2.1) * UNIT))  # width, height
RIGID = (-0.95, 0.95), (-0.6, 0.75)  # x and y in IOD of what does not move with the jaw
STILL = (-0.25, 0.25), (0.3, 0.7)  # the nose, against which the jaw is measured
JAW = (-0.25, 0.25), (0.08, 0.6)  # lower lip and chin, from the middle of the mouth

CORNERS, LEAST_CORNERS = 80, 6  # points followed
AGREE_PX, FADE_PX = 1.5, 0.7  # of the steady crop: a point agrees, and counts half
LEAST_AGREEING = 0.15  # of them, and
LEAST_ALIKE = 0.5  # correlation with the reference, or the face is lost
GOOD_AGREEING, GOOD_ALIKE = 0.5, 0.75  # below these the present crop becomes the reference
SEARCH_AFTER = 12, 100  # frames from a search in vain to the next, doubled up to the second

BAND_HZ = (200.0, 6000.0)
WINDOW = 1920  # samples
LEAD_FRAMES = 0.75  # mouths open before they are heard: 30 ms in phone-timed speech
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
    """The face of one frame in a crop where it stands still."""

    crop: Gray  # of SIZE
    in_crop: FaceLandmarks
    face: FaceLandmarks  # in the frame: as it was found, moved along
    shot: int  # how often a face had been found anew


class FaceFollower:
    """Follows the largest face of consecutive frames; looks for it again where it is lost."""

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self.detector = detector
        self._wait, self._pause = 0, SEARCH_AFTER[0]
        self._shot = -1
        self._view: FaceView | None = None

    def look(self, frame: Picture) -> FaceView | None:
        """The next frame (H, W, 3); None where no face is."""
        self._wait -= 1
        if self._view is not None:
            small = shrunk(frame, self._scale)
            view = self._step(small, self._view)
            if view is None:  # too unlike the reference, but perhaps not unlike the last frame
                self._refer_to(self._view.crop)
                view = self._step(small, self._view)
            self._view = view
        if self._view is None and self._wait < 0:
            self._view = self._search(frame)
        return self._view

    def _search(self, frame: Picture) -> FaceView | None:
        self._wait, self._pause = self._pause, min(2 * self._pause, SEARCH_AFTER[1])
        found = find_faces(frame, self.detector)
        if not found.faces:
            return None
        self._wait, self._pause = SEARCH_AFTER[0], SEARCH_AFTER[0]
        face = choose_face(found, "largest")
        self._shot += 1
        self._scale = min(1.0, 1.25 * UNIT / face.iod)
        in_small = face.moved(shrinking(self._scale))
        self._to_crop = align(in_small.pupils, UNIT, ORIGIN)
        in_crop = in_small.moved(self._to_crop)
        crop = steady(shrunk(frame, self._scale), self._to_crop)
        return FaceView(crop, in_crop, face, self._shot) if self._refer_to(crop) else None

    def _refer_to(self, crop: Gray) -> bool:
        """Follow from this crop on. False if it has nothing to follow."""
        mask = np.zeros_like(crop)
        mask[part(*RIGID)] = 255
        corners = cv2.goodFeaturesToTrack(crop, CORNERS, 0.01, 5, mask=mask)
        self._reference = crop
        self._corners = np.zeros((0, 1, 2), np.float32) if corners is None else corners
        return len(self._corners) >= LEAST_CORNERS

    def _step(self, small: Gray, last: FaceView) -> FaceView | None:
        to_crop = self._to_crop
        if len(self._corners) < LEAST_CORNERS:
            return None
        for _ in range(3):
            crop = steady(small, to_crop)
            moved, ok, _ = cv2.calcOpticalFlowPyrLK(
                self._reference, crop, self._corners, self._corners.copy(), winSize=(13, 13)
            )
            kept = ok[:, 0] > 0
            if kept.sum() < LEAST_CORNERS:
                return None
            change, agreeing = fit_similarity(self._corners[kept, 0], moved[kept, 0])
            if agreeing * kept.mean() < LEAST_AGREEING:
                return None
            back = inverse(change)
            to_crop = np.column_stack((back[:, :2] @ to_crop[:, :2], apply(back, to_crop[:, 2])))
            if abs(change - np.eye(2, 3)).max() < 1:
                break
        crop = steady(small, to_crop)
        alike = correlation(self._reference[part(*RIGID)], crop[part(*RIGID)])
        if alike < LEAST_ALIKE:
            return None
        if agreeing * kept.mean() < GOOD_AGREEING or alike < GOOD_ALIKE:
            self._refer_to(crop)
        self._to_crop = to_crop
        in_small = last.in_crop.moved(inverse(to_crop))
        face = in_small.moved(inverse(shrinking(self._scale)))
        return FaceView(crop, last.in_crop, face, last.shot)


def shrunk(frame: Picture, scale: float) -> Gray:
    """The grey frame on a grid that stays, so that shrinking does not make a still face tremble."""
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if scale == 1:
        return np.asarray(gray, np.uint8)
    size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


def shrinking(scale: float) -> Points:
    """The (2, 3) map of a frame's pixels to the shrunk frame's."""
    return np.column_stack((scale * np.eye(2), np.full(2, (scale - 1) / 2)))


def steady(small: Gray, to_crop: Points) -> Gray:
    """The crop of SIZE of a shrunk frame (h, w)."""
    crop = cv2.warpAffine(small, to_crop, SIZE, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def apply(affine: Points, points: NDArray[np.floating]) -> Points:
    """Points (..., 2) after a (2, 3) affine map."""
    return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float64)


def inverse(affine: Points) -> Points:
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def fit_similarity(
    source: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[Points, float]:
    """The (2, 3) similarity of most points (n, 2) to others, and the share that agrees with it.

    RANSAC alone jumps as points come and go at its threshold; Cauchy weights let them fade.
    """
    start, _ = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=AGREE_PX
    )
    if start is None:
        return np.eye(2, 3), 0.0
    affine = np.asarray(start, np.float64)
    a, b = (points[:, 0] + 1j * points[:, 1].astype(np.complex128) for points in (source, target))
    for _ in range(8):
        off = np.linalg.norm(apply(affine, source) - target, axis=1)
        weight = 1 / (1 + (off / FADE_PX) ** 2)
        middle_a, middle_b = (np.average(points, weights=weight) for points in (a, b))
        turn = np.sum(weight * np.conj(a - middle_a) * (b - middle_b))
        turn /= max(float(np.sum(weight * abs(a - middle_a) ** 2)), 1e-9)
        shift = middle_b - turn * middle_a
        affine = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return affine, float((off < AGREE_PX).mean())


class MouthTracker:
    """How far the mouth of consecutive views is open, in IOD.

    Without a detector from how far the jaw is below its place in the shot's first view; with one
    the gap between the inner lips.
    """

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self.detector = detector
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._shots: list[int] = []
        self._values: list[float] = []

    def add(self, frame: Picture, view: FaceView | None) -> None:
        """The next frame (H, W, 3) and its view."""
        self._values.append(np.nan if view is None else self._opening(frame, view))
        self._shots.append(-1 if view is None else view.shot)

    def _opening(self, frame: Picture, view: FaceView) -> float:
        if self.detector is not None:
            face = self.detector.measured(frame, view.face)
            assert face.cloud is not None
            upper, lower = face.cloud[LIP_MIDDLES]
            return float(np.linalg.norm(lower - upper)) / face.iod
        if view.shot not in self._shots:
            self._reference, self._last = view.crop, np.zeros((*view.crop.shape, 2), np.float32)
            x, y = (view.in_crop.mouth / UNIT - ORIGIN).tolist()
            self._jaw = part((x + JAW[0][0], x + JAW[0][1]), (y + JAW[1][0], y + JAW[1][1]))
        self._last = np.asarray(self._flow.calc(self._reference, view.crop, self._last))
        down = self._last[..., 1]
        return float(np.median(down[self._jaw]) - np.median(down[part(*STILL)])) / UNIT

    def openness(self) -> Curve:
        """Of the frames so far (T,): 0 is closed, nan where there was no face.

        The jaw's place in a shot's first view says nothing of the mouth, so without a detector
        closed is taken to be the shot's fifth percentile.
        """
        values, shots = np.array(self._values), np.array(self._shots)
        for shot in set(self._shots) - {-1} if self.detector is None else ():
            values[shots == shot] -= np.percentile(values[shots == shot], 5)
        return values


def speech_level(wave: Wave, num_frames: int, lead: float = 0.0) -> Curve:
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

    Frames without a face (nan) are bridged. All is 0 within a second or without a face.
    """
    num_frames = len(openness)
    reach = min(MAX_LAG, num_frames // 3)
    lags = np.arange(-reach, reach + 1)
    known = np.isfinite(openness)
    if num_frames < FPS or not known.any():
        return lags, np.zeros(len(lags))
    frames = np.arange(num_frames)
    mouth = without_drift(np.interp(frames, frames[known], openness[known]))
    sound = without_drift(speech_level(wave, num_frames, LEAD_FRAMES))
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
