"""Feature files: what a training clip is on disk, and whether a folder of them is whole."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from moda_cli.config import NO_EMOTION
from moda_cli.errors import InputError
from moda_cli.files import Row, atomic_write, read_rows, sha256_of
from moda_cli.motion import MOTION_DIM

INDEX, DROPPED = "index.jsonl", "dropped.jsonl"


def write_clip(path: Path, motion: Tensor, kp: Tensor, audio: Tensor, emotion: Tensor) -> str:
    """Write motion (T, 70), kp (63), audio (T, L, C) and emotion (8); the file's sha256."""
    parts = {"motion": motion.float(), "kp": kp.float(), "emotion": emotion.float()}
    data = save({**{k: v.contiguous() for k, v in parts.items()}, "audio": audio.half()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_listing(path: Path) -> list[Row]:
    """The rows of an index. Raises InputError."""
    hint = "FEATURES is a folder that `moda extract` has written"
    try:
        return read_rows(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint=hint) from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}", hint=hint) from None


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
        parts = load_file(path)
        frames = row["frames"]
        shapes = {"motion": (frames, MOTION_DIM), "kp": (63,), "emotion": (NO_EMOTION,)}
        for name, shape in shapes.items():
            if parts[name].shape != shape:
                return f"{name} is {tuple(parts[name].shape)}, not {shape}"
        if parts["audio"].ndim != 3 or len(parts["audio"]) != frames:
            return f"audio is {tuple(parts['audio'].shape)} for {frames} frames"
    except OSError as error:
        return error.strerror or str(error)
    except (SafetensorError, KeyError) as error:
        return f"damaged: {error}"
    for name, part in parts.items():
        if not torch.isfinite(part).all():
            return f"{name} is not finite"
    return None
