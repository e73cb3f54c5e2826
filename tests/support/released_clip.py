"""Fixtures: the golden clip of the release, from its wave to its motion."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from by_rule import GOLDEN
from moda_cli.motion import Source, Stats


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "pipeline_small.safetensors")


@pytest.fixture(scope="module")
def stats() -> Stats:
    numbers = json.loads((GOLDEN / "motion_stats.json").read_text())
    mean, std = torch.tensor(numbers["mean"]), torch.tensor(numbers["std"])
    return Stats(mean, std, mean, torch.zeros(63))


@pytest.fixture(scope="module")
def source(golden) -> Source:
    angles = [
        3 * (golden[f"in.source.{name}"].softmax(dim=1) * torch.arange(66)).sum(dim=1) - 97.5
        for name in ("pitch", "yaw", "roll")
    ]
    flat = [golden[f"in.source.{name}"][0] for name in ("exp", "scale", "t")]
    flat[2] = flat[2] * torch.tensor([1.0, 1.0, 0.0])
    return Source(torch.cat((*flat, *angles)), golden["in.source.kp"].reshape(21, 3))
