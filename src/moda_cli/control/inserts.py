"""Recorded motion that is laid over a clip's own."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from moda_cli.config import FPS, PARTS
from moda_cli.control.recordings import blend, rebased
from moda_cli.control.timeline import Entry, Timeline
from moda_cli.motion import Recording, interpolate


@dataclass(frozen=True, slots=True, eq=False)
class Insert:
    """A recording from a moment on, some parts and some share of it, so many times as fast."""

    file: Path
    at: float  # seconds
    speed: float
    share: float
    parts: tuple[str, ...]
    recording: Recording | None = None  # None: a video that is yet to be looked at

    @property
    def lasts(self) -> float:
        """Seconds until it is over."""
        return len(self._known.motion) / FPS / self.speed

    def into(self, motion: Tensor, neutral: Tensor, seconds: Tensor, rules: Tensor) -> Tensor:
        """Motion (n, 70) with its part of this one, as far as this rules (n,) at `seconds` (n,)."""
        own = self._known
        there = rebased(interpolate(own.motion, self._position(seconds)), own.neutral, neutral)
        share = (self.share * rules).to(motion)
        return blend(motion, there.to(motion), neutral, dict.fromkeys(self.parts, share))

    def into_gaze(self, gaze: Tensor, seconds: Tensor, rules: Tensor) -> Tensor:
        """The same of where the eyes look (n, 2)."""
        if "gaze" not in self.parts:
            return gaze
        looks = self._known.gaze
        there = interpolate(torch.zeros(1, 2) if looks is None else looks, self._position(seconds))
        return torch.lerp(gaze, there.to(gaze), (self.share * rules).to(gaze)[:, None])

    @property
    def _known(self) -> Recording:
        assert self.recording is not None, f"{self.file} has not been looked at"
        return self.recording

    def _position(self, seconds: Tensor) -> Tensor:
        return ((seconds - self.at) * self.speed * FPS).clamp(min=0)


def taken(file: Path, recording: Recording, parts: tuple[str, ...]) -> Timeline:
    """A timeline that takes parts of a recording from the beginning on.

    Some of them end with it; all of them are the whole clip, and hold what they end with.
    """
    insert = Insert(file, 0.0, 1.0, 1.0, parts, recording)
    until = math.inf if parts == PARTS else insert.lasts
    return Timeline.of([Entry(0.0, {"motion": insert}, str(file), until)])


def look_at_videos(timeline: Timeline, load: Callable[[Path], Recording]) -> Timeline:
    """The timeline with what is seen in the videos that it names.

    Raises InputError as `load` does.
    """
    entries = []
    for entry in timeline.entries:
        insert = entry.values.get("motion")
        if insert is not None and insert.recording is None:
            insert = replace(insert, recording=load(insert.file))
            until = min(entry.until, entry.at + insert.lasts)
            entry = replace(entry, values={**entry.values, "motion": insert}, until=until)
        entries.append(entry)
    return replace(timeline, entries=tuple(entries))


def laid_over(pieces: Iterable[Tensor], timeline: Timeline, neutral: Tensor) -> Iterator[Tensor]:
    """Consecutive motion (n, 70) that leaves a neutral (70), with what a timeline lays over it."""
    start = 0
    for motion in pieces:
        seconds = torch.arange(start, start + len(motion)).double() / FPS
        start += len(motion)
        for insert, rules in _ruling(timeline, seconds):
            motion = insert.into(motion, neutral, seconds, rules)
        yield motion


def gaze_laid_over(gaze: Tensor, timeline: Timeline, seconds: Tensor) -> Tensor:
    """Where the eyes look (n, 2) at `seconds` (n,), with what a timeline lays over it."""
    for insert, rules in _ruling(timeline, seconds):
        gaze = insert.into_gaze(gaze, seconds, rules)
    return gaze


def _ruling(timeline: Timeline, seconds: Tensor) -> Iterator[tuple[Insert, Tensor]]:
    if timeline.asking("motion"):
        for insert, rules in timeline.shares("motion", seconds, None).items():
            if insert is not None:
                yield insert, rules
