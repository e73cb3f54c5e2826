"""What a run says of itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from moda_cli.cli import app
from moda_cli.cli.train_view import LINE_EVERY_S, Progress, closing_lines
from moda_cli.config import ModelConfig
from moda_cli.train.loop import train
from moda_cli.train.pace import MEASURED, Pace, dense_rate, duration, training_flops
from moda_cli.train.parallel import Ranks
from moda_cli.train.presets import MINI, PRESETS, SyncConfig
from toy_features import short, write_features

CPU = torch.device("cpu")


def test_operations_of_the_full_model() -> None:
    """169 ms for 64 windows at 119 TFLOP/s were measured on an H100: 0.314 a window.

    Since then the first stage makes two of its streams once, and the last block its first alone.
    """
    saved = 0.5 * 3 / 21 + 0.62 / 21
    assert training_flops(ModelConfig()) == pytest.approx((1 - saved) * 0.314e12, rel=0.02)
    assert training_flops(SyncConfig()) > 6 * 80 * 256 * 12 * 768  # at least its first layer


def test_operations_grow_with_tokens_and_blocks() -> None:
    one = training_flops(replace(MINI, single_stream_depth=1))
    two = training_flops(replace(MINI, single_stream_depth=2))
    three = training_flops(replace(MINI, single_stream_depth=3))
    assert two - one == three - two
    tokens, width = 4 * MINI.window, MINI.hidden_dim
    ratio = MINI.mlp_ratio
    weights = (3 + ratio) * width**2 + (1 + ratio) * width**2
    modulation = 3 * width**2
    attention = 2 * tokens * width  # of each token: with all keys, then with all values
    assert two - one == 6 * (tokens * (weights + attention) + modulation)


def test_cards_are_known_by_name() -> None:
    assert dense_rate("NVIDIA H100 80GB HBM3") == 989e12
    assert dense_rate("NVIDIA H100 PCIe") == 756e12
    assert dense_rate("NVIDIA A100-SXM4-80GB") == 312e12
    assert dense_rate("A card of tomorrow") == 0


def test_times_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (12, 400, 3599, 7500)] == [
        "12 s",
        "7 min",
        "1 h 00 min",
        "2 h 05 min",
    ]


def test_the_speed_is_said_once() -> None:
    pace = Pace(PRESETS["mini"], Ranks(0, 1, CPU), 11_000)
    said = [pace.after_step(step) for step in range(1, 20)]
    assert [bool(words) for words in said].index(True) == MEASURED - 1
    assert sum(map(bool, said)) == 1
    assert pace.sentence(0.5, 7200) == "0.5 s a step: 1 h 00 min to go; 10,240 tokens/s"


def test_a_line_every_half_minute_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 100.0
    progress = Progress(None, shown=True, clock=lambda: now)
    row = {"loss": 0.25, "flow": 0.2, "grad_norm": 1.5, "learning_rate": 1e-3}
    for step in range(1, 101):
        now += 1
        progress.on_step(step, 1000, row if step % 10 == 0 else {})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100 / LINE_EVERY_S // 1
    assert lines[0] == (
        "step 30 of 1,000 (3%): loss 0.25, flow 0.2, gradient norm 1.5, learning rate 0.001, "
        "1 s a step, 16 min left"
    )
    progress.on_step(101, 1000, {**row, "val_loss": 0.3, "r_lips": 0.5, "sd_jaw": 0.9})
    assert capsys.readouterr().err == (
        "step 101, held-out clips: loss 0.3; correlation with the true motion: lips 0.50; "
        "spread against it: jaw 0.90\n"
    )


def test_the_head_line(tmp_path: Path) -> None:
    root, said = write_features(tmp_path / "features"), list[str]()
    config = short(steps=12, bf16="auto")
    train(root, tmp_path / "run", config, workers=0, device="cpu", say=said.append)
    assert said[0] == "checking 6 clips, 0.01 h"
    assert "M parameters; 5 windows of 80 frames in 5 clips; cpu, " in said[1]
    assert said[1].endswith(", not compiling; 12 steps of 4 windows")
    assert "float" in said[1]
    assert "s a step: " in said[2]
    assert len(said) == 3
    train(root, tmp_path / "run", config, workers=0, device="cpu", say=said.append)
    assert said[3].endswith("; going on from step 12")


def test_the_end_names_the_best_and_what_comes_next(tmp_path: Path) -> None:
    root, run = write_features(tmp_path / "features"), tmp_path / "run"
    settings = ["steps=4", "batch_size=2", "model.hidden_dim=32", "model.num_heads=2",
                "compile=false", "validate_every=2", "validate_windows=1"]  # fmt: skip
    options = [word for setting in settings for word in ("--set", setting)]
    command = ["train", str(root), "-o", str(run), "--config", "mini", "--workers", "0", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(run)
    *_, best, following = done.stderr.splitlines()
    assert best.startswith("best held-out loss ")
    assert f"curves in {run / 'plots'}" in best
    assert following == f"next: moda generate PORTRAIT SPEECH --model {run}"
    (run / "log.jsonl").write_text('{"step": 2, "val_loss": 1.0}\n{"step": 4, "val_loss": 2.0}\n')
    assert closing_lines(run, speaks=False) == [
        f"best held-out loss 1 at step 2, kept in {run / 'best'}",
        f"next: moda train FEATURES --alse {run} -o OTHER_RUN",
    ]
