"""What is asked for when: entries in seconds, and the curves they make together.

Every property of a clip that a timeline rules is a track. An entry sets tracks from its moment on,
until another entry sets them or, where it has an end, to what ruled before. Changes are eased,
centred on their moment.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from moda_cli.config import EMOTION_ALIASES, EMOTIONS, FPS, NO_EMOTION
from moda_cli.errors import InputError, ModaError, UsageError, did_you_mean

EASE_S = 0.4  # a change takes this long unless it says otherwise
AUTO = "auto"  # the emotion that is heard in the voice
NEUTRAL = EMOTIONS.index("neutral")
PULL = 2.6  # how much surer `neutral` is of its face than other classes, beside which it is mixed


@dataclass(frozen=True, slots=True)
class Track:
    """A number that a timeline rules: where it rests, its limits, how long a change takes."""

    rest: float
    low: float
    high: float
    ease: float = EASE_S


TRACKS = {
    "pitch": Track(0, -60, 60),  # degrees on top of what the head does: down,
    "yaw": Track(0, -60, 60),  # to the picture's left,
    "roll": Track(0, -60, 60),  # clockwise
    "gaze_x": Track(0, -1, 1, 0.12),  # of what eyes can reach, to the picture's right and down
    "gaze_y": Track(0, -1, 1, 0.12),
    "lips": Track(1, 0, 10),  # multiplies how far the mouth is from its rest,
    "face": Track(1, 0, 10),  # the rest of the expression,
    "head": Track(1, 0, 10),  # and the head's pose
    "idle": Track(0, 0, 1),  # closes the mouth as in silence
    "smooth": Track(0, 0, 2),  # seconds over which motion is evened out, without lag
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line asks for.

    at, until, ease: seconds. values: by track, those of TRACKS numbers; beside them `emotion` as
    (class, intensity), `hold` as the moment that is held, `blink` as True, and `motion` as an
    Insert. origin: where a user finds it.
    """

    at: float
    values: Mapping[str, Any]
    origin: str
    until: float = math.inf
    ease: float | None = None

    def eased(self, name: str) -> float:
        """Seconds that its change of a track takes."""
        if self.ease is not None:
            return self.ease
        return TRACKS[name].ease if name in TRACKS else EASE_S


@dataclass(frozen=True, slots=True)
class Timeline:
    """Entries in the order of their moments. auto: the emotion is still to be heard."""

    entries: tuple[Entry, ...] = ()
    auto: bool = field(default=False, kw_only=True)

    @classmethod
    def of(cls, entries: Iterable[Entry], *, auto: bool = False) -> "Timeline":
        """A timeline of entries in any order."""
        return cls(tuple(sorted(entries, key=lambda entry: entry.at)), auto=auto)

    def asking(self, name: str) -> list[Entry]:
        """The entries that set a track."""
        return [entry for entry in self.entries if name in entry.values]

    def shares(self, name: str, seconds: Tensor, rest: Any) -> dict[Any, Tensor]:
        """How far each value of a track rules at `seconds` (n,); together 1 everywhere.

        Where several entries cover a moment the latest rules; where none does, `rest`.
        """
        asked = self.asking(name)
        moments = sorted({at for entry in asked for at in (entry.at, entry.until)} - {math.inf})
        shares, before = {rest: torch.ones_like(seconds)}, rest
        for moment in moments:
            there = [entry for entry in asked if entry.at <= moment < entry.until]
            value = there[-1].values[name] if there else rest
            eases = [e.eased(name) for e in asked if moment in (e.at, e.until)]
            reached = _risen(seconds, moment, max(eases))
            shares[before] = shares[before] - reached
            shares[value] = shares.get(value, torch.zeros_like(seconds)) + reached
            before = value
        shares = {value: share.clamp(min=0) for value, share in shares.items()}
        total = torch.stack(list(shares.values())).sum(dim=0)
        return {value: share / total for value, share in shares.items() if share.any()}

    def curve(self, name: str, seconds: Tensor) -> Tensor:
        """A track of numbers at `seconds` (n,)."""
        rest = TRACKS[name].rest
        shares = self.shares(name, seconds, rest)
        return torch.stack([value * share for value, share in shares.items()]).sum(dim=0)

    def emotion_shares(self, start: int, length: int) -> dict[int, Tensor]:
        """Share (length,) of each class in frames [start, start + length); together 1.

        The velocities of the classes are mixed by these shares, in every frame and at every step of
        the sampler. An emotion of intensity i is mixed with `neutral`: what is added is the
        direction from a neutral face to the class, as guidance adds directions. Mixed embeddings
        were tried and left: the network takes one emotion for a whole window, so that it could not
        change within one, and it answers to them in jumps (of the bundled model's anger, 0.5 gave
        0.47 of the face, 0.6 gave 0.27). Mixed velocities answer evenly, by s / (s + k (1 - s)) for
        a share s, with k 2.1 to 2.9; the share is what undoes that, so that half looks like half.
        """
        seconds = torch.arange(start, start + length).double() / FPS
        classes: dict[int, Tensor] = {}
        for (label, intensity), share in self.shares("emotion", seconds, (NO_EMOTION, 1.0)).items():
            part_of_class = PULL * intensity / (1 - intensity + PULL * intensity)
            for each, part in ((label, part_of_class), (NEUTRAL, 1 - part_of_class)):
                if part:
                    known = classes.get(each, torch.zeros(length))
                    classes[each] = known + part * share.float()
        return classes

    def gaze(self, seconds: Tensor) -> Tensor | None:
        """Where the eyes look at `seconds` (n,), as (n, 2); None where nothing is asked of them."""
        if not (self.asking("gaze_x") or self.asking("gaze_y")):
            return None
        return torch.stack([self.curve(f"gaze_{axis}", seconds) for axis in "xy"], dim=-1)

    def check_within(self, duration: float) -> None:
        """Refuse an entry past the end of a sound of so many seconds.

        Raises InputError for one of a file, UsageError for one of an option.
        """
        for entry in self.entries:
            if entry.at > 0 and entry.at >= duration:
                raise entry_fault(
                    entry.origin, f"an entry at {entry.at:g} s is past the end, {duration:.2f} s,"
                )


