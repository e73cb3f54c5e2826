"""Which evaluations a guided velocity takes, and that a timeline rules frame by frame."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from by_rule import GOLDEN, SMALL, mmdit_by_rule
from moda_cli.config import ModelConfig, SamplerConfig
from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
from moda_cli.generator.sampler import euler_sigmas, sample_euler
from moda_cli.motion import MOUTH_CHANNELS


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "sample_small.safetensors")


@pytest.fixture(scope="module")
def network():
    return mmdit_by_rule(SMALL, "motion_generator_small.json")


def evaluate(
    config: SamplerConfig,
    full: float,
    audio: float,
    emotion: float,
    null: float,
    model: ModelConfig = SMALL,
) -> float:
    values = {
        (True, True): full,
        (False, True): audio,
        (True, False): emotion,
        (False, False): null,
    }
    return sum(t.weight * values[t.audio, t.emotion] for t in guidance_terms(config, model))


def test_guidance_forms() -> None:
    joint = evaluate(SamplerConfig(guidance=3.0), full=2.0, audio=5, emotion=7, null=1.0)
    assert joint == pytest.approx(1 + 3 * (2 - 1))
    default = evaluate(SamplerConfig(), full=2.0, audio=5, emotion=7, null=1.0)
    assert default == pytest.approx(1 + 1.2)
    each = evaluate(SamplerConfig(audio_scale=3.0, emotion_scale=1.5), 2.0, 1.0, 0.5, 9)
    assert each == pytest.approx(2 + 2 * (2 - 1) + 0.5 * (2 - 0.5))
    one = evaluate(SamplerConfig(emotion_scale=2.0), 2.0, 1.0, 0.5, 9)
    assert one == pytest.approx(2 + (2 - 0.5))
    stored = replace(SMALL, guidance=None, audio_scale=3.0)
    assert evaluate(SamplerConfig(), 2.0, 1.0, 0.5, 9, stored) == pytest.approx(2 + 2 * (2 - 1))
    both = evaluate(SamplerConfig(emotion_scale=2.0), 2.0, 1.0, 0.5, 9, stored)
    assert both == pytest.approx(2 + 2 * (2 - 1) + (2 - 0.5))
    asked = evaluate(SamplerConfig(guidance=1.5), 2.0, 5.0, 7.0, 1.0, stored)
    assert asked == pytest.approx(1 + 1.5 * (2 - 1))


def test_terms_of_weight_zero_are_not_evaluated(network, golden) -> None:
    calls: list[int] = []
    hook = network.register_forward_pre_hook(lambda _m, args: calls.append(len(args[0])))
    audio, z = golden["in.audio"][:80], golden["in.noise"][0]
    ones = torch.ones(80)

    def evaluations(config: SamplerConfig, emotions: dict[int, Tensor]) -> int:
        terms = guidance_terms(config, SMALL)
        window = Window(audio, emotions, golden["in.kp"][0], golden["in.prev_motion"][0], terms)
        with torch.inference_mode():
            guided_velocity(network, [window], [0.5, 0.0])(z, 0.5)
        return calls[-1]

    half = torch.cat((torch.ones(40), torch.zeros(40)))
    assert evaluations(SamplerConfig(guidance=1.0), {4: ones}) == 1
    assert evaluations(SamplerConfig(), {4: ones}) == 2
    assert evaluations(SamplerConfig(emotion_scale=2.0), {8: ones}) == 1
    assert evaluations(SamplerConfig(audio_scale=2.0, emotion_scale=2.0), {4: ones}) == 3
    assert evaluations(SamplerConfig(), {4: half, 5: 1 - half}) == 3
    hook.remove()


def test_a_timeline_changes_the_motion_only_where_its_class_rules(network, golden) -> None:
    audio, z = golden["in.audio"][:80], golden["in.noise"][0]
    half = torch.cat((torch.ones(40), torch.zeros(40)))
    terms = guidance_terms(SamplerConfig(guidance=1.0), SMALL)

    def velocity(emotions: dict[int, Tensor]) -> Tensor:
        window = Window(audio, emotions, golden["in.kp"][0], golden["in.prev_motion"][0], terms)
        with torch.inference_mode():
            return guided_velocity(network, [window], [0.5, 0.0])(z, 0.5)[0]

    both = velocity({4: half, 0: 1 - half})
    torch.testing.assert_close(both[:40], velocity({4: torch.ones(80)})[:40])
    torch.testing.assert_close(both[40:], velocity({0: torch.ones(80)})[40:])


def test_the_audio_is_guided_in_the_mouth_and_above_a_noise_level(golden) -> None:
    shape = replace(SMALL, guidance=None, audio_scale=3.0)
    there = replace(shape, audio_scale_above=0.6, audio_scale_mouth=True)
    network = mmdit_by_rule(there, "motion_generator_small.json")
    calls: list[int] = []
    network.register_forward_pre_hook(lambda _m, args: calls.append(len(args[0])))
    audio, z = golden["in.audio"][:80], golden["in.noise"][0]

    def velocities(config: SamplerConfig, model: ModelConfig) -> list[Tensor]:
        terms = guidance_terms(config, model)
        label = {4: torch.ones(80)}
        window = Window(audio, label, golden["in.kp"][0], golden["in.prev_motion"][0], terms)
        velocity = guided_velocity(network, [window], [0.9, 0.6, 0.3, 0.0])
        with torch.inference_mode():
            return [velocity(z, sigma)[0] for sigma in (0.9, 0.6, 0.3)]

    plain, full = (velocities(SamplerConfig(audio_scale=s), shape) for s in (1.0, 3.0))
    calls.clear()
    made = velocities(SamplerConfig(), there)
    assert calls == [2, 2, 1]
    mouth = torch.zeros(70, dtype=torch.bool)
    mouth[list(MOUTH_CHANNELS)] = True
    for own, alone, all_of_it in zip(made[:2], plain, full, strict=False):
        torch.testing.assert_close(own[:, ~mouth], alone[:, ~mouth])
        torch.testing.assert_close(own[:, mouth], all_of_it[:, mouth])
        assert (own - alone)[:, mouth].abs().max() > 1e-3
    torch.testing.assert_close(made[2], plain[2])
    asked = velocities(SamplerConfig(emotion_scale=2.0), there)  # beside it, everywhere
    assert (asked[2] - plain[2])[:, ~mouth].abs().max() > 1e-3


@pytest.mark.parametrize(("second_order", "gained"), [(False, 2), (True, 4)])
def test_twice_the_steps_of_either_order(golden, second_order: bool, gained: int) -> None:
    shape = replace(SMALL, second_order=second_order)
    network = mmdit_by_rule(shape, "motion_generator_small.json")
    terms = guidance_terms(SamplerConfig(guidance=1.0), shape)
    audio, label = golden["in.audio"][:80], {4: torch.ones(80)}
    window = Window(audio, label, golden["in.kp"][0], golden["in.prev_motion"][0], terms)

    def error(steps: int) -> float:
        sigmas = euler_sigmas(steps, None)
        velocity = guided_velocity(network, [window], sigmas, lambda z, *_: z)  # dz/dsigma = z
        return abs(
            float(sample_euler(velocity, torch.ones(1, 80, 70), sigmas).mean()) - math.exp(-1)
        )

    assert error(16) / error(32) == pytest.approx(gained, rel=0.1)
