"""A video as motion: what is seen of one face in it, as a recording that drives a portrait."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli import media
from moda_cli.config import FPS
from moda_cli.control.recordings import evened, rebased
from moda_cli.errors import InputError
from moda_cli.face.crops import crop_image, crop_square, halve, smooth_crops
from moda_cli.face.extractors import Extractors
from moda_cli.face.kept import motion_once
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh_motion import (
    MEASURES,
    Measures,
    measure_face,
    mesh_motion,
    rest_measures,
    rest_motion,
)
from moda_cli.face.track import FaceTracker
from moda_cli.files import check_is_file
from moda_cli.motion import MOTION_DIM, POSE, Recording, load_motion

log = logging.getLogger(__name__)

OnWatched = Callable[[int, int | None], None]  # (frames looked at, of how many)
Frames = NDArray[np.int_]

BATCH = 16  # crops that the motion extractor sees at once
BRIDGED_S = 0.2  # without the face for so long, and it moves on between what was seen
SHORTEST_S = 0.5  # that a face must be seen
EASE_S = 0.4  # from motion to rest and back, where the face has gone
CUT_EASE_S = 0.2  # from one shot's motion to the next one's
SMOOTH_S, POSE_SMOOTH_S = 0.03, 0.06  # deviations: points tremble, and a head is heavy
SAID_S = 0.5  # without the face from which it is said
HINT = "use a video that shows one face, upright and lit, at least 20 pixels between the eyes"


@dataclass(frozen=True, slots=True)
class Looks:
    """With what videos are looked at: LivePortrait's networks where they are there, or the mesh.

    seen_before: the folder that keeps what was seen.
    """

    landmarks: LandmarkNetwork | None
    extractors: Extractors | None
    seen_before: Path

    def recording(self, path: Path, on_watched: OnWatched = lambda *_: None) -> Recording:
        """What a motion file or a template holds, or is seen in a video, at 25 fps.

        Of a video it is relative to the most neutral frames of each shot. Stretches without the
        face are warned of. Raises InputError for what cannot be read, and for a video without a
        face.
        """
        if not media.is_video(path):
            return load_motion(path)
        check_is_file(path)
        watch = partial(self._watch, path, on_watched)
        entry = motion_once(path, self.extractors, watch, self.seen_before)
        for start, stop in (entry["away"].double() / FPS).tolist():
            if stop - start >= SAID_S:
                when = f"from {start:.1f} to {stop:.1f} s"
                log.warning("%s shows no face %s: the motion rests meanwhile", path, when)
        return Recording(entry["motion"], entry["neutral"], gaze=entry.get("gaze"))

    def _watch(self, path: Path, on_watched: OnWatched) -> dict[str, Tensor]:
        """A recording's tensors, and the frames `away` (n, 2) between which there is no face."""
        seen = watch(path, self.landmarks if self.extractors else None, on_watched)
        if self.extractors is None:
            offsets, neutral = by_mesh(seen)
        else:
            offsets, neutral = by_extractor(path, seen, self.extractors, on_watched)
        offsets, person = at_25_fps(offsets, seen)
        rows = eased(smoothed(offsets, person), person)
        entry = {"motion": rows[:, :MOTION_DIM] + neutral, "neutral": neutral}
        if rows.shape[1] > MOTION_DIM:
            entry["gaze"] = rows[:, MOTION_DIM:].clamp(-1, 1)
        away = [[start, stop] for start, stop, who in runs(person) if who < 0]
        return {**entry, "away": torch.tensor(away, dtype=torch.int64).reshape(-1, 2)}


