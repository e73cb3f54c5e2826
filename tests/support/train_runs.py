"""Runs of `moda train`, and whether two of them are the same."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from moda_cli.train.presets import TrainConfig


def assert_same_run(one: Path, other: Path, step: int) -> None:
    """Checkpoints, model directories and logged losses are equal bit for bit."""
    names = (f"checkpoints/step-{step:08d}.safetensors", "model.safetensors")
    for name in (*names, "best/model.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name
    logs = []
    for run in (one, other):
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
    assert logs[0] == logs[1]


def start(
    features: Path, run: Path, config: TrainConfig, *options: str, **popen: Any
) -> "subprocess.Popen[str]":
    """The command, with one process that prepares samples."""
    file = features / "config.json"
    file.write_text(json.dumps(asdict(config)))
    command = [sys.executable, "-m", "moda_cli", "train", features, "-o", run, "--config", file]
    command = [*map(str, command), "--workers", "1", *options]
    return subprocess.Popen(command, text=True, **popen)
