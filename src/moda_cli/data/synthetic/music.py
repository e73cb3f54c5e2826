"""Music made by rule: chords, a melody, a bass and drums, in a key and tempo of their own."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from moda_cli.config import SAMPLE_RATE

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))  # major and minor, in semitones
BEATS_IN_BAR = 4

Tone = NDArray[np.float64]
Tones = list[tuple[int, Tone]]  # (sample at which it starts, the tone)
Pitch = Callable[[int], float]  # step of a scale -> Hz
Instrument = Callable[[float, int], Tone]  # (Hz, samples) -> the tone


def music(num_samples: int, rng: Generator) -> Tone:
    """A piece (num_samples,) at 16 kHz, from somewhere in it; its loudness is the caller's."""
    beat = int(SAMPLE_RATE * 60 / rng.uniform(70, 150))
    length = num_samples + BEATS_IN_BAR * beat
    piece = np.zeros(length)
    parts = rng.random(4) < (0.7, 0.6, 0.6, 0.5)
    if not parts.any():
        parts[0] = True
    for plays, part in zip(parts, (_chords, _melody, _drums, _bass), strict=True):
        if plays:
            for start, tone in part(length, beat, rng):
                end = min(length, start + len(tone))
                piece[start:end] += tone[: end - start]
    begin = int(rng.integers(length - num_samples + 1))
    return piece[begin : begin + num_samples]


def _chords(length: int, beat: int, rng: Generator) -> Tones:
    """A triad on a step of the scale in every bar, or half bar."""
    voice, pitch = _instrument(rng), _pitches(rng.uniform(100, 260), rng)
    bar = beat * int(rng.choice((2, 4)))
    sustain = rng.uniform(0.6, 1.1)
    tones: Tones = []
    for start in range(0, length, bar):
        root = int(rng.integers(7))
        tones += [(start, 0.5 * voice(pitch(root + k), int(sustain * bar))) for k in (0, 2, 4)]
    return tones


def _melody(length: int, beat: int, rng: Generator) -> Tones:
    """Steps and small leaps in half, whole and double beats, with rests."""
    voice, pitch = _instrument(rng), _pitches(rng.uniform(180, 700), rng)
    tones: Tones = []
    start, step = 0, int(rng.integers(7))
    while start < length:
        duration = int(beat * rng.choice((0.5, 1, 2), p=(0.45, 0.4, 0.15)))
        if rng.random() < 0.85:
            tones.append((start, voice(pitch(step), int(duration * rng.uniform(0.6, 1.1)))))
        step = int(np.clip(step + rng.integers(-3, 4), -5, 12))
        start += duration
    return tones


def _bass(length: int, beat: int, rng: Generator) -> Tones:
    """A low note on every beat or half beat, most of one pitch in a bar; louder than the rest."""
    voice, pitch = _instrument(rng), _pitches(rng.uniform(35, 80), rng)
    loud, step = rng.uniform(0.7, 2.5), int(rng.choice((1, 2)))
    tones: Tones = []
    root = 0
    for number, start in enumerate(range(0, length, beat // step)):
        if number % (BEATS_IN_BAR * step) == 0:
            root = int(rng.integers(7))
        if rng.random() < 0.8:
            hz = pitch(root + int(rng.choice((0, 0, 0, 2, 4))))
            tones.append((start, loud * voice(hz, int(beat / step * rng.uniform(0.5, 1.1)))))
    return tones


def _drums(length: int, beat: int, rng: Generator) -> Tones:
    """A kick on whole beats, a snare between them, a hat on the halves; none comes always."""
    often = rng.uniform(0.4, 1.0, 3)
    loud = rng.uniform(0.3, 1.5, 3)
    tones: Tones = []
    for number, start in enumerate(range(0, length, beat // 2)):
        hits = (number % 4 == 0, number % 4 == 2, True) & (rng.random(3) < often)
        made = (_kick, _snare, _hat)
        tones += [(start, loud[k] * made[k](rng)) for k in range(3) if hits[k]]
    return tones


def _pitches(lowest: float, rng: Generator) -> Pitch:
    scale = SCALES[int(rng.integers(len(SCALES)))]

    def pitch(step: int) -> float:
        """Hz of a step of the scale above (or below) the lowest."""
        octave, degree = divmod(step, 7)
        return float(lowest * 2 ** (octave + scale[degree] / 12))

    return pitch


def _instrument(rng: Generator) -> Instrument:
    """Its harmonics, how a tone begins and dies away, its vibrato."""
    harmonics = int(rng.integers(1, 9))
    loud = rng.uniform(0.4, 0.95) ** np.arange(harmonics) * rng.uniform(0.3, 1, harmonics)
    attack_s, decay_s = 10 ** rng.uniform(-2.5, -0.9), 10 ** rng.uniform(-0.9, 0.7)
    depth, rate = rng.choice((0.0, 0.003, 0.008)), rng.uniform(4, 7)

    def tone(hz: float, num_samples: int) -> Tone:
        time = np.arange(max(1, num_samples)) / SAMPLE_RATE
        phase = 2 * np.pi * hz * (time - depth / rate * np.cos(2 * np.pi * rate * time))
        heard = np.arange(1, harmonics + 1)
        heard = heard[heard * hz < SAMPLE_RATE / 2]
        wave = loud[: len(heard)] @ np.sin(heard[:, None] * phase)
        end = np.minimum(1, (time[-1] - time) / 0.02)
        shaped: Tone = wave * np.minimum(1, time / attack_s) * end * np.exp(-time / decay_s)
        return shaped

    return tone


def _kick(rng: Generator) -> Tone:
    time = np.arange(SAMPLE_RATE // 5) / SAMPLE_RATE
    hit: Tone = np.sin(2 * np.pi * (50 * time + 3 * (1 - np.exp(-30 * time)))) * np.exp(-20 * time)
    return hit


def _snare(rng: Generator) -> Tone:
    time = np.arange(SAMPLE_RATE // 6) / SAMPLE_RATE
    rattle = rng.standard_normal(len(time))
    hit: Tone = 0.5 * (rattle + np.sin(2 * np.pi * 190 * time)) * np.exp(-25 * time)
    return hit


def _hat(rng: Generator) -> Tone:
    time = np.arange(SAMPLE_RATE // 12) / SAMPLE_RATE
    hit: Tone = 0.3 * np.diff(rng.standard_normal(len(time) + 1)) * np.exp(-60 * time)
    return hit
