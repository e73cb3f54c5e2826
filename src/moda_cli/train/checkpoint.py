"""Checkpoints of a run: one safetensors file each, with its notes as JSON in the metadata."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.errors import ModaError
from moda_cli.files import atomic_write, parse_json

KEPT = 2  # the newest; the best is kept beside them
BEST = "best.safetensors"
NONE_YET = ".none-yet"  # a run has begun, and what it may have published can be made anew

Notes = dict[str, Any]


def folder(run: Path) -> Path:
    return run / "checkpoints"


def begin(run: Path) -> None:
    """Say that a run has no checkpoint yet: one that ends before its first may start again."""
    folder(run).mkdir(exist_ok=True)
    (folder(run) / NONE_YET).touch()


def has_begun(run: Path) -> bool:
    return (folder(run) / NONE_YET).exists()


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint to resume from, and of each newer one that is damaged how.

    Raises ModaError where none is whole, though there are some.
    """
    damaged = []
    paths = sorted(folder(run).glob("step-*.safetensors"), reverse=True)
    for path in [*paths, *folder(run).glob(BEST)]:
        try:
            read_notes(path)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            damaged.append(f"{path} is damaged ({error})")
        else:
            return path, damaged
    if damaged:
        raise ModaError(
            f"no checkpoint of {run} can be read: {damaged[0]}",
            hint="choose another folder for -o",
        )
    return None, []


def read_notes(path: Path) -> Notes:
    with safe_open(path, framework="pt") as file:  # checks that all tensors are there
        notes: Notes = parse_json(file.metadata()["notes"])
    return notes


def read_tensors(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def write(run: Path, tensors: Mapping[str, Tensor], notes: Notes, best: bool) -> None:
    """Add a checkpoint, whole or not at all, and remove those no longer kept."""
    folder(run).mkdir(exist_ok=True)
    path = folder(run) / f"step-{notes['step']:08d}.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(state, temporary, {"notes": json.dumps(notes)})
    if best:
        with atomic_write(folder(run) / BEST) as temporary:
            temporary.unlink()
            _link(path, temporary)
    paths = sorted(folder(run).glob("step-*.safetensors"))
    here = paths.index(path) + 1
    for old in (*paths[: max(0, here - KEPT)], *paths[here:]):  # later ones were damaged
        old.unlink()
    for unfinished in folder(run).glob(".*.part"):  # of a run that was killed while writing
        unfinished.unlink()
    (folder(run) / NONE_YET).unlink(missing_ok=True)


def _link(path: Path, new: Path) -> None:
    try:
        os.link(path, new)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, new)
