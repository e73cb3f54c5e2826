"""A run killed at any step and started again ends with the same bits."""

import json
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from moda_cli.errors import UsageError
from moda_cli.owner import LOCK
from moda_cli.train.loop import train
from moda_cli.train.optimiser import MOMENTS, State
from toy_features import short, write_features
from train_runs import assert_same_run, start


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"))


class Stop(Exception):
    pass


@pytest.mark.parametrize("step", [1, 5, 6, 11])
def test_stopped_and_started_again(features: Path, tmp_path: Path, step: int) -> None:
    def stop(now: int, steps: int, row: object) -> None:
        if now == step:
            raise Stop

    config = short(validate_every=4)
    train(features, tmp_path / "whole", config, workers=0)
    with pytest.raises(Stop):
        train(features, tmp_path / "stopped", config, workers=0, on_step=stop)
    train(features, tmp_path / "stopped", config, workers=0)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", config.steps or 0)


def test_another_run_is_not_gone_on_with(features: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", short(steps=2)
    with pytest.raises(UsageError, match="no checkpoint in"):
        train(features, run, config, workers=0, resume=True)
    train(features, run, config, workers=0)
    before = (run / "model.safetensors").stat().st_mtime_ns
    train(features, run, config, workers=0, resume=True)  # nothing is left to do
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    wider = replace(config, batch_size=8, model=replace(config.model, hidden_dim=64))
    with pytest.raises(UsageError, match=r"batch_size 4, now 8, model.hidden_dim 32, now 64"):
        train(features, run, wider, workers=0)
    others = write_features(tmp_path / "others", clips=4)
    with pytest.raises(UsageError, match="other features"):
        train(others, run, config, workers=0)
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="holds a model already"):
        train(features, run, config, workers=0)


def test_checkpoints_hold_tensors_and_json(features: Path, tmp_path: Path) -> None:
    train(features, tmp_path, config := short(steps=2), workers=0)
    with safe_open(tmp_path / "checkpoints" / "step-00000002.safetensors", framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        kinds = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert kinds == {"network", "average", "exp_avg", "exp_avg_sq"}
    assert notes["step"] == 2
    assert notes["config"] == asdict(config)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    kinds = {path.suffix for path in files - {tmp_path / LOCK}}
    assert kinds == {".safetensors", ".json", ".jsonl", ".png"}


def test_restored_weights_lie_where_fresh_ones_do() -> None:
    """A file's tensors are not aligned, and a product of such differs in its last bits."""
    state = State(nn.Linear(5, 7), short())
    places = [tensor.data_ptr() for tensor in state.average.values()]
    read = {
        f"{kind}.{name}": torch.randn(parameter.numel() + 1)[1:].view(parameter.shape)
        for kind in ("network", "average", *MOMENTS)
        for name, parameter in state.parameters.items()
    }
    state.restore(read, {"step": 3, "seconds": 1.0, "best": 0.5})
    assert [tensor.data_ptr() for tensor in state.average.values()] == places
    for kind, tensors in (("network", state.parameters), ("average", state.average)):
        assert all(torch.equal(tensors[name], read[f"{kind}.{name}"]) for name in tensors)


@pytest.mark.slow
def test_killed_and_started_again(features: Path, tmp_path: Path) -> None:
    """SIGKILL after the third, then after some later checkpoint, as the command runs."""
    config = short(steps=60, checkpoint_every=3, validate_every=25)
    assert start(features, tmp_path / "whole", config, "-q").wait() == 0
    run = tmp_path / "killed"
    for seen in (9, 30):
        process = start(features, run, config, "-q")
        while not max((run / "checkpoints").glob(f"step-{seen:08d}*"), default=None):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (run / "checkpoints" / "step-00000060.safetensors").exists()
    assert start(features, run, config, "-q").wait() == 0
    assert_same_run(tmp_path / "whole", run, 60)
    assert not list(run.glob("checkpoints/.*"))
