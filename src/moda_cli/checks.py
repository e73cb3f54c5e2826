"""What is refused before any work, and a clip whose options are settled.

Every door, the command, a job list, Python, goes through `resolve` and reads the same limits.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from moda_cli import media
from moda_cli.config import LIMITS, ClipConfig
from moda_cli.control import Timeline, parse_emotion
from moda_cli.errors import InputError, ModaError, UsageError
from moda_cli.face.search import FaceSearch, choose_face, face_from_points
from moda_cli.media.pictures import check_image, parse_colour

LONGEST_NAME = 240  # bytes: 255, less what a file in the making has around its name

Spell = Callable[[str], str]  # how the user's door writes an option's name


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that may be made: its options are in range, and what they say is parsed."""

    config: ClipConfig
    timeline: Timeline


def resolve(clip: ClipConfig | Clip, spell: Spell = str) -> Clip:
    """The clip, once everything that can be known before any work is known to be right.

    Raises UsageError for options and for what cannot be written, InputError for an input that is
    not there, DeviceError for an encoder without its GPU.
    """
    if isinstance(clip, Clip):
        return clip
    for fault in option_faults(clip, spell):
        raise fault
    media.check_output(clip.output, clip.codec, clip.crf)
    if clip.codec:
        media.check_encoder(clip.codec)
    if media.is_stdout(clip.output) and (clip.plot or clip.preview):
        raise UsageError("a stream has no --plot or --preview", hint="give a file to --output")
    for path in clip.side_files:
        if path != clip.save_motion:
            check_image(path)
    _check_places(clip)
    return Clip(clip, parse_emotion(clip.emotion))


def _check_places(clip: ClipConfig) -> None:
    """Inputs are there, outputs are free, and no two are one file."""
    written = [*([] if media.is_stdout(clip.output) else [clip.output]), *clip.side_files]
    inputs = [path for path in (clip.portrait, clip.audio, clip.motion) if path]
    for path in inputs:
        if str(path) != "-" and not path.exists():
            raise InputError(f"there is no file {path}", hint="check the path")
    for position, path in enumerate(written):
        resolved = path.resolve()
        if resolved in [other.resolve() for other in inputs]:
            raise UsageError(f"{path} is an input of this clip", hint="give another output name")
        if resolved in [other.resolve() for other in written[:position]]:
            raise UsageError(f"{path} is named for two outputs", hint="give each its own name")
        if not path.parent.is_dir() and path != clip.output:
            reason = f"there is no folder {path.parent}"
            raise UsageError(f"cannot write {path}: {reason}", hint="choose a folder that exists")
        taken = media.final_path(path)
        if taken.exists() and taken != Path() and not clip.overwrite:
            raise UsageError(f"{taken} exists", hint="pass -y to overwrite it")


def option_faults(clip: ClipConfig, spell: Spell = str) -> Iterator[ModaError]:
    """What is wrong with a clip's options whatever its files hold."""
    sampler, size = clip.sampler, clip.render.size
    for part in (clip, sampler, clip.render):
        for name in (field.name for field in fields(part) if field.name in LIMITS):
            if fault := limit_fault(name, getattr(part, name), spell):
                yield fault
    scales = (sampler.audio_scale, sampler.emotion_scale)
    if sampler.guidance is not None and any(scale is not None for scale in scales):
        joint, audio, emotion = map(spell, ("guidance", "audio_scale", "emotion_scale"))
        yield UsageError(
            f"{joint} cannot be combined with {audio} or {emotion}",
            hint=f"{joint} scales both together; give either it or the per-condition scales",
        )
    if size is not None and size % 2:
        yield UsageError(f"{spell('size')} {size} is odd", hint=f"use {size - 1} or {size + 1}")
    nowhere = np.zeros((1, 1, 3), np.uint8)
    for check in (
        lambda: parse_emotion(clip.emotion),
        lambda: parse_colour(clip.background),
        lambda: choose_face(FaceSearch(()), clip.face),
        lambda: clip.face_points is None or face_from_points(nowhere, clip.face_points),
    ):
        try:
            with suppress(InputError):  # that there is no face here was to be expected
                check()
        except ModaError as error:
            yield error


def limit_fault(name: str, value: float | None, spell: Spell = str) -> UsageError | None:
    """Why an option may not have this value, if it has limits."""
    low, high = LIMITS[name]
    if value is None or (math.isfinite(value) and low <= value <= high):
        return None
    return UsageError(f"{spell(name)} {value} is not in {low}-{high}")


def check_format(clip: ClipConfig) -> None:
    """Refuse an output that could not be written once its folders are made. Raises UsageError."""
    for path in (clip.output, *clip.side_files):
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise UsageError(f"cannot write {path}: its name is too long")
        base = next(folder for folder in path.absolute().parents if folder.exists())
        if path == clip.output:
            media.check_output(base / path.name, clip.codec, clip.crf)
        elif not base.is_dir():
            raise UsageError(f"cannot write {path}: {base} is no folder")
        elif path != clip.save_motion:
            check_image(path)
