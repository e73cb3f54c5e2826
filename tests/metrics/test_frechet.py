"""FID and FVD: the distance itself, and that it moves the right way."""

import os
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from by_rule import GOLDEN, key_table, state_by_rule
from moda_cli.errors import InputError
from moda_cli.media import read_video
from moda_cli.metrics.fid import fid_features
from moda_cli.metrics.frechet import Gaussian, frechet_distance, pool
from moda_cli.metrics.fvd import FvdProtocol, fvd_features, load_fvd_network
from moda_cli.metrics.networks.i3d import I3D, ScriptedI3D, load_i3d
from moda_cli.metrics.networks.inception import load_inception
from moda_cli.weights import store

Frames = NDArray[np.uint8]  # (T, H, W, 3)
Features = Callable[[Frames], Tensor]


@pytest.mark.parametrize("case", ["full", "few", "same", "const", "rank1"])
def test_distance_is_the_exact_one(case: str) -> None:
    golden = load_file(GOLDEN / "eval_frechet.safetensors")
    x, y = Gaussian.of(golden[f"{case}_x"]), Gaussian.of(golden[f"{case}_y"])
    exact = golden[f"{case}_exact"].item()
    absolute = 1e-9 if case == "same" else 0.0
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-9, abs=absolute)
    assert frechet_distance(y, x) == pytest.approx(exact, rel=1e-9, abs=absolute)
    gap = (x.mean - y.mean).square().sum().item()
    assert gap == pytest.approx(golden[f"{case}_mean_term"].item(), rel=1e-9, abs=1e-12)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    dim=st.integers(1, 12),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_pooled_clips_are_the_set_of_all_their_features(
    sizes: list[int], dim: int, offset: float
) -> None:
    draw = torch.Generator().manual_seed(len(sizes) + dim)
    parts = [torch.randn(n, dim, generator=draw, dtype=torch.float64) + offset for n in sizes]
    whole, pooled = Gaussian.of(torch.cat(parts)), pool(map(Gaussian.of, parts))
    assert pooled.count == whole.count
    assert len(pooled.root) <= max(2 * dim, 1)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(pooled.mean, whole.mean, **close)
    torch.testing.assert_close(pooled.root.T @ pooled.root, whole.root.T @ whole.root, **close)


def test_metal_is_not_asked_for_float64() -> None:
    with FakeTensorMode():  # tensors that have a device and no values
        found = Gaussian.of(torch.empty(5, 3, device="mps"))
        assert (found.mean.device.type, found.root.dtype) == ("cpu", torch.float64)
        assert Gaussian.of(torch.empty(5, 3, device="cuda")).mean.device.type == "cuda"


@given(count=st.integers(2, 60), dim=st.integers(1, 30), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_a_set_has_no_distance_to_itself_and_its_shift_to_its_shifted_self(
    count: int, dim: int, scale: float
) -> None:
    x = scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(count))
    itself = Gaussian.of(x)
    energy = scale**2 * dim
    assert frechet_distance(itself, itself) <= 1e-11 * energy
    assert frechet_distance(itself, Gaussian.of(x.flip(0))) <= 1e-11 * energy
    moved = Gaussian.of(x.double() + scale)
    assert frechet_distance(itself, moved) == pytest.approx(energy, rel=1e-9)


def test_distance_grows_with_noise_and_with_lost_variety() -> None:
    draw = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 200, 16, generator=draw)
    real = Gaussian.of(x)
    noisy = [frechet_distance(real, Gaussian.of(x + s * noise)) for s in (0, 0.2, 0.5, 1, 2)]
    shrunk = [frechet_distance(real, Gaussian.of(x * s)) for s in (1, 0.8, 0.5, 0.2, 0)]
    for distances in (noisy, shrunk):
        assert all(before < after for before, after in pairwise(distances))


def test_one_sample_has_no_distance() -> None:
    one, two = Gaussian.of(torch.zeros(1, 4)), Gaussian.of(torch.zeros(2, 4))
    with pytest.raises(InputError, match="2 and 1 samples"):
        frechet_distance(two, one)


def noisy(frames: Frames, sd: float) -> Frames:
    added = np.random.default_rng(0).normal(0, sd, frames.shape)
    return np.clip(frames + added, 0, 255).round().astype(np.uint8)


