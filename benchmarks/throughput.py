"""How many clips an hour: the single-clip command again and again, against one batch of the same.

`python -m benchmarks.throughput [--clips 12] [--seconds 4] [--size 512] [--device cpu]`
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from moda_cli import media
from moda_cli.config import SAMPLE_RATE

EXAMPLES = Path(__file__).parents[1] / "examples"
PORTRAITS = 3  # shared by the clips, as in a real list


def write_inputs(folder: Path, clips: int, seconds: float) -> list[tuple[Path, Path]]:
    """Portrait and sound of each clip; the sounds are parts of the example's speech."""
    speech = media.read_audio(EXAMPLES / "speech.wav")
    length = int(seconds * SAMPLE_RATE)
    pairs = []
    for k in range(clips):
        portrait, sound = folder / f"{k % PORTRAITS}.png", folder / f"{k}.wav"
        portrait.write_bytes((EXAMPLES / "portrait.png").read_bytes())
        soundfile.write(sound, np.roll(speech, -k * SAMPLE_RATE // 2)[:length], SAMPLE_RATE)
        pairs.append((portrait, sound))
    return pairs


def timed(commands: Sequence[Sequence[object]]) -> float:
    """Seconds that `moda generate` takes for all of these, one after another."""
    began = time.perf_counter()
    for arguments in commands:
        command = [sys.executable, "-m", "moda_cli", "generate", *map(str, arguments), "-q"]
        subprocess.run(command, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    given = parser.parse_args()
    common = ["--size", given.size, "--device", given.device, "--model", given.model]
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = write_inputs(folder, given.clips, given.seconds)
        singles = [[*pair, "-o", folder / f"{k}.mp4", *common] for k, pair in enumerate(pairs)]
        rows["one command a clip"] = timed(singles)
        jobs = folder / "jobs.jsonl"
        listed = [{"portrait": p.name, "audio": a.name} for p, a in pairs]
        jobs.write_text("".join(json.dumps(row) + "\n" for row in listed))
        for workers in given.workers:
            batch = ["--jobs", jobs, "-o", folder / f"out{workers}", "--workers", workers, *common]
            rows[f"one batch, {workers} worker{'s' * (workers > 1)}"] = timed([batch])
    slowest = max(rows.values())
    size = f"{given.seconds:g} s, {given.size} px"
    print(f"{given.clips} clips of {size}, {given.model}, {given.device}")
    for what, seconds in rows.items():
        an_hour = 3600 * given.clips / seconds
        each = seconds / given.clips
        print(f"{what:24} {seconds:7.1f} s {each:6.2f} s a clip {an_hour:7.0f} clips an hour"
              f" {slowest / seconds:5.2f}x")  # fmt: skip


if __name__ == "__main__":
    main()
