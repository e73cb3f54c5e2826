"""Whether a talking head holds still where it should: jitter, flicker, drift, silence."""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.metrics.mouth import RIGID, Curve, FaceView, loudness, part

Plane = NDArray[np.float32]
T = TypeVar("T")

SMALL_SIDE = 96  # pixels of the shorter side of the picture that flicker is measured on
HEAD = (0.0, 0.35), (1.35, 1.75)  # middle and half axes in IOD of the ellipse around a head
LEAST_OUTSIDE = 0.05  # of the picture, for a flicker outside the head
CELL, BINS = 12, 8  # pixels, and directions of edges
DRIFT_EVERY = 5  # frames between the pictures sharpness and structure are measured on
LEAST_DRIFT = 10  # such pictures
REPEATED = 0.1  # of the usual change between frames: less is the same frame shown again
SILENT_LEVEL = 0.18  # of the level of loud speech: the power is 30 dB below
QUIET = 1.0  # level of a hiss 60 dB below full scale; a wave below it is silent throughout
SILENT_MARGIN = 5  # frames beside speech in which a mouth may move
LEAST_SILENCE = 10  # frames


@dataclass(frozen=True, slots=True)
class Stability:
    """Of a clip's pictures; None where it could not be measured."""

    jitter: float | None
    flicker: float | None
    repeated: float | None
    sharpness: float | None
    sharpness_drift: float | None
    structure_drift: float | None


class StabilityMeter:
    """Measures frame by frame, keeping numbers and two small pictures."""

    def __init__(self) -> None:
        self._small: list[Plane] = []  # the last three
        self._points: list[Points] = []  # (3, 2) in IOD of the shot's first face
        self._shots: list[int] = []
        self._changes: list[float] = []
        self._flickers: list[float] = []
        self._sharp: list[tuple[int, float]] = []  # shot, value
        self._structures: list[tuple[int, Plane]] = []
        self._iod = 1.0

    def add(self, frame: Picture, view: FaceView | None) -> None:
        """The next frame (H, W, 3) and its view."""
        gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32)
        scale = min(1.0, SMALL_SIDE / min(gray.shape))
        small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._small = [*self._small[-2:], np.asarray(small, np.float32)]
        if len(self._small) > 1:
            self._changes.append(float(np.abs(self._small[-1] - self._small[-2]).mean()))
        if view is not None:
            self._add_face(gray, view, scale)
        self._shots.append(-1 if view is None else view.shot)

    def _add_face(self, gray: Plane, view: FaceView, scale: float) -> None:
        if view.shot not in self._shots:
            self._iod = float(np.linalg.norm(view.head[1] - view.head[0]))
        self._points.append(view.head / self._iod)
        if len(self._shots) % DRIFT_EVERY == 0:
            self._sharp.append((view.shot, sharpness(gray, view.face)))
            self._structures.append((view.shot, structure(view)))
        if len(self._small) == 3:
            before, now, after = self._small
            outside = ~head_mask(view.face, scale, now.shape)
            if outside.mean() >= LEAST_OUTSIDE:
                wobble = np.abs(now - (before + after) / 2)
                self._flickers.append(float(wobble[outside].mean()))

    def result(self) -> Stability:
        """The measures of the frames so far.

        jitter: mean length of the second difference of pupils and nose, IOD a frame squared.
        flicker: mean difference of a frame from the mean of its neighbours outside the head, in
        grey levels.
        repeated: share of frames that show the one before again.
        sharpness: of brows, eyes and nose, finest detail as a share of coarser; 0 is blurred.
        sharpness_drift: change of it from the first fifth to the last, as a share.
        structure_drift: how much less like the first fifth's faces the last is than the second.
        Drifts are those of the longest shot.
        """
        sharp = [value for value in longest_shot(self._sharp) if np.isfinite(value)]
        return Stability(
            jitter=self._jitter(),
            flicker=mean(self._flickers),
            repeated=repeated_share(np.array(self._changes)),
            sharpness=mean(sharp),
            sharpness_drift=sharpness_drift(sharp),
            structure_drift=structure_drift(longest_shot(self._structures)),
        )

    def _jitter(self) -> float | None:
        shots = np.array(self._shots)
        track = np.full((len(shots), 3, 2), np.nan)
        if self._points:
            track[shots >= 0] = self._points
        wobble = np.linalg.norm(np.diff(track, 2, axis=0), axis=-1)
        same = (shots[2:] == shots[1:-1]) & (shots[1:-1] == shots[:-2]) & (shots[2:] >= 0)
        return float(wobble[same].mean()) if same.any() else None


