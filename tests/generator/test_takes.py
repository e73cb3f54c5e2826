"""From a wave and a portrait's motion to the released motion, end to end; and log-mel models."""

import os
import traceback
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from by_rule import SMALL, mmdit_by_rule
from moda_cli.config import EMOTIONS, SamplerConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.errors import WeightsError
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import (
    Take,
    causal_take,
    released_take,
    sample,
    sample_together,
    window_noise,
)
from moda_cli.motion import POSE, Source, Stats, unpack
from moda_cli.speech.released import SpeechFeatures
from moda_cli.train.presets import MINI
from released_clip import golden, source, stats  # noqa: F401  (fixtures)
from speech_by_rule import speech_encoder_by_rule

EMOTION = 6
CONFIG = SamplerConfig(guidance=1.2)
HAPPY, NONE = parse_emotion("happy"), parse_emotion("none")


@pytest.fixture(scope="module")
def model(stats) -> MotionGenerator:
    return MotionGenerator(mmdit_by_rule(SMALL, "motion_generator_small.json"), stats)


@pytest.fixture(scope="module")
def features(golden) -> SpeechFeatures:
    wave = golden["in.wave_i16"].numpy().astype(np.float32) / np.float32(32768)
    return SpeechFeatures(speech_encoder_by_rule("hubert_small.json"), wave)


def test_features_of_a_clip(features, golden) -> None:
    joined = golden["joined_i16"].numpy()
    samples = features.samples(0, len(joined))
    np.testing.assert_array_equal((samples * 32768).astype(np.int16), joined)
    assert len(features) == 132
    torch.testing.assert_close(features.window(0, 132), golden["audio_emb"], atol=5e-4, rtol=1e-4)


def test_the_whole_chain_gives_the_released_motion(model, features, source, golden) -> None:
    noise = iter(golden["in.noise"])
    timeline = parse_emotion(EMOTIONS[EMOTION])
    take = released_take(model, features, timeline, CONFIG, source, lambda: next(noise))
    (motion,) = sample(model, take)
    assert motion.shape == (83, 70)  # the release leaves out a frame that the sound has begun
    motion = motion[:82]
    fields = unpack(motion)
    for name in ("expression", "scale", "translation"):
        expected = golden[f"out.{ {'expression': 'exp', 'translation': 't'}.get(name, name) }"]
        made = getattr(fields, name)
        torch.testing.assert_close(made, expected.reshape(made.shape), atol=5e-4, rtol=1e-4)
    angles = torch.cat([golden[f"out.{name}"] for name in ("pitch", "yaw", "roll")], dim=1)
    torch.testing.assert_close(fields.pose, angles, atol=2e-2, rtol=1e-4)
    z = model.stats.normalise(motion)[:, POSE]
    torch.testing.assert_close(z, golden["motion_lip"][:82, POSE], atol=5e-4, rtol=1e-4)


def test_the_seed_alone_decides_the_noise(model, features, source) -> None:
    def seeded(seed: int) -> Tensor:
        config = replace(CONFIG, steps=1, seed=seed)
        return next(sample(model, released_take(model, features, HAPPY, config, source)))

    first = seeded(1)
    torch.manual_seed(7)  # the global generator plays no part
    assert torch.equal(first, seeded(1))
    assert not torch.equal(first, seeded(2))


def test_clips_sampled_side_by_side_are_those_sampled_alone(
    model, features, source, golden
) -> None:
    """Other lengths, speeches, portraits, emotions, guidance and seeds."""
    joint = replace(CONFIG, steps=2)
    apart = SamplerConfig(steps=2, audio_scale=2.0, emotion_scale=1.5, seed=3)
    wave = golden["in.wave_i16"].numpy()[: 20 * 640] / np.float32(32768)
    other = SpeechFeatures(features._encoder, wave)
    near = Source(source.motion.clone(), source.kp_canonical + 0.1)
    near.motion[63:67] *= 1.5
    takes = [
        released_take(model, features, HAPPY, joint, source),
        released_take(model, other, NONE, apart, near),
        released_take(
            model, features, parse_emotion("0:anger,1:neutral"), replace(apart, seed=9), source
        ),
        released_take(model, other, parse_emotion("disgust"), replace(joint, guidance=1.0), near),
    ]
    together = sample_together(model, takes)
    for made, take in zip(together, takes, strict=True):
        (alone,) = sample(model, replace(take, draw_noise=window_noise(SMALL, take.config.seed)))
        torch.testing.assert_close(made, alone, atol=1e-4, rtol=1e-4)


