"""Checkpoints of a run: one safetensors file each, with its notes as JSON in the metadata."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.files import atomic_write

KEPT = 2  # the newest; the best is kept beside them
BEST = "best.safetensors"

Notes = dict[str, Any]


def folder(run: Path) -> Path:
    return run / "checkpoints"


def newest(run: Path) -> Path | None:
    """The checkpoint to resume from."""
    return max(folder(run).glob("step-*.safetensors"), default=None)


def read_notes(path: Path) -> Notes:
    with safe_open(path, framework="pt") as file:
        notes: Notes = json.loads(file.metadata()["notes"])
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
    for old in sorted(folder(run).glob("step-*.safetensors"))[:-KEPT]:
        old.unlink()
    for unfinished in folder(run).glob(".*.part"):  # of a run that was killed while writing
        unfinished.unlink()


def _link(path: Path, new: Path) -> None:
    try:
        os.link(path, new)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, new)
