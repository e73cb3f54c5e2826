"""The world around a synthetic voice: as loud as asked, in time, and never the speaker's own."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moda_cli.config import SAMPLE_RATE
from moda_cli.data.synthetic.music import music
from moda_cli.data.synthetic.world import (
    CODECS,
    KINDS,
    VOICE_RMS,
    background,
    in_room,
    over_a_line,
    recorded,
    through,
)
from moda_cli.media.waves import Wave

EXAMPLES = Path(__file__).parents[2] / "examples"


def voice(seconds: float, seed: int = 0) -> Wave:
    """The example's speech from somewhere on, at the level of clean speech."""
    wave, _ = soundfile.read(EXAMPLES / "speech.wav", dtype="float32")
    wave = np.roll(wave, 7000 * seed)[: int(seconds * SAMPLE_RATE)]
    return wave * np.float32(VOICE_RMS / np.sqrt(np.mean(wave**2)))


@pytest.mark.parametrize("kind", KINDS)
@given(length=st.integers(8000, 60000), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_background_has_the_power_it_is_said_to_have(kind: str, length: int, seed: int) -> None:
    sound = background(kind, length, [voice(2, seed)], np.random.default_rng(seed))
    assert sound.shape == (length,)
    assert np.isfinite(sound).all()
    assume(sound.any())  # what comes and goes may be away all the time of a short piece
    assert np.mean(sound**2) == pytest.approx(1, rel=1e-6)


def test_music_has_tones_and_a_tempo_and_no_two_pieces_are_alike() -> None:
    pieces = [music(4 * SAMPLE_RATE, np.random.default_rng(seed)) for seed in range(12)]
    for piece in pieces:
        power = np.abs(np.fft.rfft(piece)) ** 2
        assert np.sort(power)[::-1][: len(power) // 50].sum() > 0.5 * power.sum()  # lines, no noise
    alike = np.corrcoef(np.abs(np.fft.rfft(pieces)))
    assert np.abs(alike[~np.eye(len(pieces), dtype=bool)]).max() < 0.9


def lag(heard: np.ndarray, spoken: np.ndarray) -> int:
    """Samples by which `heard` comes later."""
    size = 1 << (2 * len(spoken)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(spoken, size))
    best = int(np.abs(np.fft.irfft(spectrum, size)).argmax())
    return best if best < size // 2 else best - size


def test_a_room_and_a_line_keep_the_voice_in_time() -> None:
    spoken = voice(4)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        assert abs(lag(in_room(spoken, rng), spoken)) < 0.005 * SAMPLE_RATE
        assert abs(lag(over_a_line(spoken.astype(float), rng), spoken)) < 0.01 * SAMPLE_RATE
    for codec, suffix, rate, kbps in CODECS:
        options = ("-ar", str(rate), "-c:a", codec, "-b:a", f"{kbps[0]}k")
        coded = through(spoken.astype(float), suffix, *options)
        assert abs(lag(coded, spoken)) < 0.01 * SAMPLE_RATE  # a quarter of a frame
        assert len(coded) == len(spoken)


def test_a_recording_is_decided_by_its_seed_and_fits_its_file() -> None:
    spoken, others = voice(3), [voice(2, seed) for seed in (1, 2)]
    levels = []
    for seed in range(60):
        heard, again = (recorded(spoken, others, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(heard, again)
        assert heard.dtype == np.float32
        assert heard.shape == spoken.shape
        assert np.abs(heard).max() <= 1
        levels.append(20 * np.log10(np.sqrt(np.mean(heard**2))))
    assert min(levels) < -38
    assert max(levels) > -12


def test_where_nobody_speaks_something_else_is_heard() -> None:
    nobody = np.zeros(3 * SAMPLE_RATE, np.float32)
    for seed in range(20):
        heard = recorded(nobody, [voice(2)], np.random.default_rng(seed))
        assert heard.any()
