"""How long the detector and the mesh take on one core.

    python benchmarks/face_mesh.py [PICTURE]

Medians of 30 runs after 5; PICTURE is the example portrait unless given.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from moda_cli.device import use_threads
from moda_cli.face.candidates import find_candidates
from moda_cli.face.mesh import Mesh, follow_mesh, networks
from moda_cli.media.pictures import read_image

PORTRAIT = Path(__file__).parent.parent / "examples" / "portrait.png"


def milliseconds(work: Callable[[], object], runs: int = 30) -> float:
    taken = []
    for _ in range(runs + 5):
        started = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - started))
    return median(taken[5:])


def main() -> None:
    """Print one line per figure."""
    use_threads(1)
    picture = read_image(Path(sys.argv[1]) if len(sys.argv) > 1 else PORTRAIT)
    started = time.perf_counter()
    detector, mesh = networks()
    print(f"loading both networks: {1000 * (time.perf_counter() - started):.0f} ms")
    (face, *_) = find_candidates(picture)
    small, large = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 192, 192)
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    empty = np.asarray(cv2.GaussianBlur(noise, (0, 0), 9), np.uint8)
    with torch.inference_mode():
        figures = {
            "detector, one run": milliseconds(lambda: detector(small)),
            "mesh, one run": milliseconds(lambda: mesh(large)),
            "a face followed into the next frame": milliseconds(
                lambda: follow_mesh(picture, Mesh(face.mesh.points))
            ),
            f"all faces of {picture.shape[1]} x {picture.shape[0]}": milliseconds(
                lambda: find_candidates(picture)
            ),
            "no face in 3000 x 3000": milliseconds(lambda: find_candidates(empty), 1),
        }
    for name, value in figures.items():
        print(f"{name}: {value:.1f} ms")
    cpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    print(*(line for line in cpu.splitlines() if line.startswith(("Model name", "CPU(s)"))))


if __name__ == "__main__":
    main()
