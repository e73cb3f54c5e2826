"""The fast renderer against the plain one: what it may differ by, on weights by rule."""

from dataclasses import replace
from math import log10
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from liveportrait_by_rule import by_rule, retargeting_file
from moda_cli.device import has_bf16
from moda_cli.errors import DeviceError
from moda_cli.motion import Source
from moda_cli.render.liveportrait.convolutions import EnlargedConv
from moda_cli.render.liveportrait.engine import Engine, FastGenerator, FastWarping
from moda_cli.render.liveportrait.fused import shift_matrices
from moda_cli.render.liveportrait.keypoints import Retargeting
from moda_cli.render.liveportrait.networks import Networks
from moda_cli.render.liveportrait.paste import PasteBack, TensorPaste
from moda_cli.render.liveportrait.renderer import LivePortrait
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork, WarpSource, sample_volume
from moda_cli.weights.renames.liveportrait import RETARGETING, liveportrait_state
from moda_cli.weights.state import load_strict

Picture = NDArray[np.uint8]


def psnr(image: Tensor, reference: Tensor) -> float:
    return -10 * log10((image - reference).square().mean().item())


def portrait(
    warping: WarpingNetwork, batch: int, size: tuple[int, ...], seed: int = 0
) -> tuple[WarpSource, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    volume = torch.randn(1, *size, generator=rng)
    kp = torch.rand(1, 21, 3, generator=rng) - 0.5
    driving = kp + 0.1 * torch.randn(batch, 21, 3, generator=rng)
    with torch.inference_mode():
        return warping.prepare(volume, kp), driving


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("sizes", "volume"),
    [
        ((21, 4, 8, 16, 2, 4, 16, 3), (4, 8, 16, 16)),
        ((21, 4, 8, 16, 2, 4, 16, 3), (4, 8, 24, 8)),  # heights and widths of their own
        ((21, 3, 5, 12, 1, 3, 24, 2), (3, 5, 12, 20)),
    ],
)
def test_the_fast_warp_is_the_warp(
    sizes: tuple[int, ...], volume: tuple[int, ...], batch: int
) -> None:
    plain = by_rule(WarpingNetwork(*sizes))
    fast = FastWarping(plain)
    source, driving = portrait(plain, batch, volume)
    with torch.inference_mode():
        for ours, reference in zip(
            fast.dense_motion(source, driving), plain.dense_motion(source, driving), strict=True
        ):
            torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)
        ours, reference = fast(source, driving), plain(source, driving)
    assert reference.std() > 0.1
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (2, 16, 12, 20)])
def test_the_fast_generator_is_the_generator(shape: tuple[int, ...], upscale: int) -> None:
    plain = SpadeGenerator(16, 32, 8, upscale)
    plain = by_rule(plain) if upscale == 2 else plain.eval()
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, reference = FastGenerator(plain)(features), plain(features)
    assert reference.std() > 0.05
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("lead", [(), (5,)])
def test_a_convolution_of_an_enlarged_map_needs_only_the_small_one(
    factor: int, lead: tuple[int, ...]
) -> None:
    kind = nn.Conv3d if lead else nn.Conv2d
    conv = kind(6, 10, 3, padding=1).double()
    x = torch.randn(2, 6, *lead, 4, 7, dtype=torch.float64)
    scale = (*(1.0 for _ in lead), float(factor), float(factor))
    expected = conv(F.interpolate(x, scale_factor=scale)).relu()
    assert conv.bias is not None
    (ours,) = EnlargedConv(conv.weight, conv.bias, factor, torch.float64)(x)
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


def test_shifts_are_the_samples_of_a_moved_grid() -> None:
    volume = torch.randn(1, 2, 3, 4, 9)
    shift = torch.tensor([0.0, 0.3, -1.7, 4.0])
    x = torch.linspace(-1, 1, 9) + shift[:, None]
    for row, at in zip(
        volume @ shift_matrices(shift, 9).transpose(1, 2)[:, None, None], x, strict=True
    ):
        z, y = (torch.arange(n) * 2 / n - 1 + 1 / n for n in (3, 4))  # the cells' own centres
        grid = torch.stack(torch.meshgrid(z, y, at, indexing="ij")[::-1], dim=-1)
        torch.testing.assert_close(row, sample_volume(volume, grid[None])[0], atol=1e-5, rtol=0)


