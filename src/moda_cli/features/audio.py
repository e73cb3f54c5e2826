"""Sound to audio features: one row per video frame, (T, layers, channels)."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

NUM_HOPS = 4  # 10 ms hops per video frame
NUM_MELS = 80
FFT_SIZE = 512
WINDOW = 400  # 25 ms
POWER_FLOOR = 1e-8  # -80 dB of a full-scale sine, below any recording's noise


def num_frames(num_samples: int) -> int:
    """Video frames a 16 kHz wave lasts; a trailing part of a frame is dropped, as released."""
    return num_samples // SAMPLES_PER_FRAME


@cache
def mel_filters() -> NDArray[np.float32]:
    """Triangular filters (80, 257) between 0 and 8 kHz, equally spaced on the Slaney mel scale.

    Each is divided by its width, so that white noise gives a flat spectrum.
    """

    def to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    top = 15 + 27 * np.log(SAMPLE_RATE / 2 / 1000) / np.log(6.4)
    edges = to_hz(np.linspace(0, top, NUM_MELS + 2))
    hz = np.linspace(0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((hz - low) / (centre - low), (high - hz) / (high - centre))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


def log_mel(wave: NDArray[np.float32]) -> Tensor:
    """Natural log of mel power (T, 4, 80) of a 16 kHz wave (N,), T = N // 640.

    Hop j of frame t is centred at sample 640 t + 160 j + 80; the wave is continued with zeros.
    """
    frames = num_frames(len(wave))
    hop = SAMPLES_PER_FRAME // NUM_HOPS
    before = (FFT_SIZE - hop) // 2
    samples = torch.nn.functional.pad(
        torch.from_numpy(wave[: frames * SAMPLES_PER_FRAME]), (before, FFT_SIZE)
    )
    pieces = samples.unfold(0, FFT_SIZE, hop)[: frames * NUM_HOPS]
    margin = (FFT_SIZE - WINDOW) // 2
    taper = torch.nn.functional.pad(torch.hann_window(WINDOW), (margin, margin))
    power = torch.fft.rfft(pieces * taper).abs().square()
    mel = power @ torch.from_numpy(mel_filters()).T
    features = torch.log(mel + POWER_FLOOR)
    return features.reshape(frames, NUM_HOPS, NUM_MELS)


LEVEL_FLOOR = -9.0  # mean log-mel of speech 15 dB below -23 dBFS; quieter sound is background
LEVEL_CONTEXT = 60 * FPS  # frames the running level looks back on
RANGE = 12.0  # 52 dB below the level is as quiet as silence


def speech_level(mel: Tensor) -> float:
    """Loudness of the speech in log-mel features (T, 4, 80): the 95th percentile of hop means."""
    hops = mel.mean(dim=-1).flatten()
    return max(float(hops.quantile(0.95)), LEVEL_FLOOR)


def window_features(mel: Tensor, start: int, length: int) -> Tensor:
    """What the model hears of frames [start, start + length): (length, 4, 80), about -3..1.

    mel: `log_mel` of the clip (T, 4, 80). The level is causal: it is measured over at most the 60 s
    that end with the window. Past the end it is silent.
    """
    end = min(start + length, len(mel))
    level = speech_level(mel[max(0, end - LEVEL_CONTEXT) : end])
    features = (mel[start:end] - level).clamp(min=-RANGE) / 4
    missing = (0, 0, 0, 0, 0, length - len(features))
    return torch.nn.functional.pad(features, missing, value=-RANGE / 4)
