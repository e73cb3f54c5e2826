"""Pre-emption, power cuts, full disks, two runs at once: a run goes on to the same bits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moda_cli.errors import ModaError, UsageError
from moda_cli.train import trainer
from moda_cli.train.loop import train
from toy_features import short, write_features
from train_runs import assert_same_run, start


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"))


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoints/step-*"))


def at(step: int, action: Callable[[], object]) -> Callable[..., None]:
    """A callback that acts after a step."""

    def on_step(now: int, _steps: int, _row: object) -> None:
        if now == step:
            action()

    return on_step


@pytest.mark.parametrize("step", [3, 4])
def test_the_first_signal_leaves_a_checkpoint_and_the_same_run(
    features: Path, tmp_path: Path, step: int
) -> None:
    """Also between two rows of the log, whose means then are of the steps before and after."""
    config, said = short(log_every=3, checkpoint_every=9, validate_every=12), list[str]()
    train(features, tmp_path / "whole", config, workers=0)
    run = tmp_path / "run"
    interrupt = at(step, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(features, run, config, workers=0, on_step=interrupt, say=said.append)
    name = f"step-{step + 1:08d}.safetensors"  # the step in hand is the next one
    assert checkpoints(run) == [name]
    assert said[-2:] == [
        "stopping after this step and its checkpoint; once more stops at once",
        f"step {step + 1}: checkpoint written, the same command goes on",
    ]
    train(features, run, config, workers=0)
    assert_same_run(tmp_path / "whole", run, 12)


def test_the_second_signal_stops_at_once(features: Path, tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    config = short(checkpoint_every=9, validate_every=12)
    with pytest.raises(KeyboardInterrupt):
        train(features, tmp_path / "run", config, workers=0, on_step=at(3, twice))
    assert checkpoints(tmp_path / "run") == []
    train(features, tmp_path / "run", config, workers=0)  # it had published nothing
    assert checkpoints(tmp_path / "run")[-1] == "step-00000012.safetensors"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals a process group")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_scheduler_signals_the_whole_group(
    features: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = short(steps=4000, checkpoint_every=4000, validate_every=4000)
    run = tmp_path / "run"
    process = start(features, run, config, start_new_session=True, stderr=subprocess.PIPE)
    while not (run / "log.jsonl").exists() or not (run / "log.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "DataLoader" not in said
    assert "checkpoint written, the same command goes on" in said
    assert len(checkpoints(run)) == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills with a signal")
def test_a_worker_that_is_killed_is_said(features: Path, tmp_path: Path) -> None:
    config = short(steps=4000, checkpoint_every=4000, validate_every=4000)
    run = tmp_path / "run"
    process = start(features, run, config, "-q", stderr=subprocess.PIPE)
    while not (run / "log.jsonl").exists() or not (run / "log.jsonl").read_text():
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("error: a process that prepares samples is gone"), said
    assert "Traceback" not in said


def test_a_checkpoint_is_written_by_the_clock_too(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short(log_every=5, checkpoint_every=12, validate_every=12)
    train(features, tmp_path / "whole", config, workers=0)
    monkeypatch.setattr(trainer, "KEEP_EVERY_S", 0.0)
    seen = list[str]()
    look = at(7, lambda: seen.extend(checkpoints(tmp_path / "run")))
    train(features, tmp_path / "run", config, workers=0, on_step=look)
    assert seen == ["step-00000006.safetensors", "step-00000007.safetensors"]
    assert_same_run(tmp_path / "whole", tmp_path / "run", 12)


@pytest.mark.parametrize("left", ["half", "nothing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    features: Path, tmp_path: Path, left: str
) -> None:
    config, said, run = short(validate_every=12), list[str](), tmp_path / "run"
    train(features, tmp_path / "whole", config, workers=0)
    interrupt = at(9, lambda: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises(SystemExit, match="143"):
            train(features, run, config, workers=0, on_step=interrupt)
    finally:
        signal.signal(signal.SIGTERM, before)
    older, newest = (run / "checkpoints" / name for name in checkpoints(run))
    assert (older.name, newest.name) == ("step-00000008.safetensors", "step-00000010.safetensors")
    data = newest.read_bytes()
    newest.write_bytes(data[: len(data) // 2] if left == "half" else b"")
    train(features, run, config, workers=0, say=said.append)
    assert said[0].startswith(f"{newest} is damaged (")
    assert said[0].endswith(f"); going on from {older}")
    assert_same_run(tmp_path / "whole", run, 12)
    for path in run.glob("checkpoints/*"):
        path.write_bytes(b"")
    with pytest.raises(ModaError, match=r"no checkpoint of .* can be read") as caught:
        train(features, run, config, workers=0)
    assert "another folder" in caught.value.hint


def test_when_the_disk_fills_at_the_first_checkpoint_the_same_command_goes_on(
    features: Path, tiny_disk: Path
) -> None:
    """512 kB hold the model, and not its checkpoint."""
    run, config = tiny_disk / "run", short()
    with pytest.raises(UsageError, match="No space left") as caught:
        train(features, run, config, workers=0)
    assert "free some space and run the same command again" in caught.value.hint
    assert (run / "model.safetensors").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(tiny_disk)], check=True)
    train(features, run, config, workers=0)
    assert checkpoints(run)[-1] == "step-00000012.safetensors"


def test_a_run_has_one_writer(features: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def again() -> None:
        with pytest.raises(UsageError, match=f"{run} is being written by process {os.getpid()}$"):
            train(features, run, short(), workers=0)

    asked = []
    train(features, run, short(), workers=0, on_step=at(3, lambda: asked.append(again())))
    assert asked == [None]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals a process")
def test_of_many_processes_one_is_asked_and_all_stop(features: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ["steps=4000", "batch_size=4", "model.hidden_dim=32", "model.num_heads=2",
                "bf16=false", "compile=false", "log_every=2"]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "moda_cli", "train", str(features), "-o", str(run), "--device=cpu",
               "--config=mini", "--workers=0"]  # fmt: skip
    command += [f"--set={setting}" for setting in settings]
    process = subprocess.Popen(command, text=True, stderr=subprocess.PIPE)
    while not (run / "log.jsonl").exists() or not (run / "log.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    main = int((run / ".owner").read_text().split()[0])
    siblings = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = (int(number) for number in siblings if int(number) != main)
    os.kill(other, signal.SIGTERM)
    _, said = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "checkpoint written, the same command goes on" in said
    assert len(checkpoints(run)) == 1