def check_recording(path: Path) -> None:
    """Raises InputError for what is neither a motion file nor a video; no face is looked for."""
    if media.is_video(path):
        media.probe_video(path)
    else:
        load_motion(path)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a video shows of the followed face.

    seconds: (F,) when each frame is shown. person: (F,) who it is, -1 nobody. measures: (F, 18),
    see `face.mesh_motion`. crops: (F, 3) LivePortrait's, as `crop_square` has them, where they are
    asked for. What is nobody's is 0.
    """

    seconds: NDArray[np.float64]
    person: Frames
    measures: Measures
    crops: NDArray[np.float64]

    @property
    def frame_s(self) -> float:
        """How long a frame is shown as a rule."""
        return float(np.median(np.diff(self.seconds))) if len(self.seconds) > 1 else 1 / FPS


def watch(path: Path, landmarks: LandmarkNetwork | None, on_watched: OnWatched) -> Seen:
    """Follow the face through a video; landmarks: of LivePortrait's crop, where it is asked for.

    Raises InputError for a video that cannot be read or shows no face.
    """
    info = media.probe_video(path)
    expected = round(info.duration_s * min(info.fps, 1 / media.LEAST_APART_S)) or None
    tracker = FaceTracker()
    seconds, person, measures, crops = [], [], [], []
    for frame, at in media.read_stamped(path):
        sight = tracker.look(frame)
        seconds.append(at)
        person.append(sight.person if sight else -1)
        measures.append(measure_face(sight.mesh.points) if sight else np.zeros(len(MEASURES)))
        if landmarks:
            face = FaceLandmarks(sight.mesh.points) if sight else None
            crops.append(crop_square(landmarks.cloud(frame, face)) if face else (0.0, 0.0, 1.0))
        on_watched(len(seconds), expected)
    if tracker.most_faces > 1:
        how = "the one that is largest where a shot begins is followed"
        log.info("%s shows %d faces: %s", path, tracker.most_faces, how)
    seen = Seen(*map(np.array, (seconds, person, measures, crops)))
    people, counts = np.unique(seen.person[seen.person >= 0], return_counts=True)
    if not len(people):
        raise InputError(f"no face found in {path}", hint=HINT)
    least = min(SHORTEST_S / seen.frame_s, int(counts.max()))
    for who in people[counts < least]:  # who only flits by
        seen.person[seen.person == who] = -1
    return seen


def by_mesh(seen: Seen) -> tuple[Tensor, Tensor]:
    """Motion and gaze (F, 72) off the neutral (70) that the mesh's measures say."""
    neutral = rest_motion()
    offsets = torch.zeros(len(seen.seconds), MOTION_DIM + 2)
    for who in np.unique(seen.person[seen.person >= 0]):
        own = seen.person == who
        _, rest = rest_measures(seen.measures[own])
        motion, gaze = mesh_motion(seen.measures[own], rest)
        offsets[torch.from_numpy(own)] = torch.cat((motion - neutral, gaze), dim=1)
    return offsets, neutral


def by_extractor(
    path: Path, seen: Seen, extractors: Extractors, on_watched: OnWatched
) -> tuple[Tensor, Tensor]:
    """Motion (F, 70) off the neutral (70) that LivePortrait's M says.

    The video is decoded again, now that its crops can be smoothed. Each person's motion is moved
    onto the neutral of whoever is seen longest. Raises InputError as `watch`.
    """
    known = np.flatnonzero(seen.person >= 0)
    people, counts = np.unique(seen.person[known], return_counts=True)
    to_crop = np.zeros((len(seen.person), 2, 3))
    for who in people:
        own = seen.person == who
        to_crop[own] = smooth_crops(seen.crops[own])
    crops = (
        halve(crop_image(frame, to_crop[number]))
        for number, (frame, _) in enumerate(media.read_stamped(path))
        if seen.person[number] >= 0
    )
    rows: list[Tensor] = []
    while batch := list(islice(crops, BATCH)):
        rows += extractors.motions(np.stack(batch))[0]
        on_watched(len(rows), len(known))
    motion = torch.zeros(len(seen.person), MOTION_DIM)
    motion[torch.from_numpy(known)] = torch.stack(rows)
    offsets, neutral = torch.zeros_like(motion), None
    for who in people[np.argsort(-counts)]:
        own = seen.person == who
        frames, _ = rest_measures(seen.measures[own])
        theirs = motion[torch.from_numpy(own)]
        rest = theirs[frames].mean(dim=0)
        neutral = rest if neutral is None else neutral
        offsets[torch.from_numpy(own)] = rebased(theirs, rest, neutral) - neutral
    assert neutral is not None  # somebody was seen
    return offsets, neutral


