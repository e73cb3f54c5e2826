"""A training configuration from a preset or a file, with fields set on the command line.

Standard library only: a mistyped field is told before torch loads.
"""

import json
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from moda_cli.config import PRESETS, ModelConfig, TrainConfig
from moda_cli.errors import UsageError

Config = TypeVar("Config")

AT_LEAST_ONE = (
    "steps",
    "batch_size",
    "accumulate",
    "log_every",
    "checkpoint_every",
    "validate_every",
    "validate_windows",
)
NOT_NEGATIVE = ("learning_rate", "warmup_steps", "weight_decay", "clip_norm", "prev_noise")
RATES = ("audio_dropout", "emotion_dropout", "motion_dropout", "ema_decay", "beta2")


def train_config(source: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The preset or TOML/JSON file `source`, then every `name=value` of `overrides`.

    A file changes the preset it names as `preset`, or `moda`. Fields of the model are `model.name`.
    Raises UsageError naming the fields there are.
    """
    if source in PRESETS:
        config = PRESETS[source]
    else:
        values = _read(Path(source))
        preset = values.pop("preset", "moda")
        if preset not in PRESETS:
            raise UsageError(f"{source}: no preset {preset!r}", hint=_presets())
        config = changed(PRESETS[preset], values)
    for item in overrides:
        name, found, text = item.partition("=")
        if not found:
            raise UsageError(f"--set {item} has no value", hint="write --set batch_size=8")
        nested: Any = text
        for part in reversed(name.strip().split(".")):
            nested = {part: nested}
        config = changed(config, nested)
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    """Raises UsageError for numbers that no run can have."""
    least = {**dict.fromkeys(AT_LEAST_ONE, 1), **dict.fromkeys(NOT_NEGATIVE, 0)}
    for name, low in least.items():
        value = getattr(config, name)
        if value is not None and not low <= value < math.inf:
            fault = f"below {low}" if value < low else "no finite number"
            raise UsageError(f"{name} {value} is {fault}")
    for name in RATES:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{name} {getattr(config, name)} is not between 0 and 1")
    model = config.model
    for field in fields(model):
        value = getattr(model, field.name)
        low = 0 if field.name.endswith("_depth") or field.name == "overlap" else 1
        if type(value) is int and value < low:
            raise UsageError(f"model.{field.name} {value} is below {low}")
    if isinstance(model, ModelConfig) and model.hidden_dim % (2 * model.num_heads):
        raise UsageError(
            f"model.hidden_dim {model.hidden_dim} is no multiple of twice model.num_heads",
            hint="every head rotates pairs of channels",
        )


def changed(config: Config, values: Mapping[str, Any], prefix: str = "") -> Config:
    """The configuration with some fields replaced, each checked against its type.

    Text is read as the field's type. Raises UsageError.
    """
    known = get_type_hints(type(config))
    names = [field.name for field in fields(config)]  # type: ignore[arg-type]
    new = {}
    for name, value in values.items():
        if name not in names:
            raise UsageError(
                f"unknown field {prefix}{name}",
                hint=f"fields: {', '.join(prefix + n for n in names)}",
            )
        present = getattr(config, name)
        if is_dataclass(present):
            if not isinstance(value, Mapping):
                raise UsageError(f"{prefix}{name} has fields of its own", hint=f"set {name}.FIELD")
            new[name] = changed(present, value, f"{prefix}{name}.")
        else:
            new[name] = _typed(prefix + name, value, known[name])
    return replace(config, **new)  # type: ignore[type-var]


def _typed(name: str, value: Any, hint: Any) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif option is str:
            if isinstance(value, str):
                return value
        else:
            number = _number(value)
            if option is float and type(number) is int:
                return float(number)
            if type(number) is option:
                return number
    wanted = " or ".join(
        ", ".join(get_args(option)) if get_origin(option) is Literal else option.__name__
        for option in options
    ).replace("NoneType", "none")
    raise UsageError(f"{name} cannot be {value!r}", hint=f"it is {wanted}")


def _number(value: Any) -> Any:
    """The number, truth value or none that text stands for; other values as they are."""
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UsageError(
            f"--config {path} is no preset and cannot be read: {error.strerror}", hint=_presets()
        ) from None
    except ValueError as error:
        raise UsageError(f"--config {path} is not TOML or JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} holds no table of fields")
    return values


def _presets() -> str:
    return f"presets: {', '.join(PRESETS)}"
