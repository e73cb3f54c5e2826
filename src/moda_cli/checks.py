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
from moda_cli.config import (
    ASPECTS,
    INPUT_FILES,
    LIMITS,
    PARTS,
    SIDE_FILES,
    SUBTITLES_AS,
    TRANSPARENT,
    ClipConfig,
)
from moda_cli.control.recordings import parse_take
from moda_cli.control.timeline import AUTO, Timeline, parse_emotion
from moda_cli.control.timeline_file import check_timeline_name, read_timeline
from moda_cli.errors import InputError, ModaError, UsageError, did_you_mean
from moda_cli.face.film import frame_rate, parse_redrive
from moda_cli.face.search import FaceSearch, choose_face, face_from_points
from moda_cli.files import no_file
from moda_cli.media.credentials import Credentials, load_credentials
from moda_cli.media.lettering import Lettering
from moda_cli.media.pictures import check_image, parse_colour
from moda_cli.media.subtitles import Cue, read_srt

LONGEST_NAME = 240  # bytes: 255, less what a file in the making has around its name

Spell = Callable[[str], str]  # how the user's door writes an option's name


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that may be made: its options are in range, and what they say is parsed."""

    config: ClipConfig
    timeline: Timeline
    fps: float  # of its frames
    take: tuple[str, ...] = PARTS  # of a recording that moves the portrait
    cues: tuple[Cue, ...] = ()
    credentials: Credentials | None = None

    @property
    def takes_all(self) -> bool:
        """Whether all motion is the recording's, where there is one."""
        return self.take == PARTS


def resolve(clip: ClipConfig | Clip, spell: Spell = str) -> Clip:
    """The clip, once everything that can be known before any work is known to be right.

    Raises UsageError for options and for what cannot be written, InputError for an input that is
    not there, DeviceError for an encoder without its GPU.
    """
    if isinstance(clip, Clip):
        return clip
    for fault in option_faults(clip, spell):
        raise fault
    media.check_output(clip.output, clip.codec, clip.crf, **_held(clip))
    if clip.codec:
        media.check_encoder(clip.codec)
    if media.is_stdout(clip.output) and (clip.plot or clip.preview):
        raise UsageError("a stream has no --plot or --preview", hint="give a file to --output")
    _check_side_files(clip)
    _check_places(clip)
    _check_redriven(clip, spell)
    fps = frame_rate(clip)
    cues = read_srt(clip.subtitles) if clip.subtitles else ()
    Lettering(clip.label, cues if clip.subtitles_as == "burn" else (), clip.font).fonts()
    credentials = load_credentials(clip.c2pa, clip.output) if clip.c2pa else None
    take = parse_take(clip.take) if clip.take else PARTS
    return Clip(clip, _timeline(clip, spell), fps, take, cues, credentials)


def _check_redriven(clip: ClipConfig, spell: Spell) -> None:
    """Raises UsageError for a picture of which what only videos have is asked."""
    if clip.render.redrive is not None and not media.is_video(clip.portrait):
        reason = f"{spell('redrive')} is of a video, and {clip.portrait} is a picture"
        raise UsageError(reason, hint="leave it out: all of a picture's face moves")


def _timeline(clip: ClipConfig, spell: Spell) -> Timeline:
    """What the clip's emotion and its file ask for together."""
    said = parse_emotion(clip.emotion)
    if clip.timeline is None:
        return said
    read = read_timeline(clip.timeline)
    if clip.emotion.strip().lower() == "none":
        return read
    if felt := read.asking("emotion"):
        reason = f"{spell('emotion')} is given, and {felt[0].origin} names one too"
        raise UsageError(reason, hint="leave one of them out")
    return Timeline.of((*said.entries, *read.entries), auto=said.auto)


def _check_side_files(clip: ClipConfig) -> None:
    for name in SIDE_FILES:
        if (path := getattr(clip, name)) is None or name == "save_motion":
            continue
        if name == "save_timeline":
            check_timeline_name(path)
        else:
            check_image(path)


def _held(clip: ClipConfig) -> dict[str, bool]:
    """What its container must be able to hold."""
    track = clip.subtitles is not None and clip.subtitles_as == "track"
    return {"alpha": clip.background == TRANSPARENT, "track": track}


def _check_places(clip: ClipConfig) -> None:
    """Inputs are there, outputs are free, and no two are one file."""
    written = [*([] if media.is_stdout(clip.output) else [clip.output]), *clip.side_files]
    inputs = [path for name in INPUT_FILES if (path := getattr(clip, name))]
    for path in inputs:
        if str(path) != "-" and not path.exists():
            raise no_file(path)
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
    if clip.render.blink_rate and not clip.render.blink:
        blink, rate = spell("no_blink"), spell("blink_rate")
        yield UsageError(f"{blink} and {rate} cannot be combined", hint="leave one of them out")
    if clip.take and not clip.motion:
        hint = f"name what to take from with {spell('motion')}, or leave it out"
        yield UsageError(f"{spell('take')} is given without {spell('motion')}", hint=hint)
    if clip.motion and not clip.take and clip.emotion.strip().lower() == AUTO:
        auto, motion = spell("emotion"), spell("motion")
        hint = "motion that was made before keeps its emotion"
        yield UsageError(f"{auto} auto and {motion} cannot be combined", hint=hint)
    if size is not None and size % 2:
        yield UsageError(f"{spell('size')} {size} is odd", hint=f"use {size - 1} or {size + 1}")
    for name, known in (("aspect", ASPECTS), ("subtitles_as", SUBTITLES_AS)):
        given = getattr(clip if hasattr(clip, name) else clip.render, name)
        if given not in (None, *known):
            hint = did_you_mean(given, known, f"one of {', '.join(known)}")
            yield UsageError(f"{spell(name)} cannot be {given}", hint=hint)
    if clip.render.aspect and not clip.render.full_frame:
        hint = f"{spell('crop')} is square; give either"
        yield UsageError(f"{spell('aspect')} is of the full frame", hint=hint)
    if clip.c2pa and not clip.provenance:
        hint = f"leave {spell('no_provenance')} out, or {spell('c2pa')}"
        yield UsageError("what is signed cannot be left unsaid", hint=hint)
    nowhere = np.zeros((1, 1, 3), np.uint8)
    for check in (
        lambda: parse_emotion(clip.emotion),
        lambda: clip.take is None or parse_take(clip.take),
        lambda: clip.background == TRANSPARENT or parse_colour(clip.background),
        lambda: choose_face(FaceSearch(()), clip.face),
        lambda: parse_redrive(clip.render.redrive),
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
            media.check_output(base / path.name, clip.codec, clip.crf, **_held(clip))
        elif not base.is_dir():
            raise UsageError(f"cannot write {path}: {base} is no folder")
    _check_side_files(clip)
