"""Real time between whoever brings sound and whoever shows frames.

Sound waits in a queue until its time comes; of a stream a little is held back, so that blocks may
come unevenly. A hop's motion is made once its sound is there, beside the pictures of the hop
before, and its frames are due a constant delay later: on a machine that is too slow pictures are
left out, evenly, never sound, and the two stay in step.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import soxr
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.control.timeline import TRACKS, parse_single_emotion
from moda_cli.errors import UsageError, did_you_mean
from moda_cli.generator.hops import NOTHING
from moda_cli.live.face import Heard, LiveFace, LiveFrame
from moda_cli.live.fluency import Fluency
from moda_cli.media.waves import Wave, num_frames

HELD_BACK_S = 0.03  # of a stream: how much later a block may come than the others
SMOOTHED = 0.05  # share of the last hop in how busy it is
LATE_S = 1 / FPS  # pictures are left out so that none is later
LONGEST_S = 600.0  # of sound that waits
RATES = (4000, 192_000)  # Hz


def checked_tracks(given: Mapping[str, float]) -> dict[str, float]:
    """Values of a timeline's tracks by name. Raises UsageError for those that cannot be asked."""
    for name, value in given.items():
        if name not in TRACKS or name == "smooth":
            known = [track for track in TRACKS if track != "smooth"]
            hint = did_you_mean(name, known, f"it is one of {', '.join(known)}")
            raise UsageError(f"there is no track {name!r}", hint=hint)
        if not TRACKS[name].low <= value <= TRACKS[name].high:
            limits = f"{TRACKS[name].low:g} to {TRACKS[name].high:g}"
            raise UsageError(f"{name} {value:g} is out of range", hint=f"it is {limits}")
    return {name: float(value) for name, value in given.items()}


def silenced(frame: LiveFrame) -> LiveFrame:
    """The same picture without its sound."""
    return replace(frame, sound=np.zeros_like(frame.sound))


@dataclass(frozen=True, slots=True)
class Pace:
    """How a session keeps up."""

    delay_s: float  # from a sound's time to the frame that shows it
    late_s: float  # how much more it was for the last frame
    shown: int  # frames
    left_out: int  # pictures that there was no time for
    waiting_s: float  # of sound
    speaking: bool  # some of the sound that was pushed is still to come
    busy: float  # the share of its time that hearing or drawing takes; above 1 it is too slow


