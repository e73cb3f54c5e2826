"""A directory with a trained model: what of it is refused, and how."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import moda_cli
from moda_cli.errors import WeightsError
from moda_cli.generator.model import MotionGenerator

MINI = Path(moda_cli.__file__).parent / "assets" / "mini"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MINI, tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("window", 0), ("overlap", 80), ("num_heads", 2.5), ("audio_scale", float("nan")),
     ("lip_noise", "much"), ("single_stream_depth", -1)],
)  # fmt: skip
def test_a_config_of_impossible_numbers_is_refused(directory: Path, name: str, value: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(WeightsError, match="not a model directory"):
        MotionGenerator.load(directory, torch.device("cpu"))


def test_weights_and_statistics_that_are_not_numbers_are_refused(directory: Path) -> None:
    assert MotionGenerator.load(directory, torch.device("cpu"))
    path = directory / "model.safetensors"
    state = load_file(path)
    next(iter(state.values())).flatten()[0] = torch.inf
    save_file(state, path)
    with pytest.raises(WeightsError, match="non-finite"):
        MotionGenerator.load(directory, torch.device("cpu"))
    shutil.copy(MINI / path.name, path)
    stats = json.loads((directory / "stats.json").read_text())
    (directory / "stats.json").write_text(json.dumps({**stats, "neutral": [0.0] * 69}))
    with pytest.raises(WeightsError, match=r"neutral in stats\.json is not 70 finite numbers"):
        MotionGenerator.load(directory, torch.device("cpu"))
