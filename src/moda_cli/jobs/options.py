"""The options a job may set beside the command line's, from a cell of a table or a JSON value."""

import re
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from moda_cli.config import BOOLEANS, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import UsageError, did_you_mean

FILES = ("portrait", "audio", "output")
WHOLE_BATCH = ("model", "renderer", "device", "dtype", "overwrite", "force", "sampler", "render")
NEGATED = {  # as on the command line
    "crop": "full_frame",
    "no_blink": "blink",
    "no_audio": "sound",
    "no_silence_gate": "silence_gate",
    "no_provenance": "provenance",
}


def _kinds(config: type) -> dict[str, type]:
    """The type of each field, without its `| None`."""
    hints = get_type_hints(config)
    return {
        field.name: next(kind for kind in (*get_args(hints[field.name]), hints[field.name])
                         if kind is not types.NoneType)
        for field in fields(config)
    }  # fmt: skip


CLIP, SAMPLER, RENDER = map(_kinds, (ClipConfig, SamplerConfig, RenderConfig))
KINDS = {
    name: kind
    for name, kind in {**CLIP, **SAMPLER, **RENDER}.items()
    if name not in (*WHOLE_BATCH, *FILES)
}


def option_name(column: str) -> str:
    """The option a column names. Raises UsageError for one that a job cannot set."""
    name = column.strip().removeprefix("--").replace("-", "_")
    if name in WHOLE_BATCH:
        raise UsageError(f"{column!r} is one for the whole batch: give it on the command line")
    if name not in KINDS and name not in NEGATED:
        known = [*FILES, *sorted(KINDS)]
        hint = did_you_mean(name, known, f"columns are {', '.join(known)}")
        raise UsageError(f"unknown column {column!r}", hint=hint)
    return name


def read_option(name: str, value: object, folder: Path) -> object:
    """A value of the option's own type; relative paths start at `folder`. Raises UsageError."""
    fault = UsageError(f"{name} {value!r} is not what it takes")
    kind = KINDS[NEGATED.get(name, name)]
    if kind is bool:
        given = value if isinstance(value, bool) else BOOLEANS.get(str(value).strip().lower())
        if given is None:
            raise UsageError(f"{name} {value!r} is neither true nor false")
        return given != (name in NEGATED)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise fault
    if kind is Path:
        if "\0" in str(value):
            raise fault
        return local_path(str(value), folder)
    if kind is str:
        return str(value).strip()
    try:
        if kind is not int:
            return float(value)
        whole, _, zeros = str(value).strip().partition(".")  # a spreadsheet's 12.0
        if zeros.strip("0"):
            raise ValueError
        return int(whole)
    except (ValueError, OverflowError):
        wanted = "an integer" if kind is int else "a number"
        raise UsageError(f"{name} {value!r} is not {wanted}") from None


def local_path(text: str, folder: Path) -> Path:
    """A path as a job's author means it: `~` is home, a relative one starts at `folder`."""
    path = Path(text.strip())
    with suppress(RuntimeError):  # nobody of that name: the file is then missing
        path = path.expanduser()
    return folder / path


def with_options(clip: ClipConfig, given: Mapping[str, Any]) -> ClipConfig:
    """The clip with these options, of whichever part of its configuration they are."""
    return replace(
        clip,
        sampler=replace(clip.sampler, **{k: v for k, v in given.items() if k in SAMPLER}),
        render=replace(clip.render, **{k: v for k, v in given.items() if k in RENDER}),
        **{k: v for k, v in given.items() if k in CLIP},
    )


def flat_options(clip: ClipConfig) -> dict[str, Any]:
    """Every option that shapes the clip, by name; its files apart."""
    parts = ((clip, CLIP), (clip.sampler, SAMPLER), (clip.render, RENDER))
    values = {name: getattr(part, name) for part, names in parts for name in names if name in KINDS}
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def in_name(value: object) -> str:
    """An option's value as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", f"{value:g}" if isinstance(value, float) else str(value))
