"""The Triton kernels against their twins in PyTorch: compiled on a GPU, interpreted elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from liveportrait_by_rule import by_rule
from moda_cli.render.liveportrait import convolutions, fused
from moda_cli.render.liveportrait.engine import FastGenerator, FastWarping
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork

kernels = pytest.importorskip("moda_cli.render.liveportrait.kernels", exc_type=ImportError)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOAT32, FLOAT16 = (torch.float32, 1e-5), (torch.float16, 2e-3)
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [FLOAT32, FLOAT16])


@pytest.fixture(autouse=True)
def _twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of `fused` as they are without Triton."""
    monkeypatch.setattr(fused, "triton_kernels", lambda x: None)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers, channels last where they are a map."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    return numbers.contiguous(memory_format=forms.get(len(shape), torch.contiguous_format))


def close(ours: Tensor, twin: Tensor, tolerance: float) -> None:
    """Equal up to the rounding of their type; of the same shape and type; every value written."""
    assert twin.float().std() > 0.05
    torch.testing.assert_close(ours, twin, atol=tolerance, rtol=tolerance)


@PRECISIONS
@pytest.mark.parametrize("shape", [(2, 24, 9, 7), (1, 130, 5, 1), (2, 16, 3, 4, 5), (1, 8, 40, 33)])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_activate(shape: tuple[int, ...], more: int, dtype: torch.dtype, tolerance: float) -> None:
    x, bias = drawn(*shape, dtype=dtype), drawn(shape[1], dtype=dtype, seed=1)
    wide = drawn(shape[0], 3 * shape[1], *shape[2:], dtype=dtype, seed=2)
    plus = [wide[:, shape[1] : 2 * shape[1]], drawn(*shape, dtype=dtype, seed=3)][:more]
    given = bias if more != 1 else None
    expected = fused.activate(
        x.float(), None if given is None else bias.float(), slope=0.2, plus=plus
    )
    close(kernels.activate(x, given, slope=0.2, plus=plus), expected.to(dtype), tolerance)


@PRECISIONS
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize(("lead", "parts"), [((), 3), ((3,), 1)])
def test_copied(
    lead: tuple[int, ...], parts: int, factor: int, dtype: torch.dtype, tolerance: float
) -> None:
    kinds = {1: 1, 2: 4, 4: 9}[factor]
    cells = drawn(2, kinds * 24, *lead, 6, 4, dtype=dtype)
    bias = drawn(24, dtype=dtype, seed=1)
    expected = fused.copied(cells.clone(), bias.repeat(kinds), factor=factor, parts=parts)
    for ours, twin in zip(
        kernels.copied(cells, bias, factor=factor, parts=parts), expected, strict=True
    ):
        assert ours.movedim(1, -1).is_contiguous()  # the next convolution need not copy it
        close(ours, twin, tolerance)