def mean(values: list[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def head_mask(face: FaceLandmarks, scale: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The ellipse around a head in a picture shrunk by `scale` to `shape`."""
    x, y = face.to_picture(np.array(HEAD[0])) * scale
    axis = face.pupils[1] - face.pupils[0]
    roll = float(np.degrees(np.arctan2(axis[1], axis[0])))
    across, down = (2 * half * face.iod * scale for half in HEAD[1])
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, ((float(x), float(y)), (across, down), roll), 1, -1)
    return mask > 0


def sharpness(gray: Plane, face: FaceLandmarks) -> float:
    """Finest detail of brows, eyes and nose in a frame (H, W) as a share of coarser, 0 to 1."""
    (x0, x1), (y0, y1) = RIGID
    corners = face.to_picture(np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]))
    left, top = np.clip(corners.min(axis=0), 0, None).astype(int)
    right, bottom = corners.max(axis=0).astype(int)
    region = gray[top:bottom, left:right]
    if min(region.shape) < 16:
        return float("nan")
    fine, coarse = (region - cv2.GaussianBlur(region, (0, 0), sigma) for sigma in (1.0, 4.0))
    return float(fine.std() / max(float(coarse.std()), 1e-3))


def structure(view: FaceView) -> Plane:
    """Edge directions of brows, eyes and nose in the steady crop, without light: (cells, 8).

    Histograms of cells, as in HOG: a small turn of the head moves edges within a cell.
    """
    crop = view.crop[part(*RIGID)].astype(np.float32)
    dx, dy = cv2.Sobel(crop, cv2.CV_32F, 1, 0), cv2.Sobel(crop, cv2.CV_32F, 0, 1)
    size = (crop.shape[1] // CELL, crop.shape[0] // CELL)
    direction = (np.arctan2(dy, dx) / np.pi * BINS).astype(int) % BINS
    strength = np.hypot(dx, dy)
    cells = [
        cv2.resize(strength * (direction == k), size, interpolation=cv2.INTER_AREA)
        for k in range(BINS)
    ]
    stacked = np.stack(cells, axis=-1).reshape(-1, BINS)
    return np.asarray(np.sqrt(stacked / (stacked.sum(axis=1, keepdims=True) + 8)), np.float32)


def longest_shot(values: list[tuple[int, T]]) -> list[T]:
    """The values of the shot with most of them, from (shot, value)."""
    shots = [shot for shot, _ in values]
    longest = max(set(shots), key=shots.count, default=-1)
    return [value for shot, value in values if shot == longest]


def sharpness_drift(sharp: list[float]) -> float | None:
    """Change from the median of the first fifth to that of the last, as a share of the first."""
    if len(sharp) < LEAST_DRIFT:
        return None
    fifth = len(sharp) // 5
    return float(np.median(sharp[-fifth:]) / np.median(sharp[:fifth])) - 1


def structure_drift(structures: list[Plane]) -> float | None:
    """How much better the second fifth is matched in the first than the last fifth is, 0 to 1.

    Each face is compared with the one most like it, so that a turned head is not a drift as long as
    it had turned before.
    """
    if len(structures) < LEAST_DRIFT:
        return None
    centred = [plane.ravel() - plane.mean() for plane in structures]
    rows = np.stack([row / max(float(np.linalg.norm(row)), 1e-9) for row in centred])
    fifth = len(rows) // 5
    best = (rows @ rows[:fifth].T).max(axis=1)
    return float(np.median(best[fifth : 2 * fifth]) - np.median(best[-fifth:]))


def repeated_share(changes: Curve) -> float | None:
    """Share of the changes between frames (T - 1,) that are far below those half a second around.

    A clip that stands still all along repeats nothing by this: it has no usual change.
    """
    if len(changes) < FPS:
        return None
    half = FPS // 2
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(changes, half, mode="reflect"), 2 * half + 1
    )
    return float((changes < REPEATED * np.percentile(around, 75, axis=1)).mean())


def loud_frames(wave: Wave, num_frames: int) -> NDArray[np.bool_]:
    """Frames (T,) at 25 fps in which something is said in a 16 kHz wave."""
    level = loudness(wave, num_frames)
    return np.asarray(level > max(SILENT_LEVEL * float(np.percentile(level, 95)), QUIET))


def silent_frames(wave: Wave, num_frames: int) -> NDArray[np.bool_]:
    """Frames (T,) at 25 fps well inside the silences of a 16 kHz wave."""
    loud = loud_frames(wave, num_frames)
    near = np.convolve(loud, np.ones(2 * SILENT_MARGIN + 1))[SILENT_MARGIN:][:num_frames] > 0
    return np.asarray(~near)


def silence_motion(openness: Curve, wave: Wave) -> float | None:
    """How much the mouth (T,) moves while nobody speaks: rms about each silence's median, IOD.

    None where there are fewer than 10 such frames.
    """
    silent = silent_frames(wave, len(openness)) & np.isfinite(openness)
    if silent.sum() < LEAST_SILENCE:
        return None
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent.astype(int), [0]))))
    pauses = [openness[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return float(np.sqrt(np.mean(np.concatenate([(p - np.median(p)) ** 2 for p in pauses]))))
