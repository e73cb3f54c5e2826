"""Models of long windows live, as the official one: windows that slide over the motion before."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import moda_cli as moda
import official
from by_rule import SMALL, mmdit_by_rule
from moda_cli.config import FPS, SAMPLES_PER_FRAME, SamplerConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.errors import UsageError
from moda_cli.generator.hearing import HearsSpeech
from moda_cli.generator.hops import Hop, HopSampler
from moda_cli.generator.model import MotionGenerator
from moda_cli.media.waves import reader
from moda_cli.motion import MOUTH_CHANNELS, Source
from moda_cli.speech.encoder import SpeechEncoder
from moda_cli.speech.released import LiveSpeech, PushedSpeech
from released_clip import golden, source, stats  # noqa: F401  (fixtures)
from speech_by_rule import speech_encoder_by_rule

HOP = Hop(new=8)
BLOCK = HOP.new * SAMPLES_PER_FRAME
CONFIG = SamplerConfig(steps=3, seed=5)


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return speech_encoder_by_rule("hubert_small.json")


@pytest.fixture(scope="module")
def model(stats) -> MotionGenerator:
    return MotionGenerator(mmdit_by_rule(SMALL, "motion_generator_small.json"), stats)


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal(14 * BLOCK)).astype(np.float32)


def sampler_of(
    model: MotionGenerator, encoder: SpeechEncoder, source: Source, config: SamplerConfig = CONFIG
) -> HopSampler:
    assert Hop.of(model) == HOP
    return HearsSpeech(encoder).hops(model, parse_emotion("happy"), config, source, HOP)


def moved(sampler: HopSampler, wave: np.ndarray) -> torch.Tensor:
    shares = parse_emotion("happy").emotion_shares
    return torch.cat([sampler.step(block, shares) for block in wave.reshape(-1, BLOCK)])


def test_pushed_speech_is_heard_as_what_arrives(encoder: SpeechEncoder, wave: np.ndarray) -> None:
    silent = 5
    whole = np.concatenate((np.zeros(silent * SAMPLES_PER_FRAME, np.float32), wave))
    pushed, arriving = PushedSpeech(encoder, silent), LiveSpeech(encoder, reader(whole))
    for block in wave.reshape(-1, BLOCK):
        pushed.push(block)
    heard = pushed.last(80)
    frames = len(whole) // SAMPLES_PER_FRAME
    assert torch.equal(heard, arriving.window(frames - 80, 80))
    pushed.take_back(3)
    assert not torch.allclose(pushed.last(80), heard, atol=1e-2)
    pushed.push(wave[-3 * SAMPLES_PER_FRAME :])
    assert torch.equal(pushed.last(80), heard)


def test_a_pushed_hour_is_not_kept(encoder: SpeechEncoder) -> None:
    """Beyond 60 s a window is what it would be if the sound had begun 60 s before its end."""
    sound = np.random.default_rng(0).normal(0, 0.1, 70 * 16000).astype(np.float32)
    sound[: 5 * 16000] *= 8
    pushed, later = PushedSpeech(encoder, 0), PushedSpeech(encoder, 0)
    for second in sound.reshape(70, -1):
        pushed.push(second)
    later.push(sound[-60 * 16000 :])
    torch.testing.assert_close(pushed.last(80), later.last(80), atol=1e-3, rtol=1e-3)
    assert len(pushed._wave) < 63 * 16000


def test_windows_are_as_long_as_trained_and_hear_no_further_than_a_hop(
    model, encoder, source, wave
) -> None:
    sampler = sampler_of(model, encoder, source)
    lengths = []
    hear = sampler.ear.last
    sampler.ear.last = lambda length: lengths.append(length) or hear(length)  # type: ignore
    motion = moved(sampler, wave)
    assert motion.shape == (14 * HOP.new, 70)
    assert motion.isfinite().all()
    assert set(lengths) == {SMALL.window}
    changed = wave.copy()
    changed[6 * BLOCK :] = 0
    other = moved(sampler_of(model, encoder, source), changed)
    assert torch.equal(motion[: 6 * HOP.new], other[: 6 * HOP.new])
    assert not torch.allclose(motion[7 * HOP.new :], other[7 * HOP.new :], atol=1e-2)
    assert torch.equal(motion, moved(sampler_of(model, encoder, source), wave))
    seeded = moved(sampler_of(model, encoder, source, replace(CONFIG, seed=6)), wave)
    assert not torch.allclose(motion, seeded, atol=1e-2)


def test_the_overlap_is_carried(model, encoder, source, wave) -> None:
    """It begins at the portrait's motion, and does not jump where one window follows another."""
    motion = moved(sampler_of(model, encoder, source), wave)
    z = model.stats.normalise(motion)
    head = [k for k in range(70) if k not in MOUTH_CHANNELS and k not in range(63, 67)]
    steps = z[:, head].diff(dim=0).abs().mean(dim=1)
    starts = torch.arange(HOP.new, len(z), HOP.new) - 1  # from one hop's last to the next's first
    within = torch.ones(len(steps), dtype=torch.bool)
    within[starts] = False
    assert steps[starts].mean() < 1.5 * steps[within].mean()
    first = (z[0] - model.stats.normalise(source.motion))[head].abs().mean()
    assert first < 2 * steps.mean()


def test_windows_that_are_shorter_than_a_hop_are_refused(model, encoder, source) -> None:
    short = MotionGenerator(
        mmdit_by_rule(replace(SMALL, window=10, overlap=4), "motion_generator_small.json"),
        model.stats,
    )
    with pytest.raises(UsageError, match="windows of 10 frames are too short"):
        sampler_of(short, encoder, source)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> moda.Pipeline:
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
    official.manifest_of(official.SMALL, tmp_path / "weights.toml")
    monkeypatch.setenv("MODA_WEIGHTS", str(tmp_path / "weights.toml"))
    official.install(official.SMALL)
    official.save_portrait(tmp_path / "portrait.png")
    return moda.Pipeline.load("moda", "cpu")


def test_the_official_system_speaks_live(
    pipeline: moda.Pipeline, tmp_path: Path, wave: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """All of its networks, made by rule and small: frames in order, the sound in step, a mouth
    that moves, an interrupt; told that it is made for a GPU."""
    with pipeline.live(tmp_path / "portrait.png", size=64) as session:
        assert session.delay_s == pytest.approx(0.4 + 0.11)
        session.push(wave)
        session.push(wave)
        frames = session.frames()
        shown = list(islice(frames, 2 * FPS))
        assert [frame.number for frame in shown] == list(range(2 * FPS))
        heard = np.concatenate([frame.sound for frame in shown])
        start = int(np.flatnonzero(heard)[0])
        assert np.array_equal(heard[start:], wave[: len(heard) - start])
        pictures = np.stack([frame.picture for frame in shown])
        assert pictures.shape[1:] == (52, 64, 3)
        assert pictures.astype(float).std(axis=0).max() > 1
        session.interrupt()
        assert not any(frame.sound.any() for frame in islice(frames, FPS))
    assert "made for a GPU" in caplog.text
