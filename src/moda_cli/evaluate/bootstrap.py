"""What 50 clips say about a metric: mean, spread and a bootstrap interval over clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value over clips with the 95 % interval that other clips could have given.

    One clip says nothing of others: its interval is the value itself, and is not shown.
    """

    value: float
    low: float
    high: float
    clips: int
    std: float | None = None  # over clips; None where the value is no mean of several


def resamples(clips: int, count: int, seed: int) -> NDArray[np.intp]:
    """Choices (count, clips) of clips with replacement, the bootstrap's other test sets."""
    return np.random.default_rng(seed).integers(clips, size=(count, clips))


def mean_over_clips(values: NDArray[np.float64], count: int, seed: int) -> Estimate:
    """Of one value per clip (n,), n >= 1, by the percentile bootstrap; count >= 1."""
    means = values[resamples(len(values), count, seed)].mean(axis=1)
    low, high = interval(means)
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), low, high, len(values), spread)


def of_clips(
    statistic: Callable[[Sequence[int]], float],
    clips: int,
    count: int,
    seed: int,
    centred: bool = False,
) -> Estimate:
    """Of a number that belongs to a set of clips, like a distance between two data sets.

    statistic: the number of the clips of these indices, which may repeat. centred: it grows when
    they do, like a distance of few samples, so the resamples' spread counts and not their level.
    """
    value = statistic(range(clips))
    rows = resamples(clips, count, seed)
    values = np.array([statistic([int(k) for k in row]) for row in rows])
    low, high = interval(values + (value - values.mean()) if centred else values)
    return Estimate(value, max(0.0, low), high, clips)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of values (n,)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