def small_networks(dtype: torch.dtype = torch.float32) -> Networks:
    with torch.device("meta"):
        retargeting = Retargeting()
    load_strict(retargeting, liveportrait_state(retargeting_file(), RETARGETING), "by rule")
    warping = by_rule(WarpingNetwork(21, 4, 8, 16, 2, 4, 16, 3))
    return Networks(retargeting, warping, by_rule(SpadeGenerator(16, 32, 8, 2)), dtype)


@pytest.fixture(scope="module")
def small() -> Networks:
    return small_networks()


@pytest.mark.parametrize(
    ("dtype", "least"),
    [
        (torch.bfloat16, 35),
        pytest.param(torch.float16, 50, marks=pytest.mark.slow),  # the CPU emulates it
    ],
)
def test_sixteen_bits_pass_their_gate(small: Networks, dtype: torch.dtype, least: float) -> None:
    source, driving = portrait(small.warping, 2, (4, 8, 16, 16))
    engine = Engine(replace(small, dtype=dtype))
    with torch.inference_mode():
        image, reference = engine.picture(source, driving), small.picture(source, driving)
        assert {t.dtype for t in engine._warping.dense_motion(source, driving)} == {torch.float32}
    assert least <= psnr(image, reference) < 100


def motions(frames: int) -> tuple[Source, Tensor, Tensor]:
    """A source, its feature volume, and motion around it."""
    rng = torch.Generator().manual_seed(3)
    motion = torch.randn(frames, 70, generator=rng) * torch.tensor([0.02] * 67 + [8.0] * 3)
    motion[:, 63] += 1.3
    source = Source(motion[0], torch.rand(21, 3, generator=rng) - 0.5)
    return source, torch.randn(1, 4, 8, 16, 16, generator=rng), motion


def frames_of(networks: Networks | Engine, batch_size: int | None, frames: int = 7) -> Picture:
    source, volume, motion = motions(frames)
    renderer = LivePortrait(networks, source, volume, lambda crop: crop, batch_size=batch_size)
    return np.stack(list(renderer.render(motion)))


def assert_frames(ours: Picture, reference: Picture) -> None:
    assert ours.shape == reference.shape
    assert np.abs(ours.astype(int) - reference).max() <= 1
    assert (ours != reference).mean() < 1e-3


@pytest.mark.parametrize("batch_size", [None, 3])
def test_frames_of_the_engine_are_those_of_the_networks(
    small: Networks, batch_size: int | None
) -> None:
    assert_frames(frames_of(Engine(small), batch_size), frames_of(small, 2))


class Tight(Engine):
    """An engine whose memory holds `room` frames."""

    room = 2

    def pixels(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        self.tried = [*getattr(self, "tried", []), len(kp_driving)]
        if len(kp_driving) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().pixels(source, kp_driving)


def test_a_batch_too_large_for_the_memory_is_halved(small: Networks) -> None:
    tight = Tight(small)
    assert_frames(frames_of(tight, 8), frames_of(Engine(small), 3))
    assert tight.tried == [7, 4, 2, 2, 2, 1]


def test_no_room_for_one_frame_is_an_error_that_says_so(small: Networks) -> None:
    tight = Tight(small)
    tight.room = 0
    with pytest.raises(DeviceError, match="too little free memory"):
        frames_of(tight, 2)


def test_the_last_batch_is_filled_up_where_shapes_are_fixed(small: Networks) -> None:
    tight = Tight(small)
    tight.room, tight.fixed_batch = 4, True
    assert_frames(frames_of(tight, 4), frames_of(Engine(small), 3))
    assert tight.tried == [4, 4]


@pytest.mark.parametrize(
    "from_crop",
    [
        [[0.4, -0.1, 50], [0.1, 0.4, 20], [0, 0, 1]],
        [[1.7, 0.3, -120], [-0.3, 1.7, -80], [0, 0, 1]],  # larger than the canvas
        [[1.0, 0, 900], [0, 1, 0], [0, 0, 1]],  # beside it
    ],
)
def test_pasting_on_the_device_is_within_a_level(from_crop: list[list[float]]) -> None:
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (300, 360, 3), np.uint8)
    crops = rng.integers(0, 256, (2, 512, 512, 3), np.uint8)
    paste = PasteBack(canvas, np.array(from_crop))
    ours = TensorPaste(paste, torch.device("cpu"))(torch.from_numpy(crops)).numpy()
    for picture, crop in zip(ours, crops, strict=True):
        off = np.abs(picture.astype(int) - paste(crop))
        assert off.max() <= 1
        assert (off > 0).mean() < 0.01


