"""The window sampler against the released one, and its properties."""

import json
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from by_rule import GOLDEN, SMALL, mmdit_by_rule
from moda_cli.config import SamplerConfig
from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
from moda_cli.generator.sampler import (
    Velocity,
    Windows,
    cross_fade,
    euler_sigmas,
    sample_euler,
    sample_windows,
    smooth_pose,
)

CASES = [
    "T200_cfg1.0_emo8", "T200_cfg1.0_emo4", "T200_cfg1.2_emo8", "T200_cfg1.2_emo4",
    "T50_cfg1.2_emo8", "T80_cfg1.2_emo0", "T81_cfg1.2_emo7", "T144_cfg1.0_emo8",
]  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "sample_small.safetensors")


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, float]]:
    with safe_open(GOLDEN / "sample_small.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["cases"])


@pytest.fixture(scope="module")
def network():
    return mmdit_by_rule(SMALL, "motion_generator_small.json")


@pytest.mark.parametrize("name", CASES)
def test_windows_give_the_released_motion(name, golden, cases, network) -> None:
    case = cases[name]
    frames = case["frames"]
    terms = guidance_terms(SamplerConfig(guidance=case["cfg_scale"]), SMALL)
    audio = pad(golden["in.audio"][:frames], (0, 0, 0, 0, 0, 80))
    label = {case["emo"]: torch.ones(80)}
    clip, sigmas = Windows(frames, golden["in.prev_motion"]), euler_sigmas(10)

    def velocity_of(_: Sequence[int]) -> Velocity:
        heard = audio[clip.start : clip.start + 80]
        window = Window(heard, label, golden["in.kp"][0], clip.prev[0], terms)
        return guided_velocity(network, [window], sigmas)

    noise = iter(golden["in.noise"])
    pieces = sample_windows(velocity_of, [clip], sigmas, lambda _: next(noise))
    motion = torch.cat([piece for ((_, piece, _),) in pieces], dim=1)[0]
    torch.testing.assert_close(motion, golden[f"out.{name}"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 10, 20, 40])
def test_noise_levels(steps: int) -> None:
    golden = load_file(GOLDEN / "scheduler.safetensors")
    sigmas = torch.tensor(euler_sigmas(steps))
    torch.testing.assert_close(sigmas[:-1], golden[f"sigma.{steps}"], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(sigmas[1:], golden[f"next_sigma.{steps}"], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        1000 * sigmas[:-1], golden[f"timesteps.{steps}"].float(), atol=1e-3, rtol=1e-4
    )


def test_one_euler_step_at_each_level() -> None:
    golden = load_file(GOLDEN / "scheduler.safetensors")
    sigmas = euler_sigmas(10)
    for i, expected in enumerate(golden["step.result_per_timestep"]):
        result = sample_euler(
            lambda z, sigma: golden["step.velocity"], golden["step.sample"], sigmas[i : i + 2]
        )
        torch.testing.assert_close(result[0], expected, atol=1e-6, rtol=1e-4)


@given(steps=st.integers(1, 64))
def test_euler_lands_on_the_data_when_the_path_is_straight(steps: int) -> None:
    noise, motion = torch.randn(2, 1, 80, 70)
    z = sample_euler(lambda z, sigma: noise - motion, noise, euler_sigmas(steps))
    torch.testing.assert_close(z, motion, atol=1e-5, rtol=0)


@given(lengths=st.lists(st.integers(1, 700), min_size=1, max_size=3))
def test_any_length_comes_out_whole(lengths: list[int]) -> None:
    """Clip k's clean motion is its frame number plus 1000 k, whoever it is sampled beside."""
    clips = [Windows(frames, torch.zeros(1, 1, 70)) for frames in lengths]
    starts: list[list[int]] = [[] for _ in lengths]

    def velocity_of(going: Sequence[int]) -> Velocity:
        for number in going:
            starts[number].append(clips[number].start)
        first = torch.tensor([1000.0 * number + clips[number].start for number in going])
        clean = (first[:, None] + torch.arange(80.0))[..., None].expand(-1, 80, 70)
        return lambda z, sigma: torch.zeros_like(z) if sigma == 0 else (z - clean) / sigma

    pieces: list[list[Tensor]] = [[] for _ in lengths]
    noise = lambda _: torch.randn(1, 80, 70)  # noqa: E731
    for sampled in sample_windows(velocity_of, clips, euler_sigmas(2), noise):
        for number, piece, over in sampled:
            pieces[number].append(piece)
            assert over == clips[number].over
    for number, frames in enumerate(lengths):
        motion = torch.cat(pieces[number], dim=1)
        assert motion.shape == (1, frames, 70)
        assert len(starts[number]) == 1 + max(0, -((frames - 80) // -64))
        error = (motion[0] - 1000 * number - torch.arange(float(frames))[:, None]).abs()
        assert error[:, :63].max() < 1e-2
        assert error[:, 63:].max() <= 0.76  # two smoothings meet the end of a very short clip


def test_smoothing_and_fading() -> None:
    golden = load_file(GOLDEN / "postprocess.safetensors")
    for source, name in ((slice(None), ""), (slice(1), ".first1"), (slice(2), ".first2")):
        torch.testing.assert_close(
            smooth_pose(golden["smooth.in"][:, source]), golden[f"smooth.out{name}"],
            atol=1e-5, rtol=1e-4,
        )  # fmt: skip
    faded = cross_fade(golden["fuse.prev"][:, -16:], golden["fuse.cur"][:, :16])
    torch.testing.assert_close(faded, golden["fuse.out"][:, -16:], atol=1e-5, rtol=1e-4)


def test_steps_of_one_size_leave_none_with_nothing_to_do() -> None:
    released, even = euler_sigmas(6), euler_sigmas(5, None)
    assert even == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert released[:5] == pytest.approx(even[:5], abs=1e-3)  # its sixth goes from 0.001 to 0
    assert euler_sigmas(1, None) == [1, 0]
