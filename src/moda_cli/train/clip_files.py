"""The feature files that a run reads: which, and whether all of them can be trained on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from moda_cli.config import FPS, ModelConfig
from moda_cli.data.feature_files import content_fault, read_listing
from moda_cli.errors import InputError
from moda_cli.files import sha256_of_json
from moda_cli.train.presets import SyncConfig

READERS = 16  # files read at once: a disk far away answers slowly


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A feature file: motion (T, 70), kp (63), audio (T, layers, channels), emotion (8)."""

    path: Path
    frames: int
    kind: str | None = None  # of its audio features, where the index says so


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A feature file, of which slices can be read. Raises InputError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read {path}: {error}", hint="run `moda extract --verify`"
        ) from None


def read_index(root: Path, split: str, window: int) -> list[FeatureFile]:
    """The clips of a split that hold at least one window, in the order of `index.jsonl`.

    Raises InputError for a folder without an index or without such clips.
    """
    index = root / "index.jsonl"
    hint = "FEATURES is a folder that `moda extract` has written"
    if not index.is_file():
        raise InputError(f"no index.jsonl in {root}", hint=hint)
    try:
        rows = read_listing(index)
        chosen = [row for row in rows if row["split"] == split and row["frames"] >= window]
        rates = {row.get("options", {}).get("fps", FPS) for row in chosen}
        clips = [
            FeatureFile(
                root / f"{row['clip']}.safetensors",
                row["frames"],
                row.get("options", {}).get("audio"),
            )
            for row in chosen
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{index} is damaged: {error!r}", hint=hint) from None
    if rates - {FPS}:
        raise InputError(f"{root} holds features at other rates than {FPS} fps: {rates}", hint=hint)
    if not clips:
        splits = ", ".join(sorted({str(row["split"]) for row in rows}))
        raise InputError(
            f"{root} holds no {split} clip of {window} frames",
            hint=f"its splits: {splits}; --set validate_on=train measures on training clips",
        )
    return clips


def check_clips(clips: Sequence[FeatureFile], model: ModelConfig | SyncConfig) -> None:
    """Read every clip, whole. Raises InputError naming the first that cannot be trained on.

    One value that is no number would spoil the statistics of all clips.
    """
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda clip: clip_fault(clip, model), clips)
        faults = {clip.path: fault for clip, fault in zip(clips, found, strict=True) if fault}
    if not faults:
        return
    path, fault = next(iter(faults.items()))
    more = len(faults) - 1
    others = f"; {more} more cannot be used either" if more else ""
    hint = "extract it again, or take its line out of index.jsonl"
    if len(faults) == len(clips) and "hears" in fault:
        hint = "choose --config, or --set model.audio=, model.audio_layers= and model.audio_dim="
    raise InputError(f"cannot train on {path}: {fault}{others}", hint=hint)


def clips_key(clips: Sequence[FeatureFile]) -> str:
    """A sum that changes with the name, size or time of any clip's file."""
    with ThreadPoolExecutor(READERS) as pool:
        return sha256_of_json(list(pool.map(_look, clips)))


def _look(clip: FeatureFile) -> tuple[str, int, int]:
    try:
        there = clip.path.stat()
    except OSError:
        return clip.path.name, -1, -1
    return clip.path.name, there.st_size, there.st_mtime_ns


def clip_fault(clip: FeatureFile, model: ModelConfig | SyncConfig) -> str | None:
    """What keeps a model from being trained on a clip, if anything."""
    wanted = [model.audio_layers, model.audio_dim]
    try:
        with opened(clip.path) as file:
            found = file.get_slice("audio").get_shape()[1:]
    except (InputError, SafetensorError):
        found = wanted  # told below
    # wav2vec2 and hubert are of one shape
    if found != wanted or clip.kind not in (None, model.audio):
        held = " x ".join(map(str, found))
        heard = " x ".join(map(str, wanted))
        kind = clip.kind or "audio"
        return f"it holds {kind} features of {held}, and the model hears {model.audio} of {heard}"
    return content_fault(clip.path, clip.frames)