def blurred(frames: Frames, sd: float) -> Frames:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sd) for frame in frames])


def held(frames: Frames, length: float) -> Frames:
    """Only one frame in `length` is new, as if the others had been dropped."""
    return frames[np.arange(len(frames)) // int(length) * int(length)]


def talker(name: str, num_frames: int, start_s: float = 0.0) -> Frames:
    """Frames of one of the test videos, a centred square of it, 192 pixels wide."""
    frames = read_video(Path(os.environ["MODA_MEDIA"]) / "video" / name, start_s=start_s)
    squares = []
    for frame in islice(frames, num_frames):
        side = min(frame.shape[:2])
        top, left = ((n - side) // 2 for n in frame.shape[:2])
        square = frame[top : top + side, left : left + side]
        squares.append(cv2.resize(square, (192, 192), interpolation=cv2.INTER_AREA))
    return np.stack(squares)


def by_rule(table: str) -> dict[str, Tensor]:
    return state_by_rule(key_table(table), gain=2**0.5)


def inception_features(trained: bool) -> Features:
    if trained:
        state = load_file(store.require("inception_fid")["inception_fid"])
    else:
        state = by_rule("inception_fid.json")
    return partial(fid_features, load_inception(state, "inception_fid"))


def trained_i3d() -> I3D | ScriptedI3D:
    return load_fvd_network("i3d_torchscript", store.require("i3d_torchscript")["i3d_torchscript"])


def i3d_features(trained: bool) -> Features:
    network = trained_i3d() if trained else load_i3d(by_rule("i3d.json"), "by rule")
    return partial(fvd_features, network)


def assert_follows_damage(features: Features, real: Frames, changes: dict[str, float]) -> None:
    """The distance from `real` is 0 to itself and rises with each damage."""
    reference = Gaussian.of(features(real))

    def distance(frames: Frames) -> float:
        return frechet_distance(reference, Gaussian.of(features(frames)))

    for change, amount in changes.items():
        damage = {"noise": noisy, "blur": blurred, "hold": held}[change]
        slight, strong = (distance(damage(real, times * amount)) for times in (1, 4))
        assert distance(real) < 1e-6 * slight < slight < strong, change


def assert_tells_people_apart(features: Features, real: Frames, num_frames: int) -> None:
    """The same person later is nearer than another; weights by rule need not know."""
    same = talker("talker_25fps.mp4", num_frames, start_s=4)
    other = talker("talker_30fps.mp4", num_frames)
    first, second, third = (Gaussian.of(features(frames)) for frames in (real, same, other))
    assert frechet_distance(first, second) < frechet_distance(first, third)


TRAINED = [
    pytest.param(False, id="by-rule", marks=[pytest.mark.media, pytest.mark.slow]),
    pytest.param(True, id="trained", marks=[pytest.mark.media, pytest.mark.weights]),
]


@pytest.mark.parametrize("trained", TRAINED)
def test_fid_of_real_pictures_follows_damage(trained: bool) -> None:
    features = inception_features(trained)
    real = talker("talker_25fps.mp4", 60 if trained else 10)
    assert_follows_damage(features, real, {"noise": 6, "blur": 0.8})
    if trained:
        assert_tells_people_apart(features, real, len(real))


@pytest.mark.parametrize("trained", TRAINED)
def test_fvd_of_real_clips_follows_damage(trained: bool) -> None:
    features = i3d_features(trained)
    real = talker("talker_25fps.mp4", 96 if trained else 32)
    assert_follows_damage(features, real, {"noise": 6, "blur": 0.8, "hold": 2})
    if trained:
        assert_tells_people_apart(features, real, len(real))


@pytest.mark.weights
@pytest.mark.slow
def test_fvd_of_black_and_white_clips_is_the_published_one() -> None:
    """151.26 by common_metrics_on_video_quality: clips of all 0 and all 1, values 0 to 1."""
    black, white = (np.full((30, 64, 64, 3), value, dtype=np.uint8) for value in (0, 255))
    network = trained_i3d()
    whole = FvdProtocol(cut="whole")
    gap = fvd_features(network, black, whole) - fvd_features(network, white, whole)
    assert gap.square().sum().item() == pytest.approx(151.26, abs=1)
