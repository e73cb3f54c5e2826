"""Mel-frequency cepstra as SyncNet was trained on: the defaults of python_speech_features."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import SAMPLE_RATE

HOP = SAMPLE_RATE // 100  # four columns per video frame
WINDOW = 400
FFT_SIZE = 512
NUM_MELS = 26
NUM_COEFFICIENTS = 13
PRE_EMPHASIS = 0.97
LIFTER = 22
FLOOR = float(np.finfo(np.float64).eps)  # in place of zero energy


@cache
def mfcc_filters() -> NDArray[np.float64]:
    """Triangles (26, 257) equally spaced on the HTK mel scale, their corners on whole FFT bins."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), NUM_MELS + 2)
    hz = 700 * (10 ** (mels / 2595) - 1)
    edges = np.floor((FFT_SIZE + 1) * hz / SAMPLE_RATE)
    bins = np.arange(FFT_SIZE // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.asarray(np.maximum(np.minimum(rising, falling), 0), np.float64)


@cache
def cosines() -> NDArray[np.float64]:
    """The first rows (13, 26) of the orthonormal DCT-II, each with its lifter weight."""
    n = np.arange(NUM_COEFFICIENTS)[:, None]
    table = np.cos(np.pi * n * (2 * np.arange(NUM_MELS) + 1) / (2 * NUM_MELS))
    table *= np.sqrt(np.where(n == 0, 1, 2) / NUM_MELS)
    return np.asarray(table * (1 + LIFTER / 2 * np.sin(np.pi * n / LIFTER)), np.float64)


def mfcc(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """(F, 13) of a 16 kHz wave (N,), one row per 10 ms; column 0 is the log energy.

    The wave is int16 on purpose: scaled to [-1, 1], column 0 would be 20.8 too small.
    """
    wave = samples.astype(np.float64)
    wave[1:] -= PRE_EMPHASIS * samples[:-1]
    count = 1 + max(0, -(-(len(wave) - WINDOW) // HOP))
    padded = np.pad(wave, (0, (count - 1) * HOP + WINDOW - len(wave)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(pieces, FFT_SIZE)) ** 2 / FFT_SIZE
    energy, mel = power.sum(axis=1), power @ mfcc_filters().T
    rows = np.log(np.where(mel == 0, FLOOR, mel)) @ cosines().T
    rows[:, 0] = np.log(np.where(energy == 0, FLOOR, energy))
    return rows