def at_25_fps(offsets: Tensor, seen: Seen) -> tuple[Tensor, Frames]:
    """Offsets (T, n) at 25 fps of those in a video's frames (F, n), and whose they are (T,).

    Between two frames of one person they are interpolated, unless the face was away for longer in
    between; else a frame counts as long as it is shown.
    """
    known = np.flatnonzero(seen.person >= 0)
    at, who = seen.seconds[known], seen.person[known]
    ends = seen.seconds[-1] + seen.frame_s
    moments = np.arange(max(1, int(np.ceil(round(ends * FPS, 1))))) / FPS
    right = np.searchsorted(at, moments + 1e-6)
    left, right = np.maximum(right - 1, 0), np.minimum(right, len(at) - 1)
    adjoin = (known[right] - known[left] <= 1) | (at[right] - at[left] <= BRIDGED_S + 1e-6)
    between = adjoin & (who[left] == who[right]) & (moments >= at[left] - 1e-6) & (right > left)
    span = np.maximum(at[right] - at[left], 1e-9)
    share = np.where(between, (moments - at[left]) / span, 0).clip(0, 1)
    there = between | (np.abs(moments + 1e-6 - at[left] - seen.frame_s / 2) <= seen.frame_s / 2)
    low, high = offsets[torch.from_numpy(known[left])], offsets[torch.from_numpy(known[right])]
    made = torch.lerp(low, high, torch.from_numpy(share).to(offsets)[:, None])
    person = np.where(there, who[left], -1)
    return torch.where(torch.from_numpy(there)[:, None], made, 0), person


def runs(person: Frames) -> list[tuple[int, int, int]]:
    """(start, stop, who) of consecutive frames (T,) of one person."""
    found, start = [], 0
    for who, members in groupby(person.tolist()):
        stop = start + len(list(members))
        found.append((start, stop, int(who)))
        start = stop
    return found


def smoothed(offsets: Tensor, person: Frames) -> Tensor:
    """Offsets (T, n) evened out within each shot, without lag."""
    made = offsets.clone()
    for start, stop, who in runs(person):
        if who >= 0:
            made[start:stop] = evened(offsets[start:stop], SMOOTH_S)
            made[start:stop, POSE] = evened(offsets[start:stop, POSE], POSE_SMOOTH_S)
    return made


def eased(offsets: Tensor, person: Frames) -> Tensor:
    """Offsets (T, n) that go to rest, 0, and back where nobody is seen, and do not jump at cuts."""
    made = offsets.clone()
    found = runs(person)
    for (start, stop, who), (_, _, before) in zip(found[1:], found[:-1], strict=True):
        if who >= 0 and before >= 0:
            length = min(round(CUT_EASE_S * FPS), stop - start)
            jump = made[start - 1] - made[start]
            made[start : start + length] += _falling(length)[:, None] * jump
    for start, stop, who in found:
        if who < 0:
            sides = (start > 0) + (stop < len(made))
            length = min(round(EASE_S * FPS), (stop - start) // max(sides, 1))
            if start > 0:
                made[start : start + length] = _falling(length)[:, None] * made[start - 1]
            if stop < len(made):
                made[stop - length : stop] = _falling(length).flip(0)[:, None] * made[stop]
    return made


def _falling(length: int) -> Tensor:
    """From just under 1 to just over 0 in so many frames (n,)."""
    x = (torch.arange(length) + 1) / (length + 1)
    return 1 - x * x * (3 - 2 * x)
