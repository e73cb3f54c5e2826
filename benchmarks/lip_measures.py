"""What a curve of mouth opening or eye opening says, against the phones spoken meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS
from moda_cli.data.synthetic.visemes import LABIAL, OPEN, Phone

CLOSED_SHARE = 0.15  # of the clip's range of the gap
SHIFTS = 300
LAGS = range(-8, 9)  # frames; positive is a late mouth

Curve = NDArray[np.float64]  # (T), one value per video frame


@dataclass(frozen=True, slots=True)
class Lips:
    """How one curve of mouth opening obeys the phones of a clip.

    closed, shifted: share of /p b m/ with a closure, and the same at randomly shifted times. open,
    shut: the most opening in each open vowel and the least in each /p b m/, in ranges of the clip.
    """

    closed: float
    shifted: float
    open: Curve
    shut: Curve

    @property
    def dprime(self) -> float:
        """Distance of open vowels from bilabials in standard deviations."""
        spread = np.sqrt((self.open.var() + self.shut.var()) / 2)
        return float((self.open.mean() - self.shut.mean()) / max(spread, 1e-9))


def frames_in(phone: Phone, num_frames: int, shift_s: float = 0) -> NDArray[np.int64]:
    """Frames whose middle lies in the phone, give or take half a frame; times are circular."""
    first, last = (int((time + shift_s) * FPS) for time in (phone.start, phone.end))
    return np.arange(first, last + 1) % num_frames


def judge_lips(opening: Curve, phones: Sequence[Phone], limit: float) -> Lips:
    """Lips of an opening curve (T); it is closed below `limit`. The shifts are the same each time.

    `open` and `shut` are in units of the curve.
    """
    labial = [phone for phone in phones if phone.symbol == LABIAL]
    vowels = [phone for phone in phones if phone.symbol in OPEN]
    is_closed = opening <= limit

    def rate(shift_s: float) -> float:
        hits = [is_closed[frames_in(phone, len(opening), shift_s)].any() for phone in labial]
        return float(np.mean(hits))

    shifts = np.random.default_rng(0).uniform(0.4, len(opening) / FPS - 0.4, SHIFTS)
    return Lips(
        rate(0),
        float(np.mean([rate(float(shift)) for shift in shifts])),
        np.array([opening[frames_in(phone, len(opening))].max() for phone in vowels]),
        np.array([opening[frames_in(phone, len(opening))].min() for phone in labial]),
    )


def gap_range(gap: Curve) -> float:
    """p98 - p2 of a gap curve (T), its minimum taken off or not."""
    low, high = np.nanpercentile(gap, (2, 98))
    return float(high - low)


def judge_gap(gap: Curve, phones: Sequence[Phone]) -> Lips:
    """Lips of a measured gap: closed within CLOSED_SHARE of the range above the clip's minimum."""
    above = gap - np.nanmin(gap)
    return judge_lips(above / gap_range(gap), phones, CLOSED_SHARE)


def pooled(parts: Sequence[Lips]) -> Lips:
    """One verdict over clips, every phone counting once."""
    counts = np.array([len(part.shut) for part in parts])
    return Lips(
        float(np.average([part.closed for part in parts], weights=counts)),
        float(np.average([part.shifted for part in parts], weights=counts)),
        np.concatenate([part.open for part in parts]),
        np.concatenate([part.shut for part in parts]),
    )


def best_lag(curves: Sequence[Curve], references: Sequence[Curve]) -> tuple[int, float]:
    """Frames by which curves (T) follow their references (T), and the correlation there."""

    def at(lag: int) -> float:
        late = [c[max(lag, 0) : len(c) + min(lag, 0)] for c in curves]
        early = [r[max(-lag, 0) : len(r) + min(-lag, 0)] for r in references]
        return float(np.corrcoef(np.concatenate(late), np.concatenate(early))[0, 1])

    found = {lag: at(lag) for lag in LAGS}
    lag = max(found, key=found.__getitem__)
    return lag, found[lag]


def dips(curve: Curve, limit: float) -> int:
    """How often a curve (T) falls below a limit; a rise of one frame does not part two dips."""
    below = curve < limit
    below[1:-1] |= below[:-2] & below[2:]
    return int(np.count_nonzero(np.diff(below.astype(int), prepend=0) == 1))
