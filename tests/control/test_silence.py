"""Where nobody speaks the mouth is shut: told from the sound, in a file as while it arrives."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bundled_motion import articulators, bundled_model, motion_of, speech
from moda_cli.checks import Clip
from moda_cli.config import FPS, ClipConfig, ModelConfig, RenderConfig
from moda_cli.control.edits import Edits
from moda_cli.control.silence import Silence, told_of_rests
from moda_cli.control.timeline import Timeline
from moda_cli.generator.hearing import HearsMel
from moda_cli.generator.model import MotionGenerator
from moda_cli.media.waves import Wave, reader
from moda_cli.metrics.stability import silence_motion, silent_frames
from moda_cli.motion import JAW_OPENS, SCALE, TRANSLATION, Recording
from moda_cli.pipeline import Pipeline
from moda_cli.studio import RigStudio


@pytest.fixture(scope="module")
def pausing() -> Wave:
    """Speech to 3 s, a pause of 3 s, speech again."""
    wave = speech(6.0)
    return np.concatenate((wave[:48000], np.zeros(48000, np.float32), wave[48000:]))


def noisy(wave: Wave, level: float) -> Wave:
    hiss = np.random.default_rng(0).standard_normal(len(wave))
    return np.asarray(wave + level * hiss, np.float32)


@pytest.mark.parametrize("level", [0, 1e-4, 1e-3, 5e-3])  # the last 25 dB below the speech
def test_pauses_are_told_from_speech(pausing, level) -> None:
    rest = Silence(reader(noisy(pausing, level))).rest(0, 225)
    assert rest[85:140].min() == 1
    spoken = ~torch.from_numpy(silent_frames(pausing, 225))
    assert rest[spoken].mean() < 0.1
    assert (rest[1:] - rest[:-1]).abs().max() < 0.5  # eased


def test_a_tone_and_a_room_are_no_pauses() -> None:
    tone = (0.1 * np.sin(np.arange(80000) / 20)).astype(np.float32)
    assert Silence(reader(tone)).rest(10, 100).max() == 0
    assert Silence(reader(np.zeros(80000, np.float32))).rest(0, 125).min() == 1


def test_a_sound_that_arrives_is_judged_as_one_in_a_file(pausing) -> None:
    whole = Silence(reader(pausing)).rest(0, 225)
    live = Silence()
    read = live.hearing(reader(pausing))
    made = []
    for start in range(0, 225, 64):
        read(64 * 640 + (16 * 640 if not start else 0))  # what a window needs
        made.append(live.rest(start, min(64, 225 - start)))
    assert torch.equal(torch.cat(made), whole)


@pytest.mark.parametrize("emotion", ["none", "happy"])
def test_the_mouth_is_still_between_words(pausing, emotion) -> None:
    neutral = bundled_model().stats.neutral
    motion = motion_of(emotion, pausing)
    silence = Silence(reader(noisy(pausing, 1e-3)))
    made = torch.cat(list(Edits(neutral, Timeline(), RenderConfig(), silence.rest)([motion])))
    before, after = (articulators(each)[:, 0].numpy() * JAW_OPENS for each in (motion, made))
    assert silence_motion(before, pausing) > 0.0005  # distances between the pupils
    assert silence_motion(after, pausing) < 0.2 * silence_motion(before, pausing)
    assert abs(after[85:140]).max() < 0.001
    assert after.std() == pytest.approx(before.std(), rel=0.05)  # speech is as it was


@pytest.mark.parametrize(
    ("asked", "own", "recorded", "closes"),
    [
        (None, True, False, True),
        (None, False, False, False),  # the release has no gate: its numbers stay
        (None, True, True, False),
        (True, False, True, True),
        (False, True, False, False),
    ],
)
def test_who_closes_in_silence(asked, own, recorded, closes) -> None:
    stats = bundled_model().stats
    source = "constant" if own else "extracted"
    network = SimpleNamespace(config=ModelConfig(source=source))
    model = MotionGenerator(network, stats)  # type: ignore[arg-type]
    pipeline = Pipeline(model, "any", HearsMel(), RigStudio(None, None))
    given = Recording(stats.neutral[None], stats.neutral) if recorded else None
    config = ClipConfig(Path("a"), Path("b"), Path("c"), render=RenderConfig(silence_gate=asked))
    assert pipeline._closes_in_silence(Clip(config, Timeline(), FPS), given) == closes


def test_the_bundled_models_head_does_not_pulse(pausing) -> None:
    motion = motion_of("happy", pausing)
    for part in (SCALE, TRANSLATION):
        assert (motion[:, part] - motion[0, part]).abs().max() < 1e-3


def test_a_mouth_that_rests_through_sound_is_told_of(pausing, caplog) -> None:
    neutral = bundled_model().stats.neutral
    spoken = motion_of("none", pausing)
    resting = neutral.repeat(len(spoken), 1)
    later = torch.cat((spoken[:150], resting[150:]))

    def told(motion: torch.Tensor, wave: Wave) -> str:
        caplog.clear()
        pieces = motion.split(64)
        passed = told_of_rests(pieces, Silence(reader(wave)), neutral)
        assert all(a is b for a, b in zip(passed, pieces, strict=True))
        return caplog.text

    assert "rests in 6 of 6 s" in told(resting, pausing)
    assert "rests in 3 of 6 s" in told(later, pausing)
    hiss = noisy(np.zeros_like(pausing), 0.02)
    assert told(spoken, pausing) == told(resting, np.zeros_like(pausing)) == ""
    assert told(resting, hiss) == ""
