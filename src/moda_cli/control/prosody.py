"""Emotions heard in a voice by simple prosody: how loud, how high, how fast, and how even.

Arousal is what prosody tells best: an aroused voice is louder, higher, faster and more varied.
Valence it tells poorly: with arousal, a melody that moves is taken for joy and one that presses on
with little of it for anger; without, a low and even voice is taken for sadness. It is a guess to be
edited (Scherer 2003, Vocal communication of emotion, table 2), not a recogniser.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import EMOTIONS, SAMPLE_RATE
from moda_cli.control.silence import Silence
from moda_cli.control.timeline import Entry
from moda_cli.media.waves import Samples, reader

ORIGIN = "--emotion auto"
PAUSE = 8  # frames of rest that part two phrases
SHORTEST_S, LONGEST_S = 1.5, 8.0  # of what is judged at once
PITCH_HZ = (65.0, 500.0)
HOP = 320  # samples
UNPITCHED_DB = 25.0  # so far below the loudest a frame has no pitch
# what an unmoved speaker has, and how much more is as much again
MELODY = 2.5, 2.5  # standard deviation of pitch, semitones
RATE = 4.0, 2.0  # syllables a second
SWING = 6.0, 3.0  # standard deviation of loudness, dB
WIDEST = 6.0  # semitones of it that are believed: more are errors of the pitch
CALM = 0.35  # arousal or valence that is not yet an emotion
SILENT_DB = -55.0  # of the loudest frame: nothing is said


@dataclass(frozen=True, slots=True)
class Phrase:
    """How a stretch of speech sounds. pitch in semitones, loudness in dB."""

    start: float  # seconds
    melody: float
    rate: float
    swing: float
    pitch: float
    loudness: float


def hear_emotions(sound: Samples) -> list[Entry]:
    """An emotion and its intensity for each phrase of a 16 kHz wave that changes it."""
    phrases = [phrase for part in _stretches(sound) if (phrase := _phrase(*part))]
    entries: list[Entry] = []
    for phrase in phrases:
        name, intensity = emotion_of(*affect(phrase, phrases))
        value = (EMOTIONS.index(name), intensity)
        if not entries or entries[-1].values["emotion"] != value:
            at = phrase.start if entries else 0.0
            entries.append(Entry(at, {"emotion": value}, ORIGIN, ease=0.8))
    return entries or [Entry(0.0, {"emotion": (EMOTIONS.index("neutral"), 1.0)}, ORIGIN)]


def affect(phrase: Phrase, phrases: list[Phrase]) -> tuple[float, float]:
    """Arousal and valence of a phrase, -1 to 1, beside the others of its speaker."""
    melody = (phrase.melody - MELODY[0]) / MELODY[1]
    rate = (phrase.rate - RATE[0]) / RATE[1]
    swing = (phrase.swing - SWING[0]) / SWING[1]
    pitch = (phrase.pitch - float(np.median([each.pitch for each in phrases]))) / 3
    loud = (phrase.loudness - float(np.median([each.loudness for each in phrases]))) / 4
    arousal = math.tanh(0.4 * melody + 0.4 * rate + 0.1 * swing + 0.35 * pitch + 0.35 * loud)
    valence = math.tanh(0.7 * melody + 0.2 * pitch - 0.3 * loud)
    return arousal, valence


def emotion_of(arousal: float, valence: float) -> tuple[str, float]:
    """The class in that direction of the plane, and how much of it in tenths."""
    strength = round(min(1.0, math.hypot(arousal, valence)), 1)
    if max(abs(arousal), abs(valence)) < CALM:
        return "neutral", 1.0
    if arousal >= 0.85 and valence >= 0.85:
        return "surprise", strength
    if valence >= 0 and arousal > -CALM:
        return "happy", strength
    if arousal > CALM:
        return "anger", strength
    if valence < -CALM / 2 and arousal < 0:
        return "sad", strength
    return "neutral", 1.0


def _stretches(sound: Samples) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """(second, wave) of the phrases, cut at pauses, none too short to be judged or too long."""
    silence = Silence(reader(sound))
    hop = SAMPLE_RATE // 25
    count, start, resting = -(-len(sound) // hop), 0, 0
    for first in range(0, count, 250):
        rest = silence.rest(first, min(250, count - first))
        for frame, quiet in enumerate((rest > 0.5).tolist(), start=first + 1):
            resting = resting + 1 if quiet else 0
            lasts = (frame - start) / 25
            if (lasts >= SHORTEST_S and resting == PAUSE) or lasts >= LONGEST_S:
                yield start / 25, sound[start * hop : frame * hop]
                start = frame
    if (count - start) / 25 >= SHORTEST_S or not start:
        yield start / 25, sound[start * hop : count * hop]


def _phrase(start: float, wave: NDArray[np.float32]) -> Phrase | None:
    """How a wave from a second on sounds; None where nothing is said in it."""
    import librosa  # takes a second to load; nothing else needs it

    frame = 1024
    if len(wave) < 2 * frame:
        wave = np.pad(wave, (0, 2 * frame - len(wave)))
    level = librosa.amplitude_to_db(
        librosa.feature.rms(y=wave, frame_length=frame, hop_length=HOP)[0], ref=1.0, amin=1e-6
    )
    if level.max() < SILENT_DB:
        return None
    spoken = level > level.max() - UNPITCHED_DB
    hertz = librosa.yin(
        wave, fmin=PITCH_HZ[0], fmax=PITCH_HZ[1], sr=SAMPLE_RATE, frame_length=frame, hop_length=HOP
    )
    steady = np.abs(np.diff(np.log2(hertz), prepend=np.log2(hertz[0]))) < 0.1  # an octave is 1
    inner = (hertz > 1.05 * PITCH_HZ[0]) & (hertz < 0.95 * PITCH_HZ[1])
    tones = 12 * np.log2(hertz[: len(level)][(spoken & steady & inner)[: len(level)]] / 100)
    if len(tones) < 10:
        tones = np.zeros(1)
    peaks = librosa.util.peak_pick(
        level, pre_max=3, post_max=3, pre_avg=8, post_avg=8, delta=1.0, wait=5
    )
    said = max(float(spoken.sum()) * HOP / SAMPLE_RATE, 0.2)
    return Phrase(
        start,
        melody=min(float(np.subtract(*np.percentile(tones, (84, 16)))) / 2, WIDEST),
        rate=float(spoken[peaks].sum()) / said,
        swing=float(level[spoken].std()),
        pitch=float(np.median(tones)),
        loudness=float(level[spoken].mean()),
    )
