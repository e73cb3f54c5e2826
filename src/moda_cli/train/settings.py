"""A training configuration from a preset or a file, with fields set on the command line.

Standard library only: a mistyped field is told before torch loads.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from moda_cli.config import ModelConfig, least
from moda_cli.errors import UsageError
from moda_cli.files import parse_json, parse_toml
from moda_cli.train.presets import FINE_TUNING, PRESETS, SLOWER, SyncConfig, TrainConfig

Config = TypeVar("Config")

AT_LEAST_ONE = (
    "steps",
    "batch_size",
    "accumulate",
    "log_every",
    "checkpoint_every",
    "validate_every",
    "validate_windows",
    "shortest_window",
)
ABOVE_ZERO = ("epochs", "clip_norm")
NOT_NEGATIVE = (
    "learning_rate",
    "warmup_steps",
    "weight_decay",
    "velocity_weight",
    "alse_threshold",
    "prev_noise",
    "seed",
)
RATES = ("audio_dropout", "emotion_dropout", "motion_dropout")
BELOW_ONE = ("ema_decay", "beta2")  # at 1 the average or the optimiser would never move
LIMITS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (AT_LEAST_ONE, lambda x: x >= 1, "is below 1"),
    (ABOVE_ZERO, lambda x: x > 0, "is not above 0"),
    (NOT_NEGATIVE, lambda x: x >= 0, "is below 0"),
    (RATES, lambda x: 0 <= x <= 1, "is not between 0 and 1"),
    (BELOW_ONE, lambda x: 0 <= x < 1, "is not between 0 and below 1"),
)
FIXED = ("motion_dim", "identity_dim")  # a face has as many keypoints in every model
LARGEST = 3.4e38  # of float32
SHIFTS = 4  # short windows that a sync expert tells apart, at least


def train_config(source: str, set_: Sequence[str] = (), start: str | None = None) -> TrainConfig:
    """The preset or TOML/JSON file `source`, then every `name=value` of `set_`.

    A file changes the preset it names as `preset`, or `moda`. Fields of the model are `model.name`.
    start: the model whose weights the run begins with; it has that model's shape and, unless they
    are given, the length and rates of fine-tuning. Raises UsageError naming the fields there are.
    """
    values = {} if source in PRESETS else _read(Path(source))
    preset = source if source in PRESETS else values.pop("preset", "moda")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UsageError(f"{source}: no preset {preset!r}", hint=_presets())
    first = config = PRESETS[preset] if start is None else _fine_tuned(PRESETS[preset], start)
    config = changed(config, values)
    for item in set_:
        name, found, text = item.partition("=")
        if not found:
            raise UsageError(f"--set {item} has no value", hint="write --set batch_size=8")
        nested: Any = text
        for part in reversed(name.strip().split(".")):
            nested = {part: nested}
        config = changed(config, nested)
    if config.start and config.model != first.model:
        hint = "leave the model's fields out, or --from"
        raise UsageError(f"the model has the shape of {config.start}, where it starts", hint=hint)
    _check(config)
    return config


def _fine_tuned(preset: TrainConfig, start: str) -> TrainConfig:
    if isinstance(preset.model, SyncConfig):
        raise UsageError("a sync expert starts from nothing", hint="leave --from out")
    return replace(preset, start=start, learning_rate=SLOWER * preset.learning_rate, **FINE_TUNING)


def _check(config: TrainConfig) -> None:
    """Raises UsageError for numbers that no run can have."""
    for prefix, part in (("", config), ("model.", config.model)):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, float) and not abs(value) <= LARGEST:
                raise UsageError(f"{prefix}{field.name} {value} is no number of 32 bits")
    for names, allowed, fault in LIMITS:
        for name in names:
            value = getattr(config, name)
            if value is not None and not allowed(value):
                raise UsageError(f"{name} {value} {fault}")
    if (config.shortest_window or 0) > config.model.window:
        longest = f"model.window {config.model.window}"
        raise UsageError(f"shortest_window {config.shortest_window} is above {longest}")
    if config.seed >= 2**63:
        raise UsageError(f"seed {config.seed} is above {2**63 - 1}")
    _check_model(config.model)


def _check_model(model: ModelConfig | SyncConfig) -> None:
    """Raises UsageError for a shape that no network can have."""
    for field in fields(model):
        value = getattr(model, field.name)
        if type(value) is int and value < least(field.name):
            raise UsageError(f"model.{field.name} {value} is below {least(field.name)}")
        if field.name in FIXED and value != field.default:
            raise UsageError(f"model.{field.name} {value} is not {field.default}")
    if isinstance(model, SyncConfig):
        if model.window < 4 * model.depth + SHIFTS:
            raise UsageError(
                f"model.window {model.window} is too short for model.depth {model.depth}",
                hint=f"it takes {4 * model.depth + SHIFTS} frames",
            )
        return
    if model.hidden_dim % (2 * model.num_heads):
        raise UsageError(
            f"model.hidden_dim {model.hidden_dim} is no multiple of twice model.num_heads "
            f"{model.num_heads}",
            hint="every head rotates pairs of channels",
        )
    for name, hint in (
        ("overlap", "neighbouring windows share some of their frames"),
        ("known", "some of a window's frames are told, the others are made"),
    ):
        frames = getattr(model, name)
        if frames >= model.window:
            fault = f"model.{name} {frames} is not below model.window {model.window}"
            raise UsageError(fault, hint=hint)
    if model.lip_noise < 0:
        raise UsageError(f"model.lip_noise {model.lip_noise} is below 0")


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
        values = parse_toml(text) if path.suffix == ".toml" else parse_json(text)
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
