"""Cuts the large goldens of AMT-S and F-SIM: cut_similarity.py FULL_GOLDEN_FOLDER."""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

STEP = 4  # rows and columns of the full-size flow that are kept
ROWS = 16  # of the encoder's input


def cut(full: Path, target: Path) -> None:
    """Write `full` with a coarser `flow0_a02_g` and fewer rows of `net_input0`."""
    tensors = load_file(full)
    if "flow0_a02_g" in tensors:
        tensors["flow0_a02_g"] = tensors["flow0_a02_g"][..., ::STEP, ::STEP]
    if "net_input0" in tensors:
        tensors["net_input0"] = tensors["net_input0"][:, :ROWS]
    with safe_open(full, "np") as file:
        metadata = file.metadata()
    save_file({name: tensor.copy() for name, tensor in tensors.items()}, target, metadata)


if __name__ == "__main__":
    for name in ("eval_amt_s.safetensors", "eval_fsim.safetensors", "eval_hsemotion.safetensors"):
        cut(Path(sys.argv[1]) / name, Path(__file__).parent / name)
