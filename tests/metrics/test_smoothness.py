"""AMT-S against the reference implementation, and what the smoothness score follows."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from by_rule import goldens, key_table, state_by_rule
from metric_networks import apart, by_rule, shapes_on_meta
from moda_cli.errors import InputError, WeightsError
from moda_cli.media import read_video
from moda_cli.metrics.networks.amt import AmtS, load_amt_s
from moda_cli.metrics.smoothness import interpolation_errors, midpoints, smoothness
from moda_cli.weights import store

GAIN = 0.6  # of the goldens' tensors _g
Clip = list[NDArray[np.uint8]]


def test_names_and_shapes_are_the_checkpoints() -> None:
    assert shapes_on_meta(AmtS) == key_table("amt_s.json")


def test_weights_are_read_from_a_file_that_fits(tmp_path: Path) -> None:
    state = state_by_rule(key_table("amt_s.json"))
    save_file(state, tmp_path / "amt.safetensors")
    loaded = load_amt_s(tmp_path / "amt.safetensors").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    del state["update3.conv.bias"]
    save_file(state, tmp_path / "amt.safetensors")
    with pytest.raises(WeightsError, match=r"update3\.conv\.bias"):
        load_amt_s(tmp_path / "amt.safetensors")


def channels_first(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2)


@pytest.mark.parametrize("path", goldens("eval_amt_s.safetensors"))
def test_flows_and_picture_are_the_references(path: Path) -> None:
    golden = load_file(path)
    first, _, second = channels_first(golden["frames_a"])[:3, None].float() / 255
    network = by_rule(AmtS, "amt_s.json", GAIN)
    seen: dict[str, Tensor] = {}
    for name in ("update4", "update3", "update2", "decoder1"):
        network.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out[0][0]})
        )
    with torch.inference_mode():
        assert apart(network(first, second)[0], golden["mid_a02_g"]) < 1e-4
        plain = by_rule(AmtS, "amt_s.json", 1)(first, second)[0]
    assert apart(plain, golden["mid_a02"]) < 2e-3
    for level in (4, 3, 2):
        assert apart(seen[f"update{level}"][:2], golden[f"flow0_level{level}_g"]) < 1e-4
    full = golden["flow0_a02_g"]
    step = first.shape[-1] // full.shape[-1]  # 1, or that of the cut file
    assert apart(seen["decoder1"][:6].unflatten(0, (3, 2))[..., ::step, ::step], full) < 1e-4


@pytest.mark.parametrize(("suffix", "gain", "tolerance"), [("", 1, 1e-4), ("_g", GAIN, 1e-5)])
@pytest.mark.parametrize("path", goldens("eval_amt_s.safetensors"))
def test_clips_score_as_in_the_reference(
    path: Path, suffix: str, gain: float, tolerance: float
) -> None:
    golden = load_file(path)
    network = by_rule(AmtS, "amt_s.json", gain)
    for clip in "ab":
        errors = interpolation_errors(network, golden[f"frames_{clip}"].numpy())
        assert smoothness(errors) == pytest.approx(
            golden[f"score_{clip}{suffix}"].item(), abs=tolerance
        )
    assert apart(errors, golden[f"diff_b{suffix}"]) < 1e-4
    even = channels_first(golden["frames_b"])[::2]
    made = midpoints(network, even[:-1], even[1:])  # of a size that needs padding
    off = (made.int() - channels_first(golden[f"interp_b{suffix}"]).int()).abs()
    if suffix:
        assert off.max() <= 1
        assert (off > 0).float().mean() <= 1e-3
    else:
        assert off.max() <= 255 * 2e-3 + 1


def cross_fader() -> AmtS:
    """AMT-S of zeros: no flow, even masks, no correction, so it blends its two pictures."""
    network = AmtS().requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    return network.eval()


def drifting(num_frames: int, speed: float = 4.0) -> Clip:
    """Soft stripes moving right by `speed` pixels a frame."""
    x = np.arange(160)
    levels = [128 + 100 * np.sin((x - speed * t) / 12) for t in range(num_frames)]
    rows = [np.broadcast_to(level[None, :, None], (128, 160, 3)) for level in levels]
    return [row.astype(np.uint8) for row in rows]


def test_dropped_and_repeated_frames_cost_smoothness() -> None:
    network, clip = cross_fader(), drifting(17)
    dropped = [frame for i, frame in enumerate(clip) if i % 3 != 2]
    repeated = [clip[i - 1] if i % 3 == 2 else frame for i, frame in enumerate(clip)]
    score, *worse = (
        smoothness(interpolation_errors(network, frames)) for frames in (clip, dropped, repeated)
    )
    assert 0.95 < score < 1
    assert max(worse) < score - 0.005


def test_a_still_clip_is_smooth_and_a_flash_is_not() -> None:
    network, still = cross_fader(), drifting(7, speed=0)
    score = smoothness(interpolation_errors(network, still))
    assert 1 - 1 / 255 <= score <= 1  # truncation may cost one level
    flash = [*still[:3], 255 - still[3], *still[4:]]
    errors = interpolation_errors(network, flash)
    assert errors.argmax() == 1
    assert errors[1] > 50 > errors[[0, 2]].max()


@pytest.mark.parametrize(("num_frames", "num_pairs"), [(3, 1), (4, 1), (7, 3), (8, 3)])
def test_batches_change_nothing(num_frames: int, num_pairs: int) -> None:
    clip = drifting(num_frames)
    network = by_rule(AmtS, "amt_s.json", GAIN)
    single = interpolation_errors(network, iter(clip))
    assert single.shape == (num_pairs,)
    np.testing.assert_allclose(
        interpolation_errors(network, iter(clip), batch=2), single, rtol=1e-4
    )


def test_clips_too_short_or_too_small_are_named() -> None:
    network = cross_fader()
    with pytest.raises(InputError, match="fewer than 3 frames"):
        interpolation_errors(network, drifting(2))
    with pytest.raises(InputError, match="160x100"):
        interpolation_errors(network, [frame[:100] for frame in drifting(3)])


def talker(num_frames: int) -> Clip:
    path = Path(os.environ["MODA_MEDIA"]) / "video" / "talker_25fps.mp4"
    return [frame[100:612, :512] for frame in islice(read_video(path), num_frames)]


@pytest.mark.media
def test_a_real_clip_is_scored() -> None:
    errors = interpolation_errors(by_rule(AmtS, "amt_s.json", GAIN), talker(5))
    assert errors.shape == (2,)
    assert 0 < smoothness(errors) < 1


@pytest.mark.weights
@pytest.mark.media
def test_published_weights_follow_dropped_frames_and_noise() -> None:
    network = load_amt_s(store.require("amt_s")["amt_s"])
    clip = talker(31)
    noise = np.random.default_rng(0)
    flicker = [np.clip(frame + noise.normal(0, 8), 0, 255).astype(np.uint8) for frame in clip]
    dropped = [frame for i, frame in enumerate(clip) if i % 3 != 2]
    score, *worse = (
        smoothness(interpolation_errors(network, frames)) for frames in (clip, dropped, flicker)
    )
    assert score > 0.98  # the paper's real clips: 0.996
    assert max(worse) < score
