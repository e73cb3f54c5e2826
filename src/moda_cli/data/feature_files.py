"""Feature files: what a training clip is on disk, and whether a folder of them is whole."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from moda_cli.config import NO_EMOTION
from moda_cli.errors import InputError
from moda_cli.files import Row, atomic_write, read_rows, sha256_of
from moda_cli.motion import MOTION_DIM

INDEX, DROPPED = "index.jsonl", "dropped.jsonl"


def write_clip(
    path: Path,
    motion: Tensor,
    kp: Tensor,
    audio: Tensor,
    emotion: Tensor,
    neutral: Tensor | None = None,
) -> str:
    """Write motion (T, 70), kp (63), audio (T, L, C) and emotion (8); the file's sha256.

    neutral: (70) the face at rest, where that is not the first frame.
    """
    parts = {"motion": motion.float(), "kp": kp.float(), "emotion": emotion.float()}
    if neutral is not None:
        parts["neutral"] = neutral.float()
    data = save({**{k: v.contiguous() for k, v in parts.items()}, "audio": audio.half()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_listing(path: Path) -> list[Row]:
    """The rows of an index. Raises InputError."""
    hint = "FEATURES is a folder that `moda extract` has written"
    try:
        rows = read_rows(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint=hint) from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}", hint=hint) from None
    for number, row in enumerate(rows, start=1):
        name = row.get("clip") if isinstance(row, dict) else None
        if not isinstance(name, str) or Path(name).name != name:  # nor one outside the folder
            raise InputError(f"{path} is damaged: row {number} names no clip", hint=hint)
    return rows


def find_faults(folder: Path) -> dict[str, str]:
    """What is wrong with the files of an index, by file name: every one is read again."""
    faults = {}
    listed = set()
    for row in read_listing(folder / INDEX):
        name = f"{row['clip']}.safetensors"
        listed.add(name)
        if fault := clip_fault(folder / name, row):
            faults[name] = fault
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in listed:
            faults[path.name] = f"not in {INDEX}"
    return faults


def clip_fault(path: Path, row: Row) -> str | None:
    """What is wrong with a feature file, None if it is as its row of the index says."""
    try:
        if sha256_of(path) != row["sha256"]:
            return "its sha256 is not that of the index"
        return content_fault(path, row["frames"])
    except OSError as error:
        return error.strerror or str(error)
    except KeyError as error:
        return f"damaged: {error}"  # its row lacks what every row says


def content_fault(path: Path, frames: int) -> str | None:
    """What is wrong with what a feature file holds: shapes first, then values that are no numbers.

    The file is mapped, not copied: it is read as fast as the disk gives it.
    """
    shapes = {"motion": [frames, MOTION_DIM], "kp": [63], "emotion": [NO_EMOTION]}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in (*shapes, "audio")}
            if len(found["motion"]) == 2 and found["motion"][0] != frames:
                return f"it has {found['motion'][0]} frames, and the index says {frames}"
            for name, shape in shapes.items():
                if found[name] != shape:
                    return f"{name} is {_size(found[name])}, not {_size(shape)}"
            if len(found["audio"]) != 3 or found["audio"][0] != frames:
                return f"audio is {_size(found['audio'])} for {frames} frames"
            resting = ["neutral"] if "neutral" in file.keys() else []  # noqa: SIM118
            if resting and file.get_slice("neutral").get_shape() != [MOTION_DIM]:
                return f"neutral is not of {MOTION_DIM} numbers"
            for name in (*found, *resting):
                if fault := _not_finite(name, file.get_tensor(name)):
                    return fault
    except OSError as error:
        return error.strerror or str(error)
    except SafetensorError as error:
        return f"damaged: {error}"
    return None


def _not_finite(name: str, part: Tensor) -> str | None:
    if not part.numel() or torch.stack(torch.aminmax(part)).isfinite().all():
        return None  # both ends are NaN where any value is: one fast pass
    place = int((~part.flatten(1).isfinite()).any(dim=1).nonzero()[0]) if part.ndim > 1 else 0
    return f"{name} is not finite" + (f" at frame {place}" if part.ndim > 1 else "")


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
