"""Cuts the goldens of FID and FVD to a few pictures: cut_frechet.py FULL_GOLDEN_FOLDER."""

import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

ROWS = 8  # of a prepared picture, every eighth is kept


def cut_inception(full: Path, cut: Path) -> None:
    """Keep the pictures b (which tells conventions apart) and d (enlarged), and what is theirs."""
    tensors = load_file(full)
    kept = {name: x for name, x in tensors.items() if {"b", "d"} & set(name.split("_"))}
    kept["resized_b_channel0"] = kept["resized_b_channel0"][::ROWS]
    save_file({name: x.copy() for name, x in kept.items()}, cut)


def cut_i3d(full: Path, cut: Path) -> None:
    """Keep the clip b, which is not square, and what is its own."""
    kept = {name: x for name, x in load_file(full).items() if "b" in name.split("_")}
    kept["input_b_centercrop_t0_c0"] = kept["input_b_centercrop_t0_c0"][::ROWS]
    save_file({name: x.copy() for name, x in kept.items()}, cut)


if __name__ == "__main__":
    folder, here = Path(sys.argv[1]), Path(__file__).parent
    cut_inception(
        folder / "eval_fid_inception.safetensors", here / "eval_fid_inception.safetensors"
    )
    cut_i3d(folder / "eval_i3d.safetensors", here / "eval_i3d.safetensors")
    frechet = (folder / "eval_frechet.safetensors").read_bytes()  # small enough as it is
    (here / "eval_frechet.safetensors").write_bytes(frechet)
