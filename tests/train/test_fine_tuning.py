"""Runs that start from a trained model, and finished runs that are prolonged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moda_cli.choice import BUNDLED
from moda_cli.cli.train_view import closing_lines
from moda_cli.config import FPS
from moda_cli.errors import UsageError, WeightsError
from moda_cli.motion import ARTICULATORS, MOTION_DIM, Stats, encode
from moda_cli.train.gains import closures, counted, motion_scores
from moda_cli.train.loop import train
from moda_cli.train.settings import train_config
from toy_features import short, write_features
from train_runs import assert_same_run


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features") / "toy")


@pytest.fixture(scope="module")
def base(features: Path) -> Path:
    run = features.parent / "base"
    train(features, run, short(), device="cpu", workers=0)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def test_a_run_begins_with_the_weights_statistics_and_shape_of_a_model(
    base: Path, tmp_path: Path
) -> None:
    other = write_features(tmp_path / "other", seed=9)
    run = tmp_path / "still"
    still = short(start=str(base), learning_rate=0.0, weight_decay=0.0, steps=2)
    train(other, run, replace(still, model=train_config("mini").model), device="cpu", workers=0)
    assert (run / "config.json").read_text() == (base / "config.json").read_text()
    assert (run / "stats.json").read_text() == (base / "stats.json").read_text()
    for name, tensor in weights(base).items():
        assert torch.allclose(tensor.float(), weights(run)[name].float(), atol=1e-3), name

    moved = tmp_path / "moved"
    train(other, moved, short(start=str(base)), device="cpu", workers=0)
    assert not torch.equal(weights(moved)["null_audio"], weights(base)["null_audio"])


def test_what_it_gained_is_measured_and_told(base: Path, tmp_path: Path) -> None:
    """The same twice but for chance, where nothing was learnt."""
    other = write_features(tmp_path / "other", seed=9)
    run = tmp_path / "run"
    train(other, run, short(start=str(base), learning_rate=0.0, steps=2), device="cpu", workers=0)
    found = json.loads((run / "gains.json").read_text())
    assert found["before"].keys() == found["after"].keys() >= {"r_lips", "r_jaw", "blinks", "head"}
    assert found["before"]["r_jaw"] == pytest.approx(found["after"]["r_jaw"], abs=0.02)
    assert found["true"].keys() == {"blinks", "head"}
    first, second, *_ = closing_lines(run, speaks=True)
    assert f"r_jaw {found['before']['r_jaw']:.2f} -> {found['after']['r_jaw']:.2f}" in first
    assert "blinks a minute" in second
    assert len(closing_lines(base, speaks=True)) == 2


def test_closures_and_blinks_are_counted_as_they_are() -> None:
    stats = Stats.read(BUNDLED / "stats.json")
    frames = torch.arange(10 * int(FPS))
    articulators = torch.zeros(1, len(frames), 8)
    articulators[0, :, ARTICULATORS.index("jaw")] = 30 * (frames % 10 >= 2)
    blinking = ((frames % 50 >= 20) & (frames % 50 < 24)).float() * 14
    articulators[0, :, 3:5] = 0
    for lid in ("lid_a", "lid_b"):
        articulators[0, :, ARTICULATORS.index(lid)] = blinking
    motion = stats.neutral.repeat(1, len(frames), 1)
    motion[..., :63] += encode(articulators)
    jaw = articulators[..., ARTICULATORS.index("jaw")]
    assert int(closures(jaw).sum()) == 2 * 25
    assert int(closures(torch.zeros_like(jaw)).sum()) == 0
    assert counted(motion, stats.neutral) == {"blinks": pytest.approx(30), "head": 0}
    same = motion_scores(motion, motion, stats.neutral)
    assert same["closure"] == 1
    assert same["r_jaw"] == pytest.approx(1)
    agape = stats.neutral.repeat(1, len(frames), 1)
    agape[..., :63] += encode(torch.full((8,), 30.0) * (torch.arange(8) == 0))
    assert motion_scores(agape, motion, stats.neutral)["closure"] == 0
    assert motion.shape[-1] == MOTION_DIM


def test_a_finished_run_is_prolonged_and_never_shortened(features: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steady = short(schedule="constant")
    train(features, whole, replace(steady, steps=18), device="cpu", workers=0)
    train(features, parts, steady, device="cpu", workers=0)
    train(features, parts, replace(steady, steps=18), device="cpu", workers=0)
    assert_same_run(whole, parts, 18)
    assert json.loads((parts / "train.json").read_text())["steps"] == 18
    with pytest.raises(UsageError, match="has taken 18 steps, more than 4"):
        train(features, parts, replace(steady, steps=4), device="cpu", workers=0)
    with pytest.raises(UsageError, match="other settings: batch_size"):
        train(features, parts, replace(steady, steps=20, batch_size=8), device="cpu", workers=0)


def test_fine_tuning_has_its_own_length_and_rate_unless_they_are_given(tmp_path: Path) -> None:
    plain, tuned = train_config("mini"), train_config("mini", start="mini")
    assert (tuned.start, tuned.model, tuned.augment) == ("mini", plain.model, True)
    assert tuned.steps is not None
    assert plain.steps is not None
    assert tuned.steps < plain.steps / 10
    assert tuned.learning_rate < plain.learning_rate / 2
    assert train_config("mini", ["steps=7"], "mini").steps == 7
    file = tmp_path / "mine.toml"
    file.write_text('preset = "mini"\nlearning_rate = 0.5\n')
    assert train_config(str(file), start="mini").learning_rate == 0.5
    with pytest.raises(UsageError, match="has the shape of mini"):
        train_config("mini", ["model.hidden_dim=64"], "mini")
    with pytest.raises(UsageError, match="starts from nothing"):
        train_config("alse", start="mini")


def test_a_model_that_is_not_there_is_told_before_anything_is_written(
    features: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="is not a model directory"):
        train(features, tmp_path / "run", short(start="nowhere"), device="cpu", workers=0)
    assert not (tmp_path / "run").exists()
