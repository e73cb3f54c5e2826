"""Networks from files: half-size copies, made once; no first weights drawn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from moda_cli.config import ClipConfig
from moda_cli.errors import WeightsError
from moda_cli.generator.model import load_moda
from moda_cli.pipeline import Pipeline
from moda_cli.speech.encoder import SpeechEncoder, SpeechEncoderConfig
from moda_cli.weights import store
from moda_cli.weights.load import load_network
from moda_cli.weights.renames.speech import speech_encoder_state
from moda_cli.weights.state import halved, unfilled
from official import SMALL, install, manifest_of, save_portrait

CPU = torch.device("cpu")
ENCODER = "speech_encoder"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest_of(SMALL, tmp_path / "weights.toml")
    monkeypatch.setenv("MODA_WEIGHTS", str(tmp_path / "weights.toml"))
    monkeypatch.setenv("MODA_CACHE", str(tmp_path))
    install(SMALL)
    return tmp_path


def load(half: bool) -> dict[str, torch.Tensor]:
    network = load_network(
        ENCODER,
        lambda **sizes: SpeechEncoder(SpeechEncoderConfig(**sizes)),
        speech_encoder_state,
        CPU,
        half=half,
    )
    return network.state_dict()


def test_half_the_bytes_are_read_from_the_second_time_on(cache: Path) -> None:
    whole, first = load(half=False), load(half=True)
    (copy,) = (cache / "half").iterdir()
    assert copy.stat().st_size < 0.6 * store.require(ENCODER)[ENCODER].stat().st_size
    written = copy.stat().st_mtime_ns
    again = load(half=True)
    assert copy.stat().st_mtime_ns == written
    for name, tensor in whole.items():
        assert first[name].dtype == again[name].dtype == torch.float32
        assert torch.equal(first[name], halved(tensor).float())
        assert torch.equal(first[name], again[name])
        assert tensor.ndim > 1 or torch.equal(first[name], tensor)  # gains, biases: untouched

    copy.write_bytes(copy.read_bytes()[:1000])  # a damaged one is made anew
    assert torch.equal(load(half=True)["norm.weight"], whole["norm.weight"])
    assert copy.stat().st_size > 1000

    store.record(ENCODER, replace(store.read_lock()[ENCODER], path_sha256="0" * 64))
    load(half=True)  # another file has another copy, and the old one goes
    (other,) = (cache / "half").iterdir()
    assert other != copy


def test_a_folder_that_cannot_be_written_costs_only_time(cache: Path) -> None:
    (cache / "half").write_text("in the way")
    assert load(half=True)["norm.weight"].isfinite().all()


def test_numbers_that_float16_cannot_hold_stay() -> None:
    beyond = torch.tensor([[1.0, 70000.0]])
    assert halved(beyond) is beyond
    assert halved(torch.ones(3)).dtype == torch.float32
    assert halved(torch.ones(3, 1)).dtype == torch.float16


def test_unfilled_networks_are_made_as_ever_and_draw_nothing() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU())

    before = torch.get_rng_state()
    with unfilled():
        made = build()
    assert torch.equal(torch.get_rng_state(), before)
    expected = build().state_dict()
    assert {name: x.shape for name, x in made.state_dict().items()} == {
        name: x.shape for name, x in expected.items()
    }
    assert all(x.is_meta for x in made.state_dict().values())


def test_a_damaged_file_is_named(cache: Path) -> None:
    path = store.require("motion_generator")["motion_generator"]
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(WeightsError, match=r"cannot read .*motion_generator"):
        load_moda(CPU)


def test_a_clips_portrait_is_searched_while_networks_are_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_portrait(cache / "portrait.png")
    first = ClipConfig(cache / "portrait.png", Path("-"), Path("-"))
    pipeline = Pipeline.load("moda", "cpu", first=first)
    assert len(list((store.seen_portraits() / "faces").glob("*.safetensors"))) == 1

    def searched_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("moda_cli.face.kept.find_candidates", searched_again)
    assert pipeline.studio.look(first).face.score
    for fault in ("no.png", "weights.toml"):  # said by whoever looks, not by who loads
        Pipeline.load("moda", "cpu", first=replace(first, portrait=cache / fault))
