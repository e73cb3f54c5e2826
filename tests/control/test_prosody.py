"""Emotions guessed from how a voice sounds: voices made by rule, and none at all."""

import numpy as np

from moda_cli.config import EMOTIONS
from moda_cli.control.prosody import hear_emotions
from moda_cli.control.timeline import Timeline
from moda_cli.control.timeline_file import described
from moda_cli.media.waves import Wave


def voice(seconds: float, pitch: float, melody: float, rate: float, level: float) -> Wave:
    """Syllables of a buzz: Hz, semitones of the melody up and down, syllables a second."""
    at = np.arange(round(16000 * seconds)) / 16000
    hertz = pitch * 2 ** (melody / 12 * np.sin(2 * np.pi * 0.6 * at))
    phase = 2 * np.pi * np.cumsum(hertz) / 16000
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * rate * at), 0.05, 1)
    return np.asarray(level * buzz * syllables, np.float32)


def heard(wave: Wave) -> list[tuple[float, str, float]]:
    entries = hear_emotions(wave)
    return [(e.at, EMOTIONS[e.values["emotion"][0]], e.values["emotion"][1]) for e in entries]


def test_a_lively_voice_and_a_flat_one() -> None:
    assert [name for _, name, _ in heard(voice(5, 220, 7, 5.5, 0.2))] == ["happy"]
    assert [name for _, name, _ in heard(voice(5, 110, 0.3, 2.5, 0.2))] == ["sad"]
    assert heard(voice(5, 150, 3, 3, 0.2)) == [(0, "neutral", 1)]


def test_a_voice_that_changes() -> None:
    pause = np.zeros(16000, np.float32)
    found = heard(np.concatenate((voice(4, 110, 0.3, 2.5, 0.05), pause, voice(4, 240, 8, 6, 0.3))))
    assert [name for _, name, _ in found] in (["sad", "happy"], ["sad", "surprise"])
    assert 3.9 < found[1][0] < 5.1


def test_silence_is_neutral_and_what_is_chosen_is_shown() -> None:
    entries = hear_emotions(np.zeros(32000, np.float32))
    assert 'emotion = "neutral"' in described(Timeline.of(entries))
