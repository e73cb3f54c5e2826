"""Milliseconds a frame of the bundled model's motion and of the rig's drawing, of one core.

    python -m benchmarks.rig_time [--size 512] [--rounds 8]

Processor time, the least of the rounds, so that other work on the machine counts little. `both`:
wall time of drawing on two cores over that on one. To see what a processor without AVX-512 takes:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENCV_CPU_DISABLE=AVX512-SKX \\
    NPY_DISABLE_CPU_FEATURES="AVX512F AVX512CD AVX512_SKX" python -m benchmarks.rig_time
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from moda_cli.checks import resolve
from moda_cli.config import ClipConfig
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media.pictures import read_image
from moda_cli.media.sound import stored_wave
from moda_cli.pipeline import Pipeline
from moda_cli.render.rig.rig import Rig

EXAMPLES = Path(__file__).parents[1] / "examples"


def least(rounds: int, clock: Callable[[], float], work: Callable[[], int]) -> float:
    """Milliseconds a frame; `work` says how many it made."""
    taken = []
    for _ in range(rounds):
        started = clock()
        count = work()
        taken.append((clock() - started) / count)
    return min(taken) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = Pipeline.load("mini", device="cpu")
    clip = resolve(ClipConfig(EXAMPLES / "portrait.png", EXAMPLES / "speech.wav", Path("-")))
    with stored_wave(clip.config.audio) as sound:

        def sampled() -> torch.Tensor:
            return torch.cat(list(pipeline.animate(clip, sound).motion))

        motion = sampled()
        sampling = least(max(options.rounds // 6, 1), time.process_time, lambda: len(sampled()))
    neutral = pipeline.model.neutral(None)
    picture = cv2.resize(read_image(EXAMPLES / "portrait.png"), (options.size, options.size))
    picture = np.ascontiguousarray(picture, np.uint8)
    rig = Rig(picture, choose_face(find_faces(picture), "largest"), neutral)
    some = motion[: max(8, 25 * 512**2 // options.size**2)]

    def drawn(rows: torch.Tensor = some) -> int:
        return sum(1 for _ in rig.render(rows))

    def aside() -> int:
        return sum(1 for _ in rig.render(some, torch.full((len(some), 2), 0.5)))

    cv2.setNumThreads(1)
    drawing = least(options.rounds, time.process_time, drawn)
    looking = least(options.rounds, time.process_time, aside)
    one, two = [], []
    for _ in range(3 * options.rounds):
        for threads, wall in ((1, one), (2, two)):
            cv2.setNumThreads(threads)
            wall.append(least(1, time.perf_counter, drawn))
    print(f"{options.size} px, torch {torch.backends.cpu.get_cpu_capability()}, ms a frame")
    print(f"motion {sampling:.2f}, drawing {drawing:.2f}, with a gaze {looking:.2f}")
    print(f"both {min(two) / min(one):.2f}")


if __name__ == "__main__":
    main()
