"""Weights generated from their names: the recipe of the golden files (tests/golden/README.md)."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moda_cli.config import ModelConfig
from moda_cli.generator.mmdit import MMDiT
from moda_cli.weights.renames.moda import motion_generator_state
from moda_cli.weights.state import load_strict

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ModelConfig(hidden_dim=64, num_heads=4, audio_dim=32)
RELEASED = ModelConfig()


def tensor_by_rule(name: str, shape: Sequence[int], gain: float = 1.0) -> Tensor:
    """Seeded by the tensor's full released name, scaled by its last component and dimensions."""
    rs = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    x = np.asarray(rs.standard_normal(shape), dtype=np.float32)
    if leaf in ("null_audio_feat", "null_motion_feat", "masked_spec_embed"):
        x = np.float32(0.5) * x
    elif leaf == "original0" or (leaf == "weight" and x.ndim == 1):
        x = 1 + np.float32(0.1) * x
    elif leaf == "running_mean":
        x = np.float32(0.1) * x
    elif leaf == "running_var":
        x = 1 + np.float32(0.1) * np.abs(x)
    elif leaf == "weight_u":
        x = (x / np.linalg.norm(x.astype(np.float64))).astype(np.float32)
    elif x.ndim >= 2:
        x = np.float32(gain) * x / np.float32(np.sqrt(np.prod(shape[1:])))
    elif leaf == "bias":
        x = np.float32(0.02) * x
    else:
        x = np.float32(0.5) * x
    return torch.from_numpy(x)


def state_by_rule(
    table: Mapping[str, Sequence[int]], prefix: str = "", gain: float = 1.0
) -> dict[str, Tensor]:
    """A state dict of a table of names and shapes; `prefix` joins the names only to seed them."""
    state = {name: tensor_by_rule(prefix + name, shape, gain) for name, shape in table.items()}
    for name in state:
        if name.endswith(".weight_v"):  # the right singular vector that belongs to weight_u
            layer = name.removesuffix("weight_v")
            weight = state[layer + "weight_orig"].double().flatten(1)
            v = weight.T @ state[layer + "weight_u"].double()
            state[name] = (v / v.norm()).float()
    return state


def key_table(name: str) -> dict[str, list[int]]:
    """Names and shapes of a released state dict."""
    table: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return table.get("parameters", table)


def goldens(name: str) -> list[Any]:
    """Parameters of a test: the committed golden file, and the uncut one where it is at hand.

    A committed file may be cut down (tests/golden/cut_*.py); the full set lies beside MODA_MEDIA.
    """
    import pytest  # benchmarks do without

    full = Path(os.environ.get("MODA_MEDIA", "")).parent / "golden" / name
    return [
        pytest.param(GOLDEN / name, id="committed"),
        pytest.param(full, id="full", marks=pytest.mark.media),
    ]


def released_state(table: str, audio_dim: int) -> dict[str, Tensor]:
    """A motion generator checkpoint under the release's names, null vector included."""
    shapes = {**key_table(table), "null_audio_feat": [1, 1, 1, 1, audio_dim]}
    return {name: tensor_by_rule(name, shape) for name, shape in shapes.items()}


def mmdit_by_rule(config: ModelConfig, table: str) -> MMDiT:
    """Our network with a released checkpoint made by rule."""
    with torch.device("meta"):
        network = MMDiT(config)
    state = motion_generator_state(released_state(table, config.audio_dim), config.audio_dim)
    load_strict(network, state, table)
    return network.eval()
