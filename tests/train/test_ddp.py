"""Two processes train as one does."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moda_cli.errors import UsageError
from moda_cli.train.loop import train
from toy_features import short, write_features


def interrupt(step: int, _steps: int, _row: object) -> None:
    if step == 5:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "begun"), [("ddp", 0), ("fsdp", 0), ("fsdp", 5)])
def test_two_processes_equal_one(tmp_path: Path, mode: str, begun: int) -> None:
    """Ten fp32 steps on the same batches and noise; 1e-6 leaves room for sums in another order.

    Two processes also go on from the checkpoint that one has left after `begun` steps.
    """
    features = write_features(tmp_path / "features")
    config = short(steps=10, validate_every=10, checkpoint_every=5, accumulate=2, batch_size=8)
    train(features, tmp_path / "one", config, workers=0, device="cpu")
    if begun:
        with pytest.raises(KeyboardInterrupt):
            train(features, tmp_path / "two", config, workers=0, device="cpu", on_step=interrupt)
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "moda_cli", "train", features, "-o", tmp_path / "two", "--device=cpu"]
    command += ["--config", tmp_path / "config.json", "--workers=0", "--json"]
    command += ["--fsdp"] if mode == "fsdp" else []
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["step"] == 10  # one line, of one process
    name = "checkpoints/step-00000010.safetensors"
    one, two = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    assert one.keys() == two.keys()
    for key in one:
        if key.startswith(("network", "average")):
            torch.testing.assert_close(two[key], one[key], atol=1e-6, rtol=0, msg=key)
    moved = load_file(tmp_path / "one" / "checkpoints/step-00000005.safetensors")
    assert (one["network.head.weight"] - moved["network.head.weight"]).abs().max() > 1e-4
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").open()]
        for run in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_what_many_processes_cannot_do(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features")
    with pytest.raises(UsageError, match="batch_size 4 cannot be split"):
        train(features, tmp_path / "run", short(accumulate=3), workers=0)
    with pytest.raises(UsageError, match="--fsdp needs torchrun"):
        train(features, tmp_path / "other", short(), workers=0, fsdp=True)
