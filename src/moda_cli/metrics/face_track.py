"""One person's face followed through a clip, and the steady square crops SyncNet looks at.

Follows the pipeline of SyncNet's released code (joonson/syncnet_python), but for where a shot ends:
that is `media.cuts`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import InputError

MIN_TRACK = 50  # detections; the release's 100 would drop every clip of up to 4 s
MIN_FACE_PX = 100
MIN_IOU = 0.5  # of a face with its track's last box
MAX_GAP = 25  # frames between two detections of a track
SMOOTHING = 13  # frames of the median over a track's boxes
CROP_SCALE = 0.4  # margin around a face: its crop is 2 (1 + 0.4) half-sizes wide
GREY = (110, 110, 110)  # beyond the frame
CROP_PX = 224


def median_filter(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Running median of (n,) over an odd window; beyond the ends there are zeros, as in SciPy."""
    padded = np.pad(values, window // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)


@dataclass(frozen=True, slots=True)
class Track:
    """A face in consecutive frames."""

    start: int  # its first frame
    boxes: NDArray[np.float64]  # (n, 4) x1, y1, x2, y2 in pixels, gaps filled
    num_detections: int

    @property
    def size(self) -> float:
        """Mean width or height in pixels, the larger."""
        return float((self.boxes[:, 2:] - self.boxes[:, :2]).mean(axis=0).max())


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Shared over joint area of two boxes (4,)."""
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def link_tracks(detections: Sequence[NDArray[np.float64]], shots: Sequence[int]) -> list[Track]:
    """Boxes (n, 4) of each frame, best first, and each frame's shot, to tracks by first frame.

    Greedy: the oldest track takes its face first, and a face that none takes begins a track.
    """
    chains: list[list[tuple[int, NDArray[np.float64]]]] = []
    for frame, boxes in enumerate(detections):
        unused = list(boxes)
        for chain in chains:
            last, box = chain[-1]
            if frame - last > MAX_GAP or shots[frame] != shots[last]:
                continue
            for i, candidate in enumerate(unused):
                if iou(candidate, box) > MIN_IOU:
                    chain.append((frame, unused.pop(i)))
                    break
        chains += [[(frame, box)] for box in unused]
    return [fill_gaps(chain) for chain in chains]


def fill_gaps(chain: Sequence[tuple[int, NDArray[np.float64]]]) -> Track:
    """Linear between detections, coordinate by coordinate."""
    frames = np.array([frame for frame, _ in chain])
    boxes = np.stack([box for _, box in chain])
    every = np.arange(frames[0], frames[-1] + 1)
    filled = [np.interp(every, frames, coordinate) for coordinate in boxes.T]
    return Track(int(frames[0]), np.stack(filled, axis=1), len(chain))


def longest_track(
    tracks: Sequence[Track], min_track: int = MIN_TRACK, min_size: float = MIN_FACE_PX
) -> Track:
    """The track to score. Raises InputError that says why there is none."""
    if not tracks:
        raise InputError("no face found")
    long = [track for track in tracks if track.num_detections > min_track]
    if not long:
        most = max(track.num_detections for track in tracks)
        raise InputError(f"a face is followed for {most} frames only, {min_track + 1} are needed")
    large = [track for track in long if track.size > min_size]
    if not large:
        size = max(track.size for track in long)
        raise InputError(
            f"the face is {size:.0f} pixels large, more than {min_size:.0f} are needed",
            hint="give the clip at a higher resolution",
        )
    return max(large, key=lambda track: len(track.boxes))


def steady_squares(track: Track) -> NDArray[np.float64]:
    """(n, 3) smoothed centre x, centre y and half-size of the face in pixels."""
    low, high = track.boxes[:, :2], track.boxes[:, 2:]
    half = (high - low).max(axis=1) / 2
    raw = np.column_stack(((low + high) / 2, half))
    return np.stack([median_filter(values, SMOOTHING) for values in raw.T], axis=1)


def crop_face(frame: NDArray[np.uint8], x: float, y: float, half: float) -> NDArray[np.uint8]:
    """(224, 224, 3) around a face, lower than centred so that the chin is in; grey outside."""
    pad = int(half * (1 + 2 * CROP_SCALE))
    padded = cv2.copyMakeBorder(frame, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=GREY)
    x, y, reach = x + pad, y + pad, half * (1 + CROP_SCALE)
    rows = slice(max(0, int(y - half)), int(y + half * (1 + 2 * CROP_SCALE)))
    columns = slice(max(0, int(x - reach)), int(x + reach))
    return np.asarray(cv2.resize(padded[rows, columns], (CROP_PX, CROP_PX)), np.uint8)


def face_crops(frames: Iterable[NDArray[np.uint8]], track: Track) -> Iterator[NDArray[np.uint8]]:
    """Crops of the track's frames, from the clip's frames (H, W, 3)."""
    squares = steady_squares(track)
    for number, frame in enumerate(frames):
        if track.start <= number < track.start + len(squares):
            yield crop_face(frame, *squares[number - track.start])
