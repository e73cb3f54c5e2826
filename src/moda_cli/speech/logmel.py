"""Sound to audio features: one row per video frame, (T, layers, channels)."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.media.waves import TAKEN_BACK, Read, Tail, Wave, frames_to_cover

NUM_HOPS = 4  # 10 ms hops per video frame
NUM_MELS = 80
FFT_SIZE = 512
WINDOW = 400  # 25 ms
POWER_FLOOR = 1e-8  # -80 dB of a full-scale sine, below any recording's noise
HOP = SAMPLES_PER_FRAME // NUM_HOPS
BEFORE = (FFT_SIZE - HOP) // 2  # samples that a frame's first hop hears of the frame before


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


def log_mel(wave: Wave) -> Tensor:
    """Natural log of mel power (T, 4, 80) of a 16 kHz wave (N,), T = ceil(N / 640).

    Hop j of frame t is centred at sample 640 t + 160 j + 80; the wave is continued with zeros.
    """
    after = frames_to_cover(len(wave)) * SAMPLES_PER_FRAME - len(wave) + BEFORE
    return _hops_to_mel(np.pad(wave, (BEFORE, after)))


def _hops_to_mel(samples: Wave) -> Tensor:
    """Log-mel (T, 4, 80) of T frames of samples and BEFORE more at each side."""
    pieces = torch.from_numpy(samples).unfold(0, FFT_SIZE, HOP)
    margin = (FFT_SIZE - WINDOW) // 2
    taper = torch.nn.functional.pad(torch.hann_window(WINDOW), (margin, margin))
    power = torch.fft.rfft(pieces * taper).abs().square()
    mel = power @ torch.from_numpy(mel_filters()).T
    return torch.log(mel + POWER_FLOOR).reshape(-1, NUM_HOPS, NUM_MELS)


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


class LogMel:
    """`window_features` of a sound that is read as windows ask for it, in order."""

    def __init__(self, read: Read) -> None:
        self._tail = Tail(read, 2 * SAMPLES_PER_FRAME)
        self._mel = torch.zeros(0, NUM_HOPS, NUM_MELS)  # of the last frames
        self._done = 0  # frames whose features are known

    def frames(self, stop: int) -> int:
        """How many of the first `stop` frames there are; waits for them."""
        return self._tail.frames(stop)

    def window(self, start: int, length: int) -> Tensor:
        """Features (length, 4, 80) from frame `start` on; silent past the end.

        Waits for one frame more, without which the last one cannot be told.
        """
        stop, known = start + length, self._tail.frames(start + length + 1)
        end = min(stop, known)
        if end > self._done:
            first, last = (frame * SAMPLES_PER_FRAME for frame in (self._done, end))
            samples = self._tail.samples(first - BEFORE, last + BEFORE)
            kept = self._mel[-LEVEL_CONTEXT:]
            self._mel, self._done = torch.cat((kept, _hops_to_mel(samples))), end
        return window_features(self._mel, start - (self._done - len(self._mel)), length)


class PushedMel:
    """`window_features` of the end of a sound that is pushed; some of it can be taken back."""

    def __init__(self, silent: int) -> None:
        """The sound begins with so many silent frames."""
        self._wave: Wave = np.zeros(0, np.float32)  # the end of it
        self._mel = torch.zeros(0, NUM_HOPS, NUM_MELS)  # of its last frames
        self.push(np.zeros(silent * SAMPLES_PER_FRAME, np.float32))

    def push(self, frames: Wave) -> None:
        """The samples of the next frames (n * 640,)."""
        known = self._mel[-LEVEL_CONTEXT:-1]  # the last was told without what follows
        again = bool(len(self._mel)) * SAMPLES_PER_FRAME
        self._wave = np.concatenate((self._wave[-TAKEN_BACK * SAMPLES_PER_FRAME :], frames))
        heard = self._wave[-(len(frames) + again + BEFORE) :]
        before = len(frames) + again + BEFORE - len(heard)
        mel = _hops_to_mel(np.pad(heard, (before, BEFORE)))
        self._mel = torch.cat((known, mel))

    def take_back(self, frames: int) -> None:
        """Forget the last frames, TAKEN_BACK at most, as if others were pushed in their place."""
        self._wave = self._wave[: len(self._wave) - frames * SAMPLES_PER_FRAME]
        self._mel = self._mel[: len(self._mel) - frames]

    def last(self, length: int) -> Tensor:
        """Features (length, 4, 80) of the last frames."""
        return window_features(self._mel, len(self._mel) - length, length)
