"""`moda generate --check`: whether a finished file holds what was asked of it.

The file is decoded as a player shows it, and its own sound is compared with the speech it was made
from and with its own picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.device import one_thread
from moda_cli.errors import InputError
from moda_cli.media import probe_video, read_video, read_video_sound
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.metrics.mouth import Curve, FaceView, correlation, loudness, part
from moda_cli.metrics.stability import loud_frames
from moda_cli.metrics.video import Measures, measure_video

Flags = NDArray[np.bool_]

MAX_LAG = 2  # frames between mouth and sound, and between what was drawn and what is there
SHORTEST_JUDGED = 3 * FPS  # frames; in fewer a good mouth correlates no better than a foreign one
ELSEWHERE = 0.1  # a lag that far counts where its correlation is so much higher: chance gives less
RATE_OFF = 0.01  # of the frame rate: 24000/1001 is written for 23.976

SOUND_BLOCK = 10 * SAMPLE_RATE  # samples that are compared at once: drift shows from block to block
SOUND_REACH = SAMPLE_RATE // 2  # samples that the sound is looked for around its place
SOUND_OFF = SAMPLES_PER_FRAME // 2  # samples; codecs that say their delay are within one
LEAST_LIKE = 0.5  # correlation of samples with the speech that was given
GONE = 0.3  # of the level: 21 dB of power less than it should be
LEAST_HOLE = 5  # frames

BLACK = 16  # grey level that 99 of 100 pixels of a black picture are below
LEAST_BLACK = 3  # frames
LEAST_SEEN = 0.9  # share of frames with a face
LONGEST_AWAY = FPS  # frames without one
LIPS = (-0.25, 0.25), (-0.12, 0.22)  # IOD from the middle of the mouth
LIPS_SIZE = (16, 12)
STILL = 3.0  # grey levels that lips change by in a clip; 16 to 33 where they speak
FROZEN = 0.5  # grey levels from frame to frame
LONGEST_FROZEN = FPS // 2  # frames
CHANGED = 99.7  # percentile of the pixels of small pictures whose change counts: noise is less
REPEATED = 0.3  # of the change of the frames around: less is coding noise on the same frame
MOST_REPEATED = 0.16  # share of such changes; 0.04 to 0.11 in speech, 0.22 or more in doubled clips
MOVING = 2.0  # grey levels of change around a frame that is missing; itself it changes by none

NEVER = "the mouth never moves, although something is said"

Verdict = Literal["passed", "failed", "silent"]


@dataclass(frozen=True, slots=True)
class Check:
    """What became of a clip."""

    verdict: Verdict  # silent: nothing is wrong, but nothing is said that a mouth could follow
    reason: str
    measures: Measures | None  # None of a file that cannot be decoded


def check_clip(
    path: Path, speech: Wave, num_frames: int, fps: float, min_sync: float, *, sounds: bool = True
) -> Check:
    """Check the file of a clip of `num_frames` drawn at `fps` for speech (N,) at 16 kHz.

    It must have as many frames at that rate, none black, frozen or doubled, with a face; if it
    `sounds`, the speech at its time; and lips that move with it, from 3 s on: a correlation of
    `min_sync` or more, and no clearly better one further than MAX_LAG frames away.
    """
    speech = speech[: max(1, round(num_frames / fps * SAMPLE_RATE))]
    try:
        info = probe_video(path)
        seen = Seen(fps)
        heard = read_video_sound(path) if info.has_sound else None
        frames = seen.passing(read_video(path, fps))
        wave = speech if heard is None else heard
        with one_thread(opencv=False):  # layers this small only lose time to more
            measures = measure_video(frames, wave, watch=seen.watch)
    except InputError as error:
        return Check("failed", str(error), None)
    said = loud_frames(speech, measures.num_frames)
    faults = []
    if heard is not None:
        faults.append(sound_fault(heard, speech))
    elif sounds:
        faults.append("there is no sound track")
    if abs(info.fps - fps) > RATE_OFF * fps:
        faults.append(f"the video plays {info.fps:g} frames a second, {fps:g} were asked for")
    if abs(seen.count - num_frames) > MAX_LAG:
        faults.append(f"{seen.count} frames are there, {num_frames} were drawn")
    faults.append(seen.fault(said))
    faults = [fault for fault in faults if fault] or [sync_fault(measures, min_sync)]
    if measures.sync is None and said.any() and measures.num_frames >= FPS and not any(faults):
        faults = [NEVER]
    if any(faults):
        return Check("failed", "; ".join(faults), measures)
    if not said.any():
        return Check("silent", "nothing is said, so the mouth has nothing to follow", measures)
    if measures.sync is None or measures.num_frames < SHORTEST_JUDGED:
        return Check("passed", "too short to compare mouth and sound", measures)
    return Check("passed", f"mouth and sound correlate by {measures.sync:.2f}", measures)


def sync_fault(measures: Measures, min_sync: float) -> str:
    """How mouth and sound are apart; nothing where that is not known."""
    sync, lag, fit = measures.sync, measures.lag, measures.lag_fit
    if sync is None or lag is None or fit is None or measures.num_frames < SHORTEST_JUDGED:
        return ""
    if abs(lag) > MAX_LAG and fit - sync > ELSEWHERE:
        return f"the mouth is {abs(lag)} frames {'late' if lag > 0 else 'early'}"
    if sync < min_sync:
        return f"mouth and sound correlate by {sync:.2f} < {min_sync:g}"
    return ""


def sound_fault(heard: Wave, speech: Wave) -> str:
    """How a decoded sound track (M,) differs from the speech (N,) it should be, both at 16 kHz."""
    count = -(-len(speech) // SAMPLES_PER_FRAME)
    speech = np.pad(speech, (0, count * SAMPLES_PER_FRAME - len(speech)))
    heard = np.pad(heard[: len(speech)], (0, max(0, len(speech) - len(heard))))
    said, sounding = loud_frames(speech, count), loud_frames(heard, count)
    if not said.any():
        return "there is sound where the speech is silent" if sounding.any() else ""
    if not sounding.any():
        return "the sound track is silent"
    gone = said & (loudness(heard, count) < GONE * loudness(speech, count))
    late, compared = 0, np.repeat(said & ~gone, SAMPLES_PER_FRAME)
    for start in range(0, len(speech), SOUND_BLOCK):
        block = slice(start, start + SOUND_BLOCK)
        if compared[block].sum() < LEAST_HOLE * SAMPLES_PER_FRAME:
            continue
        shift = lateness(heard[block], speech[block])
        late = max(late, shift, key=abs)
        there = np.roll(heard[block], -shift)[compared[block]]
        if correlation(there, speech[block][compared[block]]) < LEAST_LIKE:
            return f"the sound from {start / SAMPLE_RATE:g} s is not the speech that was given"
    if abs(late) > SOUND_OFF:
        return f"the sound is {abs(late) / SAMPLE_RATE:.2f} s {'late' if late > 0 else 'early'}"
    first, last = longest_run(gone)
    return f"silence {span(first, last)} where something is said" * (last - first >= LEAST_HOLE)


def lateness(heard: Wave, speech: Wave) -> int:
    """Samples by which `heard` (n,) is late, from the peak of the cross-correlation."""
    reach = min(SOUND_REACH, len(speech) // 2)
    size = len(speech) + reach
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(speech, size))
    fits = np.fft.irfft(product, size)
    fits[reach:-reach] = -np.inf
    peak = int(fits.argmax())
    return peak if peak < reach else peak - size


def longest_run(flags: Flags) -> tuple[int, int]:
    """First and one past the last frame of the longest run of True; equal where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(int), [0]))))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return max(runs, key=lambda run: run[1] - run[0], default=(0, 0))


