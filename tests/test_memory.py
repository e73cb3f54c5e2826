"""Memory does not grow with the length of the sound."""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moda_cli.errors import UsageError
from moda_cli.media.sound import LiveSound, sound_blocks, stored_wave
from moda_cli.media.waves import reader
from moda_cli.speech.logmel import LogMel

STATM = Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="reads /proc")

MINUTES = 15  # 58 MB as float32, another 29 MB as log-mel
GROWTH_MB = 15


def resident_mb() -> float:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.wav"
    minute = np.random.default_rng(0).integers(-9999, 9999, 60 * 16000).astype(np.int16)
    with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16") as file:
        for _ in range(MINUTES):
            file.write(minute)
    return path


@pytest.mark.parametrize("live", [False, True])
def test_features_of_long_sound_take_the_memory_of_short(long_sound: Path, live: bool) -> None:
    def hear(seconds: float) -> int:
        with LiveSound(long_sound) as sound, stored_wave(long_sound) as stored:
            mel = LogMel(sound.read if live else reader(stored))
            start = 0
            while mel.window(start, 80).isfinite().all() and mel.frames(start + 81) > start + 80:
                start += 64
                if start > 25 * seconds:
                    break
            return start

    hear(90)  # the last minute is kept
    before = resident_mb()
    assert hear(np.inf) > 25 * 60 * MINUTES - 81
    assert resident_mb() - before < GROWTH_MB


def test_a_stored_wave_is_the_wave(
    long_sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with stored_wave(long_sound) as stored:
        assert len(stored) == MINUTES * 60 * 16000
        first = next(sound_blocks(long_sound))
        np.testing.assert_array_equal(stored[: len(first)], first)
        np.testing.assert_array_equal(stored[-5:], stored[len(stored) - 5 : len(stored) + 9])
        assert len(stored[len(stored) :]) == 0
        for start, (rate, block) in enumerate(islice(stored.track(), 3)):
            assert rate == 16000
            np.testing.assert_array_equal(block[:, 0], stored[start * len(block) :][: len(block)])
        assert sum(len(block) for _, block in stored.track()) == len(stored)
        assert not list(tmp_path.iterdir())  # that a killed process could leave behind


def test_a_wave_that_cannot_be_stored(long_sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    with pytest.raises(UsageError, match="No space left") as caught:
        stored_wave(long_sound).__enter__()
    assert tempfile.gettempdir() in str(caught.value)
    assert "TMPDIR" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_a_longer_video_takes_the_memory_of_a_short_one(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "0.25", "1.5", *options]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    short, long = (json.loads(line) for line in done.stdout.splitlines()[:2])
    assert (short["frames"], long["frames"]) == (375, 2250)
    assert long["peak_mb"] < 1.1 * short["peak_mb"]