@PRECISIONS
@pytest.mark.parametrize("shape", [(2, 24, 9, 7), (1, 100, 33, 65), (3, 8, 1, 50)])
def test_statistics(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    spread = torch.linspace(0.1, 10, shape[1], device=DEVICE)[:, None, None]
    x = (drawn(*shape) * spread + 30 * drawn(shape[1], 1, 1, seed=1)).to(dtype)  # far from zero
    x = x.contiguous(memory_format=torch.channels_last)
    exact = x.double()
    mean, variance = exact.mean((2, 3)), exact.var((2, 3), correction=0)
    close(kernels.statistics(x, fused.NORM_EPS)[0], mean.float(), 1e-5)
    close(kernels.statistics(x, fused.NORM_EPS)[1], (variance + 1e-5).rsqrt().float(), 1e-4)
    close(kernels.statistics(x, fused.NORM_EPS), fused.statistics(x), 1e-4)


@PRECISIONS
@pytest.mark.parametrize("shape", [(2, 24, 9, 7), (1, 72, 16, 20)])
@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_modulate(
    shape: tuple[int, ...],
    factor: int,
    shifted: bool,
    biased: bool,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    batch, channels, height, width = shape
    x = drawn(*shape, dtype=dtype)
    wide = drawn(batch, 2 * channels, factor * height, factor * width, dtype=dtype, seed=1)
    scale, shift = wide.chunk(2, dim=1)
    bias = drawn(2 * channels, dtype=dtype, seed=2) if biased else None
    statistics = fused.statistics(x)
    given = (scale, shift if shifted else None, bias, 0.2 if shifted else 1.0)
    exact = [None if t is None else t.float() if isinstance(t, Tensor) else t for t in given]
    expected = fused.modulate(x.float(), statistics, *exact).to(dtype)  # type: ignore[arg-type]
    ours = kernels.modulate(x, statistics, *given)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    close(ours, expected, tolerance)


@PRECISIONS
@pytest.mark.parametrize(
    ("parts", "sources", "size"), [(4, 1, (2, 4, 6)), (3, 2, (3, 5, 7)), (4, 2, (3, 9, 2))]
)
def test_motion_map(
    parts: int, sources: int, size: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    compressed = drawn(sources, parts, *size)
    kp_source = 0.4 * drawn(sources, 6, 3, seed=1)
    kp_driving = kp_source + 0.3 * drawn(2, 6, 3, seed=2)
    channels = 7 * parts + 6 + 5
    given = (compressed, kp_source, kp_driving, channels, dtype)
    close(kernels.motion_map(*given), fused.motion_map(*given), max(tolerance, 2e-5))


@PRECISIONS
@pytest.mark.parametrize("size", [(8, 16, 16), (3, 7, 9)])
def test_deformation(size: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    depth, height, width = size
    fields, num_taps, batch = 6, 7, 2
    taps = drawn(batch * depth, num_taps * fields + 6, height, width, dtype=dtype)
    bias, shift = drawn(fields, seed=1), drawn(batch, fields, 3, seed=2)
    given = (taps, bias, shift, num_taps)
    close(kernels.deformation(*given), fused.deformation(*given), 1e-5)


@PRECISIONS
@pytest.mark.parametrize(("channels", "size"), [(8, (4, 16, 16)), (5, (3, 7, 9))])
@pytest.mark.parametrize("sources", [1, 2])
def test_sampled(
    sources: int, channels: int, size: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    volume = drawn(sources, channels, *size)
    where = 0.8 * drawn(2, 3, *size, seed=1).movedim(1, -1)  # some of it outside
    ours = kernels.sampled(volume, where, dtype)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    close(ours, fused.sampled(volume, where, dtype), max(tolerance, 2e-5))


@pytest.mark.slow
def test_the_networks_on_these_kernels_copy_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    warping = by_rule(WarpingNetwork(5, 4, 8, 16, 2, 4, 16, 3)).to(DEVICE)
    generator = by_rule(SpadeGenerator(16, 32, 8, 2)).to(DEVICE)
    volume, kp = drawn(1, 4, 8, 8, 8), 0.3 * drawn(1, 5, 3, seed=1)
    driving = kp + 0.1 * drawn(2, 5, 3, seed=2)
    seen = list[bool]()
    plain_map = convolutions.Conv.map

    def watched(conv: convolutions.Conv, x: Tensor, bias: Tensor | None) -> Tensor:
        form = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        seen.append(x.is_contiguous(memory_format=form))
        return plain_map(conv, x, bias)

    with torch.inference_mode():
        source = warping.prepare(volume, kp)
        expected = warping(source, driving), generator(warping(source, driving))
        for module in (fused, convolutions):
            monkeypatch.setattr(module, "triton_kernels", lambda x: kernels)
        monkeypatch.setattr(convolutions.Conv, "map", watched)
        features = FastWarping(warping)(source, driving)
        image = FastGenerator(generator)(features)
    torch.testing.assert_close(features, expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(image, expected[1], atol=1e-4, rtol=0)
    assert len(seen) > 50
    assert all(seen)


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "support" / "compile_kernels.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written = {name for name in vars(kernels) if name.endswith("_kernel")}
    assert set(done.stdout.split()) == written
