"""Sound to what a HuBERT or wav2vec 2.0 encoder makes of it: (T, layers, D) at 25 fps, as released.

An hour of sound never holds all of its features, which are 3.3 GB. The release hears a clip whole;
`LiveSpeech` hears sound that is still arriving, no window further than its own end, and
`PushedSpeech` what was pushed so far.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.media.waves import TAKEN_BACK, Read, Samples, Tail, Wave, frames_to_cover, num_frames
from moda_cli.speech.encoder import SpeechEncoder

PRE_EMPHASIS = 0.97
SILENCE = 2 * SAMPLE_RATE  # zeros after the speech
ADDED = num_frames(SILENCE)  # frames of them
PIECE = 60 * SAMPLE_RATE  # encoded on its own
REFLECTION = 20  # samples, twice at each end
KEPT_PIECES = 2  # a window touches no more
CONTEXT = 10 * FPS  # frames that a live window hears before its own


def pre_emphasise(wave: Samples, start: int = 0, stop: int | None = None) -> Wave:
    """Samples [start, stop) of y[n] = x[n] - 0.97 x[n - 1]; y[0] = 3 x[0] - x[1]. wave: (N,)."""
    y = wave[start:stop].copy()
    if start > 0:
        y -= np.float32(PRE_EMPHASIS) * wave[start - 1 : start - 1 + len(y)]
    elif len(y):
        first, second = wave[:2]
        y[1:] -= np.float32(PRE_EMPHASIS) * wave[: len(y) - 1]
        y[0] += 2 * first - second  # the filter's state extrapolates the wave linearly
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

    def __init__(self, encoder: SpeechEncoder, wave: Samples) -> None:
        self._encoder, self._wave = encoder, wave
        self._bounds = piece_bounds(len(wave) + SILENCE)
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Frames, the 50 of silence included."""
        return num_frames(len(self._wave)) + ADDED

    @property
    def covering(self) -> int:
        """The first frames, which cover the speech; the last may be one of silence in part."""
        return frames_to_cover(len(self._wave))

    def window(self, start: int, length: int) -> Tensor:
        """Features (length, layers, D) from frame `start` on; zeros past the end."""
        stop, frames = min(start + length, len(self)), num_frames(PIECE)
        parts = [
            self._piece(index)[max(0, start - index * frames) : stop - index * frames]
            for index in range(start // frames, -(-stop // frames))
        ]
        return _pad_to(torch.cat(parts), length)

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


class LiveSpeech:
    """Features of a sound that is read as windows ask for it, in order.

    A window hears its own frames and 10 s before them, at the level of the last 60 s; 2 s of
    silence follow the end. The features of a clip that one window holds, silence included, are
    those of `SpeechFeatures`.
    """

    def __init__(self, encoder: SpeechEncoder, read: Read) -> None:
        self.encoder = encoder
        self._tail = Tail(read, PIECE + 2 * SAMPLES_PER_FRAME)

    def frames(self, stop: int) -> int:
        """How many of the first `stop` frames there are; waits for them."""
        return self._tail.frames(stop)

    def window(self, start: int, length: int) -> Tensor:
        """Features (length, layers, D) from frame `start` on; zeros past the silence at the end.

        Waits for one frame more, without which the last one cannot be told.
        """
        stop, known = start + length, self._tail.frames(start + length + 1)
        end = SAMPLES_PER_FRAME * stop
        if known <= stop:
            end = min(end, self._tail.count + SILENCE)
        heard = max(0, num_frames(end) * SAMPLES_PER_FRAME - PIECE)
        context = max(heard, (start - CONTEXT) * SAMPLES_PER_FRAME)
        features = _encode(self.encoder, self._emphasised(heard, end), context - heard)
        return _pad_to(features[start - num_frames(context) :], length)

    def _emphasised(self, start: int, stop: int) -> Wave:
        """Samples [start, stop) of the pre-emphasised speech and its silence, in 16 bits."""
        spoken = min(stop, self._tail.count) - start
        if start == 0:
            wave = pre_emphasise(self._tail.samples(0, spoken))
        else:
            wave = pre_emphasise(self._tail.samples(start - 1, start + spoken), 1)
        return np.pad(through_pcm16(wave), (0, stop - start - spoken))


class PushedSpeech:
    """Features of the end of a sound that is pushed; some of it can be taken back.

    They are heard as by `LiveSpeech`: with 10 s before them, at the level of the last 60 s.
    """

    def __init__(self, encoder: SpeechEncoder, silent: int) -> None:
        """The sound begins with so many silent frames."""
        self._encoder = encoder
        self._wave: Wave = np.zeros(silent * SAMPLES_PER_FRAME, np.float32)  # the end of it

    def push(self, frames: Wave) -> None:
        """The samples of the next frames (n * 640,)."""
        keep = PIECE + (TAKEN_BACK + 1) * SAMPLES_PER_FRAME
        self._wave = np.concatenate((self._wave, frames))[-keep:]

    def take_back(self, frames: int) -> None:
        """Forget the last frames, TAKEN_BACK at most, as if others were pushed in their place."""
        self._wave = self._wave[: len(self._wave) - frames * SAMPLES_PER_FRAME]

    def last(self, length: int) -> Tensor:
        """Features (length, layers, D) of the last frames."""
        heard = pre_emphasise(self._wave, max(0, len(self._wave) - PIECE))
        context = max(0, len(heard) - (length + CONTEXT) * SAMPLES_PER_FRAME)
        return _encode(self._encoder, through_pcm16(heard), context)[-length:]


def silence(encoder: SpeechEncoder, length: int) -> Tensor:
    """Features (length, layers, D) of 2 s of silence alone; zeros past their end."""
    return _pad_to(_encode(encoder, np.zeros(SILENCE, np.float32), 0), length)


def _encode(encoder: SpeechEncoder, wave: Wave, start: int) -> Tensor:
    """Features of samples [start, end), a whole frame or more, at the level of the wave."""
    padded = pad_piece(normalise_piece(wave)[start:])
    with torch.inference_mode():
        features: Tensor = encoder(padded[None].to(encoder.device))[0]
    return features


def _pad_to(features: Tensor, length: int) -> Tensor:
    return F.pad(features, (0, 0, 0, 0, 0, length - len(features)))
