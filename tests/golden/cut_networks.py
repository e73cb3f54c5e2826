"""Cuts the full-size networks' outputs, drops what no test reads: cut_networks.py FULL_FOLDER."""

import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

UNREAD = ("sparse_motion", "compress")  # of lp_small_W: intermediates that ours does not form


def cut(full: Path, here: Path) -> None:
    """Write hubert_full with every third layer, lp_full_WG with every second row of its picture."""
    for name in ("hubert_full", "lp_full_WG", "lp_small_W"):
        tensors = load_file(full / f"{name}.safetensors")
        if name == "hubert_full":
            tensors["out"] = tensors["out"][:, 2::3]
        if name == "lp_full_WG":
            tensors["image_uint8_out"] = tensors["image_uint8_out"][:, ::2]
        kept = {key: tensor.copy() for key, tensor in tensors.items() if key not in UNREAD}
        save_file(kept, here / f"{name}.safetensors")


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(__file__).parent)
