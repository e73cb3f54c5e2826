"""A portrait that speaks a sound hop by hop. It knows no clock: the same hops, the same frames."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moda_cli.config import FPS, SAMPLES_PER_FRAME, RenderConfig
from moda_cli.control.edits import Edits
from moda_cli.control.timeline import Entry, Timeline
from moda_cli.errors import UsageError
from moda_cli.generator.hops import NOTHING, HopSampler
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.motion import MOTION_DIM
from moda_cli.render.renderer import Renderer

CLOSES_S, SHUT_S = 3 / FPS, 0.4  # an interrupted mouth closes in this time; stays shut
KEPT = 50  # frames that an interrupt can change
FORGOTTEN_S = 10.0  # an entry of the timeline that another has replaced so long ago


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A 25th of a second: what is seen and heard in it."""

    number: int  # from the session's first
    picture: Picture  # (H, W, 3) uint8 RGB
    sound: Wave  # (640,) at 16 kHz
    drawn: bool = True  # False: the picture of the frame before, there was no time for another


@dataclass(frozen=True, slots=True)
class Heard:
    """What a hop's frames are drawn from."""

    start: int  # the first's number
    motion: Tensor  # (n, 70) physical, before the timeline's part
    sound: Wave  # (640 n,)


class LiveFace:
    """Frames for sound that comes in hops of `hop.new` frames; they are `hop.ahead` frames late.

    Where nobody speaks, silence is pushed: the face idles. Raises UsageError for emotions that
    need the whole sound.
    """

    def __init__(
        self, sampler: HopSampler, renderer: Renderer, neutral: Tensor, timeline: Timeline
    ) -> None:
        """neutral: (70) as of the renderer. timeline: as it begins."""
        if timeline.auto:
            hint = "name the emotions, now and while it runs"
            raise UsageError("--emotion auto needs the whole sound before it begins", hint=hint)
        self.hop, self.coming = sampler.hop, sampler.coming
        self._sampler, self._renderer, self._neutral = sampler, renderer, neutral
        self._late: Wave = np.zeros(self.hop.ahead * SAMPLES_PER_FRAME, np.float32)
        self._timeline = timeline
        self._motion = torch.zeros(0, MOTION_DIM)  # of the last frames, before the timeline's part
        self.made = 0  # frames
        self._last = next(renderer.render(self._neutral[None]))

    def advance(self, wave: Wave) -> list[LiveFrame]:
        """The next frames, of the sound before and of `wave` (hop.new * 640,)."""
        return list(self.draw(self.hear(wave), [True] * self.hop.new))

    def hear(self, wave: Wave, coming: Wave = NOTHING) -> Heard:
        """Make the motion of the next frames; `draw`, in another thread or later, shows them.

        coming: (640 n,) what follows the wave where that is known, n of `self.coming` at most.
        """
        new, made = self.hop.new, self.made
        motion = self._sampler.step(
            wave, lambda first, count: self._timeline.emotion_shares(made + first, count), coming
        )
        self._motion = torch.cat((self._motion, motion))[-KEPT:]
        sound = np.concatenate((self._late, wave))
        sound, self._late = np.split(sound, [new * SAMPLES_PER_FRAME])
        self.made += new
        return Heard(self.made - new, motion, sound)

    def draw(self, heard: Heard, wanted: Sequence[bool]) -> Iterator[LiveFrame]:
        """The frames of what was heard, as the timeline has them now.

        What is not wanted repeats the picture before it.
        """
        count, rows = len(wanted), torch.tensor(wanted)
        edits = Edits(self._neutral, self._timeline, RenderConfig())
        motion = edits.at_once(heard.motion, heard.start)[rows]
        seconds = torch.arange(heard.start, heard.start + count)[rows].double() / FPS
        pictures = (
            self._renderer.render(motion, self._timeline.gaze(seconds)) if any(wanted) else ()
        )
        drawn = iter(pictures)
        for row, sound in enumerate(heard.sound.reshape(count, SAMPLES_PER_FRAME)):
            self._last = next(drawn) if wanted[row] else self._last
            yield LiveFrame(heard.start + row, self._last, sound, wanted[row])

    def ask(self, at: int, values: Mapping[str, Any], ease: float | None = None) -> None:
        """From frame `at` on, values of a timeline's tracks, as `Entry` holds them."""
        self._add(Entry(max(at, 1) / FPS, values, "ask", ease=ease))

    def interrupt(self, shown: int) -> list[LiveFrame]:
        """Close the mouth after so many frames, and forget all sound that was to come.

        Returns what takes the place of the frames that were made beyond them, at most KEPT.
        """
        ahead, count = self.hop.ahead, min(self.made - shown, len(self._motion))
        silence = np.zeros(ahead * SAMPLES_PER_FRAME, np.float32)
        self._sampler.ear.take_back(ahead)
        self._sampler.ear.push(silence)
        self._late = silence
        begins = (shown + 0.5) / FPS  # changes are centred: it is done in three frames
        ends = self.made / FPS + SHUT_S
        self._add(Entry(begins, {"idle": 1.0}, "interrupt", until=ends, ease=CLOSES_S))
        if not count:
            return []
        quiet = np.zeros(count * SAMPLES_PER_FRAME, np.float32)
        rest = Heard(self.made - count, self._motion[-count:], quiet)
        return list(self.draw(rest, [True] * count))

    def _add(self, entry: Entry) -> None:
        """Put an entry on the timeline; what no longer shows goes."""
        kept: list[Entry] = []
        replaced: set[str] = set()
        for known in (entry, *reversed(self._timeline.entries)):
            gone = known.until < entry.at - FORGOTTEN_S or known.values.keys() <= replaced
            kept += [] if gone else [known]
            if known.at < entry.at - FORGOTTEN_S and math.isinf(known.until):
                replaced |= known.values.keys()
        self._timeline = Timeline.of(reversed(kept))
