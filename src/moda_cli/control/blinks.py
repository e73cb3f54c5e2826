"""Blinks: their shape, when they come of their own, and taking out those that are there."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moda_cli.config import FPS

BLINK = np.array([0.35, 0.85, 1, 1, 0.75, 0.42, 0.15])  # closure in each frame, 1 is closed
CLOSED_LID = 14.0  # units of a lid in motion
LONGEST = 12  # frames that lids may be lower than around, and it is a blink
FIRST_S = 0.5  # from the beginning to the first blink, at least

Starts = Callable[[int], Sequence[int]]  # the frames, before one, at which blinks begin


def blink_starts(rate: float, seed: int) -> Starts:
    """Blinks by rule, `rate` a minute whatever is said.

    The gaps between them are even between half and one and a half of the mean, so that a short clip
    has its share too.
    """
    rng, at = np.random.default_rng(seed), FIRST_S
    starts: list[int] = []

    def before(stop: int) -> Sequence[int]:
        nonlocal at
        if not rate:
            return ()
        while not starts or starts[-1] < stop:
            gap = 60 / rate
            # the first comes as if somebody had been blinking before
            at += gap * (rng.uniform(0.5, 1.5) if starts else rng.uniform())
            starts.append(round(at * FPS))
        return [start for start in starts if start < stop]

    return before


def closure(starts: Sequence[int], first: int, length: int) -> Tensor:
    """How far the lids are closed (length,) from frame `first` on, by blinks that begin so."""
    closed = torch.zeros(length)
    shape = torch.from_numpy(BLINK).float()
    for start in starts:
        low, high = max(start, first), min(start + len(shape), first + length)
        if low < high:
            own = shape[low - start : high - start]
            closed[low - first : high - first] = closed[low - first : high - first].maximum(own)
    return closed


def without_blinks(lids: Tensor) -> Tensor:
    """Lids (T, n) without what closes them for LONGEST frames or less; slower moves stay.

    A morphological opening: the largest of the smallest around. It looks LONGEST frames ahead.
    """
    size = LONGEST + 1
    curves = lids.T[:, None]
    smallest = -F.max_pool1d(-curves, size, 1, size // 2)
    return F.max_pool1d(smallest, size, 1, size // 2)[:, 0].T