def span(first: int, last: int) -> str:
    """Frames at 25 fps, in words."""
    return f"from {first / FPS:.2f} to {last / FPS:.2f} s"


@dataclass
class Seen:
    """What the pictures of a file at `fps` show, gathered while they are measured at 25 fps."""

    fps: float
    count: int = 0
    changes: list[float] = field(default_factory=list)  # from each to the next
    dark: list[bool] = field(default_factory=list)  # these three at 25 fps
    faces: list[bool] = field(default_factory=list)
    lips: list[NDArray[np.float32]] = field(default_factory=list)  # of frames with a face

    def passing(self, frames: Iterator[Picture]) -> Iterator[Picture]:
        """The frames (H, W, 3) at 25 fps of those at `fps`, each time the one shown then."""
        before, given = None, 0
        for self.count, frame in enumerate(frames, start=1):
            small = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA)
            gray = np.asarray(small, np.float32).mean(axis=2)
            if before is not None:
                self.changes.append(float(np.percentile(np.abs(gray - before), CHANGED)))
            before = gray
            while given * self.fps < self.count * FPS:
                given += 1
                yield frame

    def watch(self, frame: Picture, view: FaceView | None) -> None:
        """The next frame at 25 fps and its face."""
        self.dark.append(float(np.percentile(frame[::4, ::4], 99)) < BLACK)
        self.faces.append(view is not None)
        if view is not None:
            x, y = view.mouth.tolist()
            (x0, x1), (y0, y1) = LIPS
            lips = view.crop[part((x + x0, x + x1), (y + y0, y + y1))].astype(np.float32)
            self.lips.append(
                np.asarray(cv2.resize(lips, LIPS_SIZE, interpolation=cv2.INTER_AREA), np.float32)
            )

    def fault(self, said: Flags) -> str:
        """What is wrong with the picture, given the frames (T,) at 25 fps in which is spoken."""
        faces = np.array(self.faces)
        first, last = longest_run(np.array(self.dark))
        if last - first >= LEAST_BLACK:
            return f"the picture is black {span(first, last)}"
        if not faces.any():
            return "there is no face"
        first, last = longest_run(~faces)
        if faces.mean() < LEAST_SEEN or last - first >= LONGEST_AWAY:
            return f"there is no face {span(first, last)}"
        spoken = np.stack(self.lips)[said[faces]]
        if len(spoken) > 1 and float(spoken.std(axis=0).mean()) < STILL:
            return NEVER
        change = np.full(len(faces), np.inf)
        change[np.flatnonzero(faces)[1:]] = np.abs(np.diff(self.lips, axis=0)).mean(axis=(1, 2))
        first, last = longest_run(change < FROZEN)
        if last - first >= LONGEST_FROZEN and said[first:last].mean() > 0.5:
            return f"the picture stands still {span(first, last)}, while something is said"
        # in silence a face hardly moves, and what is coded of it stands still now and then
        return repetition(np.array(self.changes)) if said.any() else ""


def repetition(changes: Curve) -> str:
    """What is wrong with the changes (T - 1,) from each frame to the next.

    A player shows a frame again, to the bit, where the next is missing; one that was drawn or coded
    twice changes little against its neighbours, and does so often.
    """
    if len(changes) < 5:
        return ""
    padded = np.pad(changes, 2, mode="reflect")
    before, after = np.maximum(padded[:-4], padded[1:-3]), np.maximum(padded[3:-1], padded[4:])
    around = np.minimum(before, after)
    missing = int(((changes == 0) & (around > MOVING)).sum())
    repeated = float((changes < REPEATED * around).mean())
    if missing > MAX_LAG:
        return f"{missing} frames are missing"
    few = repeated <= MOST_REPEATED
    return "" if few else f"{repeated:.0%} of the frames show the one before again"
