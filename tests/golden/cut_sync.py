"""Cuts the large goldens of Sync-C and Sync-D: cut_sync.py FULL_GOLDEN_FOLDER."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

Tensors = dict[str, NDArray[np.generic]]

NUM_FRAMES = 6  # two windows of SyncNet
CASES = ("c", "d")  # fewer windows than shifts, and another range of shifts
CROPS = [0, 4]  # the first and the last, where the smoothing meets the ends


def cut_syncnet(full: Tensors) -> Tensors:
    """Only the first frames; all embeddings and distances stay."""
    return {**full, "frames_rgb": full["frames_rgb"][:NUM_FRAMES]}


def cut_sync_distance(full: Tensors) -> Tensors:
    """Two of the four cases."""
    return {name: tensor for name, tensor in full.items() if name.startswith(CASES)}


def cut_face_track(full: Tensors) -> Tensors:
    """Two of the five crops, and of the frames only theirs; the whole track stays."""
    index = full["crop_index"][CROPS]
    cut = {"crop_index": index, "crops_rgb": full["crops_rgb"][CROPS]}
    return {**full, **cut, "frames_rgb": full["frames_rgb"][index]}


CUTS = {
    "eval_syncnet.safetensors": cut_syncnet,
    "eval_sync_distance.safetensors": cut_sync_distance,
    "eval_face_track.safetensors": cut_face_track,
}

if __name__ == "__main__":
    for name, cut in CUTS.items():
        with safe_open(Path(sys.argv[1]) / name, "numpy") as file:
            full = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        kept = {key: np.ascontiguousarray(tensor) for key, tensor in cut(full).items()}
        save_file(kept, Path(__file__).parent / name, metadata)
