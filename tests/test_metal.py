"""Every path to a device under the limits of an Apple GPU, which tests/support/metal.py stands for.

Where Metal has an operation it is computed on the CPU, so the results are those of one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

import extract_bench
import metal
import official
from metric_networks import by_rule, red_detector
from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.data.annotations import find_cuts
from moda_cli.extract.extraction import extract
from moda_cli.media import read_audio, read_image
from moda_cli.metrics.fid import fid_features
from moda_cli.metrics.frechet import Gaussian
from moda_cli.metrics.fvd import FvdProtocol, fvd_features
from moda_cli.metrics.networks.amt import AmtS
from moda_cli.metrics.networks.i3d import I3D
from moda_cli.metrics.networks.inception import load_inception
from moda_cli.metrics.networks.s3fd import detect_faces
from moda_cli.metrics.smoothness import interpolation_errors
from moda_cli.metrics.sync import SyncNetworks, align_crops, pcm16
from moda_cli.motion import load_motion
from moda_cli.pipeline import Pipeline
from moda_cli.train.loop import train
from toy_features import short, write_features

EXAMPLES = Path(__file__).parents[1] / "examples"
SIDE = 64


@pytest.fixture
def mps() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, metal.metal(patch):
        yield "mps"


def wave(seconds: float) -> NDArray[np.float32]:
    return read_audio(EXAMPLES / "speech.wav")[8000 : 8000 + round(16_000 * seconds)]


def made_and_streamed(
    pipeline: Pipeline, portrait: Path, folder: Path, name: str
) -> tuple[Tensor, NDArray[np.uint8]]:
    """The motion of a file, and the frames of a stream."""
    soundfile.write(folder / "speech.wav", wave(0.1), 16_000)
    clip = ClipConfig(
        portrait, folder / "speech.wav", folder / f"{name}.mp4",
        save_motion=folder / f"{name}.safetensors", emotion="happy",
        sampler=SamplerConfig(steps=2), render=RenderConfig(size=SIDE),
    )  # fmt: skip
    pipeline.generate(clip)
    assert clip.save_motion
    live = replace(clip, output=Path("-"), save_motion=None)
    frames = np.stack(list(pipeline.stream(live, [wave(0.1)])))
    return load_motion(clip.save_motion).motion, frames


def assert_same(
    one: tuple[Tensor, NDArray[np.uint8]], other: tuple[Tensor, NDArray[np.uint8]]
) -> None:
    torch.testing.assert_close(one[0], other[0], atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(one[1].astype(int), other[1].astype(int), atol=2)


def test_the_bundled_model(tmp_path: Path, mps: str) -> None:
    portrait = EXAMPLES / "portrait.png"
    made = [
        made_and_streamed(Pipeline.load("mini", device), portrait, tmp_path, device)
        for device in ("cpu", mps)
    ]
    assert_same(*made)


@pytest.mark.slow
def test_the_release_with_liveportrait(
    tmp_path: Path, mps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
    official.manifest_of(official.SMALL, tmp_path / "weights.toml")
    monkeypatch.setenv("MODA_WEIGHTS", str(tmp_path / "weights.toml"))
    official.install(official.SMALL)
    official.save_portrait(tmp_path / "portrait.png")
    made = []
    for device in ("cpu", mps):
        pipeline = Pipeline.load("moda", device)
        made.append(made_and_streamed(pipeline, tmp_path / "portrait.png", tmp_path, device))
    assert_same(*made)


def test_training(tmp_path: Path, mps: str) -> None:
    root = write_features(tmp_path / "features")
    losses = []
    for device in ("cpu", mps):
        run = tmp_path / device
        train(root, run, short(steps=2, log_every=1), device=device, workers=0)
        losses.append(load_file(run / "model.safetensors"))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, atol=1e-3, rtol=1e-2)


@pytest.mark.slow
def test_extraction(tmp_path: Path, mps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = extract_bench.make_networks(tmp_path / "networks")
    extract_bench.install(monkeypatch, tmp_path, files)
    video = extract_bench.write_video(
        tmp_path / "in" / "one.mkv", extract_bench.talking(80), extract_bench.speech(3.2)
    )
    out = tmp_path / "features"
    assert extract(find_cuts([video]), out, "hubert", mps).clips == 1
    parts = load_file(next(out.glob("*.safetensors")))
    assert all(part.isfinite().all() for part in parts.values())


@pytest.fixture(scope="module")
def frames() -> list[NDArray[np.uint8]]:
    face = read_image(EXAMPLES / "portrait.png")[90:440, 80:430]
    return [np.ascontiguousarray(np.roll(face[::2, ::2], k, axis=1)) for k in range(9)]


Look = Callable[[str, list[NDArray[np.uint8]]], object]


def look_fid(device: str, frames: list[NDArray[np.uint8]]) -> object:
    state = official.state_by_rule(official.key_table("inception_fid.json"), gain=2**0.5)
    network = load_inception(state, "by rule").to(device)
    return Gaussian.of(fid_features(network, frames[:2]).to(device)).mean


def look_fvd(device: str, frames: list[NDArray[np.uint8]]) -> object:
    network: nn.Module = by_rule(I3D, "i3d.json", 2**0.5).to(device)
    return fvd_features(network, frames, FvdProtocol("whole"))


def look_smooth(device: str, frames: list[NDArray[np.uint8]]) -> object:
    network: nn.Module = by_rule(AmtS, "amt_s.json", 0.6).to(device)
    return interpolation_errors(network, frames[:3])


def look_sync(device: str, frames: list[NDArray[np.uint8]]) -> object:
    state = official.state_by_rule(official.key_table("syncnet.json"))
    networks = SyncNetworks.load(red_detector(), state, torch.device(device))
    (boxes,) = detect_faces(networks.detector, frames[:1])
    crops = [np.full((224, 224, 3), 9 * k, np.uint8) for k in range(10)]
    found = align_crops(networks.syncnet, crops, pcm16(wave(0.4)), 10)
    return np.concatenate([boxes.ravel(), found.distances.ravel()])


@pytest.mark.parametrize("look", [look_fid, look_fvd, look_smooth, look_sync])
def test_networks_of_eval(look: Look, mps: str, frames: list[NDArray[np.uint8]]) -> None:
    one, other = (np.asarray(look(device, frames)) for device in ("cpu", mps))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
