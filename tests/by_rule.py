"""Weights generated from their names: the recipe of the golden files (tests/golden/README.md)."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moda_cli.config import ModelConfig
from moda_cli.model.mmdit import MMDiT
from moda_cli.weights import load_strict, motion_generator_state

GOLDEN = Path(__file__).parent / "golden"
SMALL = ModelConfig(hidden_dim=64, num_heads=4, audio_dim=32)
RELEASED = ModelConfig()


def tensor_by_rule(name: str, shape: list[int]) -> Tensor:
    """Seeded by the tensor's full released name, scaled by its last component."""
    rs = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    x = np.asarray(rs.standard_normal(shape), dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "bias":
        x = np.float32(0.02) * x
    elif leaf == "original0" or (leaf == "weight" and x.ndim == 1):
        x = 1 + np.float32(0.1) * x
    elif leaf in ("weight", "original1"):
        x = x / np.float32(np.sqrt(np.prod(shape[1:])))
    else:
        x = np.float32(0.5) * x
    return torch.from_numpy(x)


def key_table(name: str) -> dict[str, list[int]]:
    """Names and shapes of a released state dict."""
    table: dict[str, list[int]] = json.loads((GOLDEN / name).read_text())["parameters"]
    return table


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