def _risen(seconds: Tensor, moment: float, ease: float) -> Tensor:
    """0 well before a moment and 1 well after it; what holds from the beginning never rises."""
    if moment <= 0:
        return torch.ones_like(seconds)
    if ease <= 0:
        return (seconds >= moment - 1e-6).to(seconds)
    x = ((seconds - moment) / ease + 0.5).clamp(0, 1)
    return x * x * (3 - 2 * x)


def entry_fault(origin: str, reason: str, hint: str = "") -> ModaError:
    """What is wrong with an entry, as its origin wants it said; without one, as such."""
    if not origin:
        return UsageError(reason, hint=hint)
    option = origin.startswith("--")
    error = UsageError if option else InputError
    said = f"{reason} in {origin}" if option else f"{origin}: {reason.removesuffix(',')}"
    return error(said, hint=hint)


def emotion_class(name: str, origin: str) -> int:
    """The number of an emotion's class. Raises UsageError, or InputError where a file names it."""
    name = EMOTION_ALIASES.get(name.strip().lower(), name.strip().lower())
    if name not in EMOTIONS:
        hint = f"it is one of {', '.join(EMOTIONS)}"
        if origin:
            hint += ", or a timeline such as 0:neutral,2.5:happy@0.8"
        meant = did_you_mean(name, (*EMOTIONS, *EMOTION_ALIASES, *([AUTO] if origin else [])), hint)
        raise entry_fault(origin, f"unknown emotion {name!r}", meant)
    return EMOTIONS.index(name)


def parse_single_emotion(text: str) -> tuple[int, float]:
    """The class and intensity of `happy@0.5`. Raises UsageError."""
    name, marked, intensity = text.partition("@")
    label = emotion_class(name, "")
    try:
        amount = float(intensity) if marked else 1.0
    except ValueError:
        amount = math.nan
    if not 0 <= amount <= 1:
        raise UsageError(f"intensity {intensity!r} is not in 0-1", hint="write it as happy@0.8")
    return label, amount


@lru_cache  # an option is checked, then resolved, and a batch asks the same of every clip
def parse_emotion(text: str) -> Timeline:
    """The timeline a user wrote: `happy`, `happy@0.5`, `0:neutral,2.5:happy@0.8`, or `auto`.

    The first emotion rules from the beginning. Raises UsageError for an unknown class, an intensity
    that is not in 0-1, or for times that are not ascending from 0.
    """
    origin = f"--emotion {text!r}"
    if text.strip().lower() == AUTO:
        return Timeline(auto=True)
    entries: list[Entry] = []
    last = -1.0
    for part in text.split(","):
        at, _, asked = part.strip().rpartition(":")
        name, marked, intensity = asked.partition("@")
        label = emotion_class(name, origin)
        try:
            seconds, amount = float(at or 0), float(intensity) if marked else 1.0
        except ValueError:
            wrong = f"{part.strip()!r} names no time or intensity"
            hint = "write it as 2.5:happy@0.8: from 2.5 s on, with 0.8 of its strength"
            raise entry_fault(origin, wrong, hint) from None
        if not 0 <= amount <= 1:
            hint = "0 is neutral, 1 the whole emotion; --emotion-scale goes beyond it"
            raise entry_fault(origin, f"intensity {amount:g} is not in 0-1", hint)
        if not (seconds >= 0 and last < seconds < math.inf):
            raise entry_fault(origin, "the times do not ascend", "give them in seconds, from 0 on")
        last = seconds
        entries.append(Entry(seconds if entries else 0.0, {"emotion": (label, amount)}, origin))
    return Timeline(tuple(entries))
