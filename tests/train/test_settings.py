"""Presets, configuration files and fields set on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import moda_cli
from moda_cli.cli import app
from moda_cli.config import ModelConfig
from moda_cli.errors import UsageError
from moda_cli.generator.mmdit import MMDiT
from moda_cli.train.presets import PRESETS, SyncConfig
from moda_cli.train.settings import train_config

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("moda", 372_983_878),
        ("four-stream", 904_421_446),
        ("cross-attention", 321_646_918),
        ("mini", 2_501_958),
    ],
)
def test_sizes_of_the_presets(preset: str, count: int) -> None:
    model = PRESETS[preset].model
    assert isinstance(model, ModelConfig)
    with torch.device("meta"):
        network = MMDiT(model)
    assert sum(p.numel() for p in network.parameters()) == count + model.audio_dim  # + null vector


def test_the_paper_s_settings() -> None:
    config = PRESETS["moda"]
    assert (config.epochs, config.steps, config.batch_size) == (500, None, 512)
    assert (config.learning_rate, config.schedule, config.weight_decay) == (1e-4, "constant", 0)
    assert (config.emotion_dropout, config.audio_dropout, config.velocity_weight) == (0.1, 0.5, 1)
    assert config.model.window == 80
    assert config.alse_threshold == 0.4


CONTINUED = [  # the bundled model goes on from the one before it
    "steps=2100",
    "learning_rate=5e-4",
    "warmup_steps=100",
    "ema_decay=0.999",
    "checkpoint_every=500",
    "validate_every=700",
]


def test_the_bundled_model_s_settings() -> None:
    bundled = Path(moda_cli.__file__).parent / "assets" / "mini"
    recipe = json.loads((bundled / "train.json").read_text())
    mini = train_config("mini", CONTINUED, start="mini")
    recipe.pop("model")
    assert recipe == {name: getattr(mini, name) for name in recipe}
    shape = json.loads((bundled / "config.json").read_text())
    assert {name: getattr(mini.model, name) for name in shape} == shape


@pytest.mark.parametrize(
    ("item", "name", "value"),
    [
        ("batch_size=8", "batch_size", 8),
        ("learning_rate=1", "learning_rate", 1.0),
        ("compile=false", "compile", False),
        ("steps=none", "steps", None),
        ("alse=123", "alse", "123"),
        ("schedule=cosine", "schedule", "cosine"),
    ],
)
def test_a_field_is_set_with_its_type(item: str, name: str, value: object) -> None:
    got = getattr(train_config("moda", [item]), name)
    assert got == value
    assert type(got) is type(value)


def test_settings_come_from_presets_and_files(tmp_path: Path) -> None:
    config = train_config("mini", ["model.hidden_dim=64", "model.audio=hubert"])
    assert config == replace(
        PRESETS["mini"], model=replace(PRESETS["mini"].model, hidden_dim=64, audio="hubert")
    )
    (tmp_path / "a.toml").write_text('preset = "alse"\nbatch_size = 3\n[model]\ndepth = 2\n')
    expected = replace(PRESETS["alse"], batch_size=3, model=SyncConfig(depth=2))
    assert train_config(str(tmp_path / "a.toml")) == expected
    (tmp_path / "a.json").write_text('{"epochs": 3, "model": {"num_heads": 6}}')
    expected = replace(PRESETS["moda"], epochs=3.0, model=ModelConfig(num_heads=6))
    assert train_config(str(tmp_path / "a.json")) == expected


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("batch=8", "unknown field batch"),
        ("model.width=8", "unknown field model.width"),
        ("model=8", "model has fields of its own"),
        ("batch_size=8.5", "batch_size cannot be '8.5'"),
        ("batch_size=true", "batch_size cannot be 'true'"),
        ("schedule=linear", "schedule cannot be 'linear'"),
        ("batch_size", "has no value"),
        ("batch_size=0", "batch_size 0 is below 1"),
        ("audio_dropout=2", "audio_dropout 2.0 is not between"),
        ("epochs=0", "epochs 0.0 is not above 0"),
        ("epochs=inf", "epochs inf is no number"),
        ("learning_rate=-1", "learning_rate -1.0 is below 0"),
        ("learning_rate=nan", "learning_rate nan is no number"),
        ("learning_rate=1e300", "learning_rate 1e\\+300 is no number of 32 bits"),
        ("beta2=1", "beta2 1.0 is not between 0 and below 1"),
        ("ema_decay=1", "ema_decay 1.0 is not"),
        ("clip_norm=0", "clip_norm 0.0 is not above 0"),
        ("seed=99999999999999999999", "seed 99999999999999999999 is above"),
        ("model.motion_dim=71", "model.motion_dim 71 is not 70"),
        ("model.identity_dim=62", "model.identity_dim 62 is not 63"),
        ("model.window=0", "model.window 0 is below 1"),
        ("model.window=16", "model.overlap 16 is not below model.window 16"),
        ("model.num_heads=7", "model.hidden_dim 768 is no multiple of twice model.num_heads 7"),
        ("model.guidance=nan", "model.guidance nan is no number"),
        ("model.lip_noise=-1", "model.lip_noise -1.0 is below 0"),
    ],
)
def test_a_wrong_setting_is_refused(item: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train_config("moda", [item])


def test_a_sync_expert_needs_windows_longer_than_what_it_sees() -> None:
    with pytest.raises(UsageError, match=r"model\.window 80 is too short for model\.depth 20"):
        train_config("alse", ["model.depth=20"])
    assert train_config("alse", ["model.depth=19"]).model == SyncConfig(depth=19)


def test_the_command_line_names_the_fields(tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path), "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*arguments, "--set", "batch=8"])
    assert done.exit_code == 2
    assert "batch_size" in done.output
    done = CliRunner().invoke(app, [*arguments, "--config", "big"])
    assert done.exit_code == 2
    assert "four-stream" in done.output
    assert CliRunner().invoke(app, arguments).exit_code == 3  # no index
    assert not (tmp_path / "run").exists()