class LiveSession:
    """A face that speaks the sound it is given, 25 frames a second from its start.

    `push`, `interrupt` and `ask` may come from any thread; frames are taken in one. Used as a
    context, it ends with it.
    """

    def __init__(self, face: LiveFace) -> None:
        self._face, self._hop_s = face, face.hop.new / FPS
        self._lock = threading.Condition()
        self._waiting: deque[Wave] = deque()  # sound whose time has not come
        self._count = 0  # samples of it
        self._speaking = False  # the last hop ended within a stream
        self._spoken = 0  # the frame with which all sound that was taken will have been shown
        self._resampler: tuple[int, soxr.ResampleStream] | None = None
        self._last_push = 0.0
        self._asked: list[tuple[dict[str, Any], float | None]] = []
        self._cut = False
        self._heard: deque[tuple[Heard, float]] = deque()  # and how long that took
        self._drawing = threading.Lock()  # held for a hop's frames
        self._ready: deque[LiveFrame] = deque()
        self._shown = self._left_out = 0
        self._busy = self._late_s = 0.0
        self._failed: BaseException | None = None
        self._over = False
        self._began = time.monotonic()
        self._threads = [
            threading.Thread(target=self._until_over, args=(work,), name="moda-live", daemon=True)
            for work in (self._hear, self._draw)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def delay_s(self) -> float:
        """Seconds from a sound's time to the frame that shows it."""
        return self._face.hop.delay_s

    @property
    def pace(self) -> Pace:
        """How it keeps up."""
        with self._lock:
            waiting = self._count / SAMPLE_RATE
            speaking = self._count > 0 or self._shown < self._spoken
            counts = self._shown, self._left_out
            return Pace(self.delay_s, self._late_s, *counts, waiting, speaking, self._busy)

    def push(self, wave: NDArray[np.floating], rate: int = SAMPLE_RATE) -> None:
        """Sound (n,) or (n, channels) in [-1, 1], spoken as soon as what was pushed before is.

        What comes before its time is heard ahead of it, which makes for better lips. What is no
        number counts as silence. Raises UsageError for another shape or rate, and where more than
        LONGEST_S would wait.
        """
        mono = np.nan_to_num(np.asarray(wave, np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
        mono = np.clip(mono, -1, 1)
        if mono.ndim == 2:
            mono = mono.mean(axis=1)
        if mono.ndim != 1 or not RATES[0] <= rate <= RATES[1]:
            raise UsageError(
                f"sound of shape {np.shape(wave)} at {rate} Hz cannot be spoken",
                hint=f"push (n,) or (n, channels) at {RATES[0]} to {RATES[1]} Hz",
            )
        with self._lock:
            if rate != SAMPLE_RATE:
                if self._resampler is None or self._resampler[0] != rate:
                    self._resampler = (rate, soxr.ResampleStream(rate, SAMPLE_RATE, 1))
                mono = self._resampler[1].resample_chunk(mono)
            if (self._count + len(mono)) / SAMPLE_RATE > LONGEST_S:
                hint = "push it as it is needed, or wait while `pace.waiting_s` is large"
                raise UsageError(f"more than {LONGEST_S:g} s of sound would wait", hint=hint)
            self._waiting.append(mono)
            self._count += len(mono)
            self._last_push = time.monotonic()
            self._lock.notify_all()

    def interrupt(self) -> None:
        """Stop speaking: drop all sound that waits and close the mouth within three frames."""
        with self._lock:
            self._waiting.clear()
            self._count, self._speaking, self._resampler, self._spoken = 0, False, None, 0
            self._cut = True
            self._ready = deque(silenced(frame) for frame in self._ready)
            self._lock.notify_all()

    def ask(self, emotion: str | None = None, ease: float | None = None, **tracks: float) -> None:
        """From now on: an emotion such as `happy@0.5`, and tracks of a timeline by name.

        ease: seconds that the change takes. Raises UsageError.
        """
        values: dict[str, Any] = checked_tracks(tracks)
        if emotion is not None:
            values["emotion"] = parse_single_emotion(emotion)
        with self._lock:
            self._asked.append((values, ease))

    def frames(self) -> Iterator[LiveFrame]:
        """Each frame when it is due, until the session ends. Raises what ended it before that."""
        while True:
            with self._lock:
                while not self._over and not (self._ready and self._is_due(self._ready[0])):
                    wait = (
                        self._due(self._ready[0].number) - time.monotonic() if self._ready else None
                    )
                    self._lock.wait(wait)
                if self._failed:
                    raise self._failed
                if self._over:
                    return
                frame = self._ready.popleft()
                self._shown = frame.number + 1
                self._late_s = time.monotonic() - self._due(frame.number)
            yield frame

    def _is_due(self, frame: LiveFrame) -> bool:
        return time.monotonic() >= self._due(frame.number)

    def _due(self, number: int) -> float:
        return self._began + self._hop_s + self._face.hop.work_s + number / FPS

    def close(self) -> None:
        """End the session."""
        with self._lock:
            self._over = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _until_over(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._lock:
                self._failed, self._over = error, True
                self._lock.notify_all()

    def _hear(self) -> None:
        """Make the motion of each hop once its sound is there."""
        while (sound := self._next_hop()) is not None:
            began = time.monotonic()
            heard = self._face.hear(*sound)
            with self._lock:
                self._heard.append((heard, time.monotonic() - began))
                self._lock.notify_all()

    def _draw(self) -> None:
        """Draw what was heard, on a core of its own where there is one."""
        new, fluency = self._face.hop.new, Fluency(1 / FPS)
        while self._something_heard():
            with self._drawing:
                with self._lock:
                    if self._cut or not self._heard:  # an interrupt was quicker
                        continue
                    heard, hearing_s = self._heard.popleft()
                began, last_due = time.monotonic(), self._due(heard.start + new - 1)
                wanted = fluency.choose(new, last_due + LATE_S - began)
                with self._lock:
                    self._left_out += new - sum(wanted)
                for frame in self._face.draw(heard, wanted):
                    with self._lock:
                        self._ready.append(silenced(frame) if self._cut else frame)
                        self._lock.notify_all()
            drawing_s = time.monotonic() - began
            fluency.spent(sum(wanted), drawing_s)
            with self._lock:
                busy = max(hearing_s, drawing_s) / self._hop_s
                self._busy += SMOOTHED * (busy - self._busy)

    def _something_heard(self) -> bool:
        """Wait until something is heard that may be drawn; False at the session's end."""
        with self._lock:
            self._lock.wait_for(lambda: self._over or (self._heard and not self._cut))
            return not self._over

    def _next_hop(self) -> tuple[Wave, Wave] | None:
        """The sound of the next hop, once its time has come, and what follows; None at the end."""
        ends = self._began + self._face.made / FPS + self._hop_s
        needed = self._face.hop.new * SAMPLES_PER_FRAME
        while True:
            with self._lock:
                while not (self._over or self._cut):
                    wait = ends - time.monotonic()
                    if wait <= 0 and self._speaking and self._count < needed:
                        wait += HELD_BACK_S  # a block is late
                    if wait <= 0:
                        break
                    self._lock.wait(wait)
                if self._over:
                    return None
                if not self._cut:
                    for values, ease in self._asked:
                        self._face.ask(self._face.made, values, ease)
                    self._asked.clear()
                    return self._taken(needed), self._coming()
            self._close_mouth()

    def _close_mouth(self) -> None:
        """Draw what was made beyond the frames that were shown anew."""
        with self._drawing:
            with self._lock:
                self._cut = False
                self._heard.clear()
                self._ready.clear()
                shown = self._shown
            made = self._face.interrupt(shown)
            with self._lock:
                self._ready.extend(made)
                self._lock.notify_all()

    def _taken(self, needed: int) -> Wave:
        """So many samples of what waits: a stream begins with silence, and ends with it."""
        held = 0
        if not self._speaking and time.monotonic() - self._last_push < 2 * HELD_BACK_S:
            held = round(HELD_BACK_S * SAMPLE_RATE)
        taken = min(needed, max(0, self._count - held))
        wave = self._next_samples(taken)
        self._count -= taken
        if taken:
            self._spoken = self._face.made + self._face.hop.new + self._face.hop.ahead
        silence = (needed - taken, 0) if not self._speaking else (0, needed - taken)
        self._speaking = taken == needed or (taken > 0 and not self._speaking)
        return np.pad(wave, silence)

    def _coming(self) -> Wave:
        """The first whole frames of what waits and goes on waiting, as many as can be heard."""
        frames = min(num_frames(self._count), self._face.coming)
        wave = self._next_samples(frames * SAMPLES_PER_FRAME)
        if frames:
            self._waiting.appendleft(wave)
        return wave

    def _next_samples(self, count: int) -> Wave:
        """The first samples of what waits, taken off it."""
        parts, missing = [NOTHING], count
        while missing:
            block = self._waiting.popleft()
            parts.append(block[:missing])
            if len(block) > missing:
                self._waiting.appendleft(block[missing:])
            missing -= len(parts[-1])
        return np.concatenate(parts)