def test_four_calls_lead_to_the_network(model, features, source, monkeypatch) -> None:
    """Whoever reads how motion is made reads these and no others, also for sound as it comes."""
    calls: set[tuple[str, ...]] = set()

    def forward(network: MMDiT, *given: object) -> Tensor:
        names = [
            frame.f_code.co_qualname.rpartition(".")[2]
            for frame, _ in traceback.walk_stack(None)
            if f"{os.sep}moda_cli{os.sep}" in frame.f_code.co_filename
        ]
        calls.add(tuple(reversed(names)))
        return plain(network, *given)

    plain = MMDiT.forward
    monkeypatch.setattr(MMDiT, "forward", forward)
    config = replace(CONFIG, steps=1)
    list(sample(model, released_take(model, features, HAPPY, config, source)))
    causal = small_logmel("constant", model.stats)
    list(sample(causal, causal_take(causal, np.zeros(6400, np.float32), HAPPY, config)))
    assert calls == {("sample", "sample_windows", "sample_euler", "velocity")}


def test_a_portraits_model_needs_a_portrait(model, features) -> None:
    with pytest.raises(WeightsError, match="motion extractor"):
        released_take(model, features, NONE, CONFIG, None)


def small_logmel(source: str, stats: Stats) -> MotionGenerator:
    torch.manual_seed(0)
    small = replace(MINI, hidden_dim=32, num_heads=2, single_stream_depth=1, source=source)
    network = MMDiT(small)
    network.init_weights()
    for weight in network.parameters():
        if not weight.any():  # what training starts from would shut out every condition
            torch.nn.init.normal_(weight, std=0.1)
    return MotionGenerator(network.eval(), stats)


def test_a_log_mel_model_starts_from_the_portrait_it_was_trained_for(source, stats) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 90 * 640).astype(np.float32)
    config = SamplerConfig(steps=2)

    def made_by(kind: str, given: Source | None) -> Tensor:
        model = small_logmel(kind, stats)
        return torch.cat(list(sample(model, causal_take(model, wave, NONE, config, given))))

    extracted = made_by("extracted", source)
    assert torch.equal(extracted[0], source.motion)
    twice = Source(source.motion.clone(), source.kp_canonical)
    ratio = 2.0
    twice.motion[63:67] *= ratio
    larger = made_by("extracted", twice)  # the same face, nearer: the same motion, larger
    torch.testing.assert_close(larger[:, :63], extracted[:, :63], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(larger[:, 63:67], ratio * extracted[:, 63:67], atol=1e-4, rtol=1e-3)
    other = Source(source.motion, source.kp_canonical + 1)
    assert not torch.allclose(made_by("extracted", other)[20:], extracted[20:])
    assert torch.equal(made_by("constant", source), made_by("constant", None))
    assert torch.equal(made_by("constant", None)[0], stats.neutral)


@pytest.mark.gpu
def test_recorded_steps_give_the_plain_motion(stats) -> None:
    """Windows of one clip and of two, in threads that take turns, beside other work on the GPU."""
    wave = np.random.default_rng(0).normal(0, 0.1, 90 * 640).astype(np.float32)
    config = SamplerConfig(steps=10, audio_scale=2.0)
    plain = small_logmel("constant", stats)
    there = MotionGenerator(deepcopy(plain.network).cuda(), stats)

    def takes(model: MotionGenerator) -> list[Take]:
        return [causal_take(model, sound, HAPPY, config) for sound in (wave, wave[:6400])]

    expected = [stats.normalise(motion) for motion in sample_together(plain, takes(plain))]
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(sample_together, there, takes(there)) for _ in range(3)]
        busy = torch.randn(4096, 4096, device="cuda")
        for _ in range(100):
            busy = (busy @ busy).clamp(-1, 1)
        for clips in [future.result() for future in made]:
            for motion, right in zip(clips, expected, strict=True):
                assert (stats.normalise(motion) - right).norm() <= 1e-3 * right.norm()
    assert not torch.backends.cuda.matmul.allow_tf32
