"""The objective and the loop that trains a motion generator."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from moda_cli.device import usable_cores
from moda_cli.errors import InputError, ModaError, UsageError
from moda_cli.generator.blocks import CrossBlock
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.model import MotionGenerator
from moda_cli.train.dataset import TrainingWindows, stack
from moda_cli.train.loader import load
from moda_cli.train.loop import train
from moda_cli.train.losses import clean_motion, flow_loss, noisy_motion
from moda_cli.train.objectives import MotionObjective, lip_correlation, sample_motion
from moda_cli.train.settings import train_config
from moda_cli.train.trainer import learning_rate
from toy_features import TINY, short, windows_of, write_features

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"))


def test_the_path_runs_from_motion_to_noise() -> None:
    motion, noise = torch.randn(2, 3, 5, 70)
    sigma = torch.tensor([0.0, 1.0, 0.25])
    z, velocity = noisy_motion(motion, noise, sigma)
    torch.testing.assert_close(z[0], motion[0])
    torch.testing.assert_close(z[1], noise[1])
    torch.testing.assert_close(clean_motion(z, velocity, sigma), motion)


def test_losses_in_closed_form() -> None:
    target = torch.zeros(1, 4, 1)
    ramp = torch.tensor([0.0, 1, 2, 3])[None, :, None]
    loss, flow = flow_loss(ramp, target, velocity_weight=0.5)
    assert flow == pytest.approx((0 + 1 + 4 + 9) / 4)
    assert loss == pytest.approx(3.5 + 0.5 * (1 + 0))  # slope 1, curvature 0
    kink = torch.tensor([0.0, 0, 1, 0])[None, :, None]
    loss, flow = flow_loss(kink, target, velocity_weight=1.0)
    assert loss == pytest.approx(1 / 4 + 2 / 3 + (1 + 4) / 2)
    assert flow_loss(kink, kink, 1.0)[0] == 0


def test_dropped_speech_is_the_null_vector(features: Path) -> None:
    windows = windows_of(features, short(audio_dropout=1.0))
    batch = stack([windows[number] for number in range(3)])
    objective = MotionObjective(windows.config, windows.stats)
    nn.init.normal_(objective.network.head.weight)
    deaf = objective(batch)["loss"]
    assert objective(replace(batch, audio=batch.audio + 9))["loss"] == deaf
    heard = replace(batch, silent=torch.zeros(3, dtype=torch.bool))
    heard = objective(heard)["loss"]
    assert objective(replace(batch, silent=batch.silent & False))["loss"] == heard
    deaf.backward()
    assert objective.network.null_audio.grad is not None


def test_schedule() -> None:
    config = short(warmup_steps=100, learning_rate=1.0, schedule="cosine")
    assert learning_rate(0, config, 1000) == pytest.approx(0.01)
    assert learning_rate(100, config, 1000) == pytest.approx(1.0)
    assert learning_rate(1000, config, 1000) == pytest.approx(0.02)
    assert learning_rate(900, replace(config, schedule="constant"), 1000) == 1.0


@pytest.mark.filterwarnings("error")
def test_samples_are_prepared_by_no_more_processes_than_cores(features: Path) -> None:
    """Torch would warn of more, and whoever prepares them, they are the same."""
    windows, numbers = windows_of(features, short()), [[0, 1], [2], [3, 4]]
    alone = load(windows, numbers, 0, CPU)
    for batch, same in zip(load(windows, numbers, usable_cores() + 1, CPU), alone, strict=True):
        for part, other in zip(batch.parts(), same.parts(), strict=True):
            assert torch.equal(part, other)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_clip_is_named(tmp_path: Path, workers: int) -> None:
    root = write_features(tmp_path / "features", clips=2)
    path = root / "c0.safetensors"
    run, short_file = tmp_path / "run", tmp_path / "short"

    def damage(step: int, steps: int, row: dict[str, float]) -> None:
        short_file.write_bytes(path.read_bytes()[:5000])
        short_file.replace(path)

    with pytest.raises(InputError, match=r"^cannot read") as caught:
        train(root, run, short(steps=40), workers=workers, on_step=damage)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"cannot train on .*c0\.safetensors: damaged"):
        train(root, tmp_path / "new", short(), workers=0)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write to"):
        train(write_features(root), tmp_path / "file" / "run", short(), workers=0)


def test_tensorboard(features: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(UsageError, match="needs the package tensorboard"):
            train(features, tmp_path / "run", short(steps=2), workers=0, tensorboard=True)
        assert not (tmp_path / "run").exists()
    else:
        train(features, tmp_path / "run", short(steps=2), workers=0, tensorboard=True)
        assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_cross_attention_is_ordinary_attention() -> None:
    block = CrossBlock(32, 4, 4)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat((block.query.weight, block.key_value.weight)).data
    theirs.in_proj_bias.data = torch.cat((block.query.bias, block.key_value.bias)).data
    theirs.out_proj.load_state_dict(block.out.state_dict())
    block.norm.q, block.norm.k = nn.Identity(), nn.Identity()
    x, given = torch.randn(2, 7, 32), torch.randn(2, 21, 32)
    still = torch.tensor([1.0, 0.0]).expand(21, 4, 2)  # no rotation
    mixed = block._attend(x, given, {"motion": still[:7], "condition": still})
    torch.testing.assert_close(mixed, theirs(x, given, given)[0], atol=1e-5, rtol=1e-4)


def test_the_ablations_learn_from_every_condition() -> None:
    for depths in ((2, 0, 0, 0), (0, 0, 0, 2)):
        names = ("four_stream_depth", "two_stream_depth", "single_stream_depth")
        names = (*names, "cross_attention_depth")
        network = MMDiT(replace(TINY, **dict(zip(names, depths, strict=True))))
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        inputs = [torch.randn(1, 9, 4, 80), torch.randn(1, 63), torch.randn(1, 9, 70)]
        for tensor in inputs:
            tensor.requires_grad_()
        audio, identity, z = inputs
        given = network.embed(audio, torch.tensor([3]), identity)
        out = network(z, torch.zeros(1, 1, 70), torch.tensor([500.0]), given)
        out[0, 4].sum().backward()
        assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in inputs)
        assert z.grad is not None
        assert z.grad[0, 0].any()  # frames see one another
        unused = {name for name, p in network.named_parameters() if p.grad is None}
        assert unused == {"null_audio"}  # DDP needs all others


def test_lip_correlation_looks_at_moving_channels() -> None:
    true = torch.zeros(2, 50, 70)
    true[..., 58] = torch.randn(2, 50)
    true[..., 59] = 0.05 * torch.randn(2, 50)  # a twentieth of the largest
    made = true.clone()
    made[..., 59] *= -1
    assert lip_correlation(made, true) == pytest.approx(1)
    assert lip_correlation(-made, true) == pytest.approx(-1)
    assert lip_correlation(torch.zeros_like(true), true) == 0


def test_parts_of_a_batch_add_up_and_weights_are_averaged(features: Path, tmp_path: Path) -> None:
    config = short(steps=2, checkpoint_every=1)
    train(features, tmp_path / "whole", config, workers=0)
    train(features, tmp_path / "parts", replace(config, accumulate=2), workers=0)
    one, two, parts = (
        load_file(tmp_path / path)
        for path in (
            "whole/checkpoints/step-00000001.safetensors",
            "whole/checkpoints/step-00000002.safetensors",
            "parts/checkpoints/step-00000002.safetensors",
        )
    )
    for name in one:
        kind, _, leaf = name.partition(".")
        if kind == "network":
            torch.testing.assert_close(two[name], parts[name], atol=1e-6, rtol=0)
            average = one[f"average.{leaf}"] + (1 - 2 / 11) * (two[name] - one[f"average.{leaf}"])
            torch.testing.assert_close(two[f"average.{leaf}"], average)
    model = load_file(tmp_path / "whole" / "model.safetensors")
    assert torch.equal(model["head.weight"], two["average.head.weight"].half())


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(
    features: Path, tmp_path: Path
) -> None:
    config = short(learning_rate=1e30, warmup_steps=0, clip_norm=1e9)
    run = tmp_path / "run"
    with pytest.raises(ModaError, match=r"diverged: \w+ is (nan|inf) at step") as caught:
        train(features, run, replace(config, checkpoint_every=1), workers=0)
    assert caught.value.exit_code == 1
    assert "lower learning_rate" in caught.value.hint
    last = max((run / "checkpoints").glob("step-*"))
    assert str(last) in caught.value.hint
    good = int(last.stem.removeprefix("step-"))
    assert str(caught.value).endswith(f"at step {good + 1}")
    assert all(tensor.isfinite().all() for tensor in load_file(last).values())
    MotionGenerator.load(run, CPU)


def test_what_a_run_leaves(features: Path, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", []
    train(features, run, short(steps=6, log_every=1), workers=0,
          on_step=lambda step, total, row: steps.append((step, total, bool(row))))  # fmt: skip
    assert steps == [(k, 6, True) for k in range(1, 7)]
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert {"loss", "flow", "grad_norm", "learning_rate", "seconds"} <= rows[0].keys()
    assert {"val_loss", "r_lips", "r_jaw", "sd_jaw"} <= rows[-1].keys()
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"step-00000004.safetensors", "step-00000006.safetensors", "best.safetensors"}
    assert (run / "plots" / "step-00000006.png").stat().st_size > 5000
    with safe_open(run / "checkpoints" / "best.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["notes"])["step"] == 6
    for directory in (run, run / "best"):
        assert MotionGenerator.load(directory, CPU).network.config == TINY
    assert json.loads((run / "train.json").read_text())["model"]["hidden_dim"] == 32
    assert train_config(str(run / "train.json")) == short(steps=6, log_every=1)


@pytest.mark.slow
def test_eight_clips_are_learnt_by_heart(tmp_path: Path) -> None:
    root = write_features(tmp_path / "features", clips=8, frames=80, held_out=0)
    rows: list[dict[str, float]] = []
    config = short(
        steps=300, batch_size=8, learning_rate=4e-3, warmup_steps=20, audio_dropout=0.0,
        ema_decay=0.98, validate_on="train", validate_every=300, log_every=50,
        model=replace(TINY, hidden_dim=48),
    )  # fmt: skip
    train(root, tmp_path / "run", config, workers=0,
          on_step=lambda _s, _n, row: rows.append(row) if row else None)  # fmt: skip
    losses = [row["loss"] for row in rows]
    assert losses[-1] < 0.3 * losses[0]
    model = MotionGenerator.load(tmp_path / "run", CPU)
    windows = windows_of(root, replace(config, motion_dropout=0, prev_noise=0, emotion_dropout=0))
    batch = stack(
        [TrainingWindows([clip], windows.stats, windows.config)[0] for clip in windows.clips]
    )
    true = model.stats.denormalise(batch.motion)
    scores = [
        lip_correlation(model.stats.denormalise(sample_motion(model.network, batch, seed)), true)
        for seed in range(4)
    ]
    assert sum(scores) / 4 > 0.95, scores


@pytest.mark.slow
def test_the_command_leaves_a_model_that_speaks(features: Path, tmp_path: Path) -> None:
    """`moda train` in bf16 with workers, then `moda generate` with what it left."""
    run = tmp_path / "run"
    settings = ("steps=6", "batch_size=4", "model.hidden_dim=32", "model.num_heads=2")
    overrides = [word for setting in (*settings, "compile=no") for word in ("--set", setting)]
    moda = [sys.executable, "-m", "moda_cli"]
    command = [*moda, "train", str(features), "-o", str(run), "--config", "mini", *overrides]
    wrong = subprocess.run(command, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "compile cannot be 'no'" in wrong.stderr
    command[-1] = "compile=false"
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["step"] == 6
    again = subprocess.run(command, capture_output=True, text=True, check=True)  # nothing to do
    assert again.stdout.strip() == str(run)
    changed = subprocess.run([*command, "--set", "seed=3"], capture_output=True, text=True)
    assert changed.returncode == 2
    assert "seed 0, now 3" in changed.stderr
    portrait, speech = str(EXAMPLES / "portrait.png"), str(EXAMPLES / "speech.wav")
    out = tmp_path / "out.mp4"
    generate = [*moda, "generate", portrait, speech, "-o", str(out), "--model", str(run)]
    subprocess.run(generate, check=True, capture_output=True)
    assert out.stat().st_size > 1000
