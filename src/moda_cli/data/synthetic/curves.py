"""Curves over frames that behaviour is made of: smooth ones, bumps, and moments by chance."""

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from moda_cli.config import FPS

Curve = NDArray[np.float64]

EASE_IN_S = 0.5  # from the neutral first frame into pose and expression


def ease_in(num_frames: int) -> Curve:
    """How far a face has left its neutral first frame (T), 0 .. 1."""
    return smoothstep(np.arange(num_frames) / (EASE_IN_S * FPS))


def smoothstep(x: Curve) -> Curve:
    """0 up to 0, 1 from 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def gaussian(curve: Curve, width: float) -> Curve:
    """A curve (T) smoothed over `width` frames (standard deviation), its ends continued."""
    reach = int(3 * width) + 1
    kernel = _bell(reach, width)
    return np.convolve(np.pad(curve, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def bumps(num_frames: int, at: ArrayLike, heights: ArrayLike, width: float) -> Curve:
    """Bells (T) of these heights, `width` frames wide (standard deviation), summed."""
    reach = int(4 * width) + 1
    peaks = np.zeros(num_frames + 2 * reach)
    np.add.at(peaks, np.clip(at, -reach, num_frames + reach - 1).astype(int) + reach, heights)
    return np.convolve(peaks, _bell(reach, width), mode="valid")


def wander(num_frames: int, width: float, rng: Generator) -> Curve:
    """Noise (T) of mean 0 and deviation 1 that is smooth over `width` frames: it never drifts."""
    reach = int(4 * width)
    kernel = _bell(reach, width)
    noise = rng.standard_normal(num_frames + 2 * reach)
    return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), mode="valid")


def moments(rate: Curve, spread: float, rng: Generator) -> list[int]:
    """Frames, in order, of what happens `rate` (T) times a second, never with a period.

    The gaps are log-normal, of deviation `spread` in the logarithm; where the rate changes, they
    pass faster or slower. The first is what is left of a gap that began before the curve.
    """
    elapsed = np.concatenate(([0.0], np.cumsum(rate) / FPS))
    centre = -0.5 * spread**2  # of the logarithm: the mean gap is 1
    at = rng.lognormal(centre + spread**2, spread) * rng.random()
    found: list[int] = []
    while at < elapsed[-1]:
        found.append(int(np.searchsorted(elapsed, at, side="right")) - 1)
        at += rng.lognormal(centre, spread)
    return found


def _bell(reach: int, width: float) -> Curve:
    bell: Curve = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return bell
