"""The options a job may set beside the command line's, from a cell of a table or a JSON value."""

import math
import os
import re
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import InputError, ModaError, UsageError

FILES = ("portrait", "audio", "output")
WHOLE_BATCH = ("model", "renderer", "device", "dtype", "overwrite", "sampler", "render")
NEGATED = {"crop": "full_frame", "no_blink": "blink", "no_audio": "sound"}  # as on the command line
LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, 1000),
    "seed": (0, 2**63 - 1),
    "guidance": (0, 20),
    "audio_scale": (0, 20),
    "emotion_scale": (0, 20),
    "head_motion": (0, 10),
    "expression_scale": (0, 10),
    "fps": (1, 120),
    "size": (64, 4096),
    "crf": (0, 63),
}
LONGEST_NAME = 240  # bytes: 255, less what a file in the making has around its name
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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
SIDE_FILES = ("save_motion", "plot", "preview", "show_landmarks", "save_crop")


def option_name(column: str) -> str:
    """The option a column names. Raises UsageError for one that a job cannot set."""
    name = column.strip().removeprefix("--").replace("-", "_")
    if name in WHOLE_BATCH:
        raise UsageError(f"{column!r} is one for the whole batch: give it on the command line")
    if name not in KINDS and name not in NEGATED:
        known = ", ".join([*FILES, *sorted(KINDS)])
        raise UsageError(f"unknown column {column!r}", hint=f"columns are {known}")
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
        number = int(str(value)) if kind is int else float(value)
    except (ValueError, OverflowError):
        wanted = "an integer" if kind is int else "a number"
        raise UsageError(f"{name} {value!r} is not {wanted}") from None
    low, high = LIMITS[name]
    if not (math.isfinite(number) and low <= number <= high):
        raise UsageError(f"{name} {value} is not in {low}-{high}")
    return number


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


def option_faults(clip: ClipConfig) -> Iterator[str]:
    """What is wrong with a clip's options whatever its files hold."""
    import numpy as np

    from moda_cli.control import parse_emotion
    from moda_cli.face.search import FaceSearch, choose_face, face_from_points
    from moda_cli.media.pictures import parse_colour

    sampler, size = clip.sampler, clip.render.size
    scales = (sampler.audio_scale, sampler.emotion_scale)
    if sampler.guidance is not None and any(scale is not None for scale in scales):
        yield "guidance cannot be combined with audio_scale or emotion_scale"
    if size is not None and size % 2:
        yield f"size {size} is odd"
    nowhere = np.zeros((1, 1, 3), np.uint8)
    for check in (
        lambda: parse_emotion(clip.emotion),
        lambda: parse_colour(clip.background),
        lambda: choose_face(FaceSearch(()), clip.face),
        lambda: clip.face_points is None or face_from_points(nowhere, clip.face_points),
        lambda: _check_format(clip),
    ):
        try:
            with suppress(InputError):  # that there is no face here was to be expected
                check()
        except ModaError as error:
            yield str(error)


def _check_format(clip: ClipConfig) -> None:
    """Raises UsageError where the output could not be written once its folders are made."""
    from moda_cli.media import check_output
    from moda_cli.media.pictures import check_image

    for path in (clip.output, *side_files(clip)):
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise UsageError(f"cannot write {path}: its name is too long")
        base = next(folder for folder in path.absolute().parents if folder.exists())
        if path == clip.output:
            check_output(base / path.name, clip.codec, clip.crf)
        elif not base.is_dir():
            raise UsageError(f"cannot write {path}: {base} is no folder")
        elif path != clip.save_motion:
            check_image(path)


def side_files(clip: ClipConfig) -> list[Path]:
    """The files asked for beside the video."""
    return [path for name in SIDE_FILES if (path := getattr(clip, name)) is not None]


def in_name(value: object) -> str:
    """An option's value as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", f"{value:g}" if isinstance(value, float) else str(value))