@pytest.mark.slow
def test_the_compiled_engine_is_the_engine_compiled_once(
    small: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    cache = tmp_path / "inductor"
    reference = frames_of(Engine(small), 2, frames=5)  # two batches, and half a batch
    counters.clear()
    assert_frames(frames_of(Engine(small, True, cache), 2, frames=5), reference)
    assert counters["stats"]["unique_graphs"] == counters["inductor"]["fxgraph_cache_miss"] == 1
    assert not counters["graph_break"]
    assert any(cache.iterdir())

    torch.compiler.reset()  # as a second process would find it
    assert_frames(frames_of(Engine(small, True, cache), 2, frames=5), reference)
    assert counters["inductor"]["fxgraph_cache_hit"] == 1
    assert counters["inductor"]["fxgraph_cache_miss"] == 1


def full_networks() -> Networks:
    with torch.device("meta"):
        retargeting, warping, generator = Retargeting(), WarpingNetwork(), SpadeGenerator()
    load_strict(retargeting, liveportrait_state(retargeting_file(), RETARGETING), "by rule")
    return Networks(retargeting, by_rule(warping), by_rule(generator))


@pytest.mark.slow
def test_the_full_engine_passes_its_gates() -> None:
    networks = full_networks()
    source, driving = portrait(networks.warping, 1, (32, 16, 64, 64))
    with torch.inference_mode():
        features = networks.warping(source, driving)
        reference = networks.generator(features)
        fast = FastWarping(networks.warping)
        for ours, theirs in zip(
            fast.dense_motion(source, driving),
            networks.warping.dense_motion(source, driving),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        torch.testing.assert_close(fast(source, driving), features, atol=1e-4, rtol=0)
        del fast
        image = Engine(networks).picture(source, driving)
        torch.testing.assert_close(image, reference, atol=5e-4, rtol=0)
        if has_bf16(torch.device("cpu")):  # emulated, it takes minutes
            half = Engine(replace(networks, dtype=torch.bfloat16)).picture(source, driving)
            assert psnr(half, reference) >= 35


def on_cuda(networks: Networks) -> Networks:
    for part in (networks.retargeting, networks.warping, networks.generator):
        part.to("cuda")
    return networks


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float32, 70), (torch.float16, 50), (torch.bfloat16, 35)]
)
def test_the_engine_on_a_gpu(compiled: bool, dtype: torch.dtype, least: float) -> None:
    plain = full_networks()
    source, driving = portrait(plain.warping, 4, (32, 16, 64, 64))
    driving = driving.cuda()
    source = on_cuda(plain).prepare(source.volume, source.kp.cuda())
    engine = Engine(replace(plain, dtype=dtype), compiled)
    with torch.inference_mode():
        reference = plain.pixels(source, driving).float() / 255
        pixels = [engine.pixels(source, driving).float() / 255 for _ in range(2)]
    for image in pixels:
        assert (image - reference).square().mean() < 10 ** (-least / 10)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_graph_of_a_batch_draws_what_its_kernels_do(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(on_cuda(small_networks(dtype)))
    with torch.inference_mode():
        for batch, seed in ((3, 0), (2, 1), (3, 2), (3, 0)):  # other sizes, portraits and motion
            source, driving = portrait(small_networks().warping, batch, (4, 8, 16, 16), seed)
            source = engine.prepare(source.volume, source.kp.cuda())
            drawn = engine.pixels(source, driving.cuda())
            assert torch.equal(drawn, engine._exactly(source, driving.cuda()))
            assert drawn.float().std() > 1
    assert not caplog.records  # neither Triton nor the recording failed


@pytest.mark.gpu
def test_frames_on_a_gpu_are_pasted_there() -> None:
    networks = small_networks()
    source, volume, motion = motions(37)
    canvas = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    paste = PasteBack(canvas, np.diag([0.5, 0.5, 1.0]))
    expected = list(LivePortrait(Engine(networks), source, volume, paste).render(motion))
    engine = Engine(on_cuda(networks))
    ours = list(LivePortrait(engine, source, volume, paste).render(motion))
    off = np.abs(np.stack(ours).astype(int) - np.stack(expected))
    assert off.max() <= 3
