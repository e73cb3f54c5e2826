"""Cuts lp_pasteA and lp_pasteB to one channel and fewer rows: cut_paste.py FULL_GOLDEN_FOLDER."""

import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

STEP = 4  # rows of the outputs that are kept; inputs stay whole


def cut_paste(full: Path, cut: Path) -> None:
    """Write the first channel of the pictures in `full`, every fourth row of the outputs."""
    tensors = load_file(full)
    for name, tensor in tensors.items():
        if tensor.ndim == 3:
            tensors[name] = tensor[..., :1]
        if name.endswith((".cv410", ".cv5")):
            tensors[name] = tensors[name][::STEP]
    save_file({name: tensor.copy() for name, tensor in tensors.items()}, cut)


if __name__ == "__main__":
    for name in ("lp_pasteA.safetensors", "lp_pasteB.safetensors"):
        cut_paste(Path(sys.argv[1]) / name, Path(__file__).parent / name)
