"""Training on CUDA: what a CPU cannot show."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moda_cli.train.dataset import stack
from moda_cli.train.loader import load
from moda_cli.train.loop import train
from toy_features import short, windows_of, write_features

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def test_batches_copied_ahead_come_whole_and_in_order(tmp_path: Path) -> None:
    windows = windows_of(write_features(tmp_path), short())
    numbers = [[2 * k, 2 * k + 1] for k in range(20)]
    batches = load(windows, numbers, 2, CUDA)
    for pair, batch in zip(numbers, batches, strict=True):
        expected = stack([windows[number] for number in pair])
        for part, other in zip(batch.parts(), expected.parts(), strict=True):
            assert part.is_cuda
            assert torch.equal(part.cpu(), other)


def test_a_run_with_its_defaults_learns_as_on_a_cpu_and_goes_on(tmp_path: Path) -> None:
    """bfloat16, compiled blocks, the fused optimiser; stopped after half of the steps."""
    root, said = write_features(tmp_path / "features"), list[str]()
    plain = short(steps=24, log_every=4, checkpoint_every=12)
    fast = replace(plain, bf16="auto", compile=True, checkpointing=True)

    class Stop(Exception):
        pass

    def stop(step: int, _steps: int, _row: object) -> None:
        if step == 13:
            raise Stop

    train(root, tmp_path / "cpu", plain, device="cpu", workers=0)
    with pytest.raises(Stop):
        train(root, tmp_path / "gpu", fast, device="cuda", on_step=stop, say=said.append)
    train(root, tmp_path / "gpu", fast, device="cuda", say=said.append)
    assert any("bfloat16, compiling, checkpointing" in line for line in said)
    assert any("tokens/s" in line for line in said)
    logs = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").open()]
        for run in ("cpu", "gpu")
    ]
    assert logs[1] == pytest.approx(logs[0], rel=0.03)
    last = load_file(tmp_path / "gpu" / "checkpoints" / "step-00000024.safetensors")
    assert all(tensor.isfinite().all() for tensor in last.values())
