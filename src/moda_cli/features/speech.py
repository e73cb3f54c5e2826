"""Sound to what a HuBERT or wav2vec 2.0 encoder makes of it: (T, layers, D) at 25 fps, as released.

moda-release.md sections 3 to 5. An hour of sound never holds all of its features, which are 3.3 GB.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from moda_cli.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.features.audio import num_frames
from moda_cli.features.speech_encoder import SpeechEncoder

PRE_EMPHASIS = 0.97
SILENCE = 2 * SAMPLE_RATE  # zeros after the speech
ADDED = num_frames(SILENCE)  # frames of them
PIECE = 60 * SAMPLE_RATE  # encoded on its own
REFLECTION = 20  # samples, twice at each end
KEPT_PIECES = 2  # a window touches no more

Wave = NDArray[np.float32]


def pre_emphasise(wave: Wave, start: int = 0, stop: int | None = None) -> Wave:
    """Samples [start, stop) of y[n] = x[n] - 0.97 x[n - 1]; y[0] = 3 x[0] - x[1]. wave: (N,)."""
    y = wave[start:stop].copy()
    if start > 0:
        y -= np.float32(PRE_EMPHASIS) * wave[start - 1 : start - 1 + len(y)]
    elif len(y):
        y[1:] -= np.float32(PRE_EMPHASIS) * wave[: len(y) - 1]
        y[0] += 2 * wave[0] - wave[1]  # the filter's state extrapolates the wave linearly
    return y


def through_pcm16(wave: Wave) -> Wave:
    """What a 16-bit WAV file keeps of a wave: floored, not rounded, and clipped."""
    steps: Wave = np.floor(wave * np.float32(32768)).clip(-32768, 32767)
    return steps / np.float32(32768)


def piece_bounds(num_samples: int) -> list[tuple[int, int]]:
    """Where a wave is cut into pieces of 60 s: (start, stop) in samples, at least a frame each.

    The release counts pieces in whole milliseconds, so the last may be up to 8 samples longer; it
    crashes on a last piece shorter than a frame, which is left out here. The pieces' frames sum to
    those of the whole wave.
    """
    milliseconds = round(num_samples * 1000 / SAMPLE_RATE)
    starts = list(range(0, milliseconds * SAMPLE_RATE // 1000, PIECE))
    bounds = list(zip(starts, [*starts[1:], num_samples], strict=True))
    return [(start, stop) for start, stop in bounds if stop - start >= SAMPLES_PER_FRAME]


def normalise_piece(piece: Wave) -> Wave:
    """Zero mean and unit variance."""
    deviation = np.sqrt(piece.var() + np.float32(1e-7))
    normalised: Wave = (piece - piece.mean()) / deviation
    return normalised


def pad_piece(piece: Wave) -> Tensor:
    """(640 T + 80,): a piece cut to whole frames and reflected by 20 samples, twice.

    The second pass reflects the padded signal, which is not one reflection by 40.
    """
    samples = torch.from_numpy(piece[: num_frames(len(piece)) * SAMPLES_PER_FRAME])[None]
    for _ in range(2):
        samples = F.pad(samples, (REFLECTION, REFLECTION), mode="reflect")
    return samples[0]


class SpeechFeatures:
    """Features of a clip and of the 2 s of silence after it, encoded as they are asked for.

    wave: (N,) at 16 kHz, at least a frame. Two pieces of 60 s are kept.
    """

    def __init__(self, encoder: SpeechEncoder, wave: Wave) -> None:
        self._encoder, self._wave = encoder, wave
        self._bounds = piece_bounds(len(wave) + SILENCE)
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Frames, the 50 of silence included."""
        return num_frames(len(self._wave)) + ADDED

    def window(self, start: int, length: int) -> Tensor:
        """Features (length, layers, D) from frame `start` on; zeros past the end."""
        stop, frames = min(start + length, len(self)), num_frames(PIECE)
        parts = [
            self._piece(index)[max(0, start - index * frames) : stop - index * frames]
            for index in range(start // frames, -(-stop // frames))
        ]
        return F.pad(torch.cat(parts), (0, 0, 0, 0, 0, start + length - stop))

    def speech(self) -> Tensor:
        """Features (T, layers, D) of the speech alone, T = N // 640: what models train on."""
        return self.window(0, len(self) - ADDED)

    def samples(self, start: int, stop: int) -> Wave:
        """Samples [start, stop) of the pre-emphasised speech and its silence, in 16 bits."""
        speech = through_pcm16(pre_emphasise(self._wave, start, min(stop, len(self._wave))))
        return np.pad(speech, (0, stop - start - len(speech)))

    def _piece(self, index: int) -> Tensor:
        if index not in self._kept:
            if len(self._kept) == KEPT_PIECES:
                del self._kept[next(iter(self._kept))]
            padded = pad_piece(normalise_piece(self.samples(*self._bounds[index])))
            with torch.inference_mode():
                self._kept[index] = self._encoder(padded[None].to(self._encoder.device))[0]
        return self._kept[index]
