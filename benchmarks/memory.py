"""Peak memory of `mini` against the length of the sound: an hour needs little more than a minute.

`python -m benchmarks.memory [MINUTES ...] [--size PIXELS] [--stream]`: one process per length makes
a whole video from the example's speech, repeated. Prints the peaks of the tool and of ffmpeg, the
curve at every tenth of the way, and the ratio of the longest to the shortest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile

from moda_cli.config import FPS, ClipConfig, RenderConfig
from moda_cli.media import read_audio

EXAMPLES = Path(__file__).parents[1] / "examples"
BAR = 1.2  # the longest's peak over the shortest's


def memory_mb(field: str, process: int | str = "self") -> float:
    """VmRSS, what a process holds now, or VmHWM, the most it has held."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def children() -> list[str]:
    """Process ids of what this process runs: ffmpeg."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def make_clip(minutes: float, size: int, *, stream: bool) -> dict[str, Any]:
    """Make one video in this process and say what it took."""
    from moda_cli.pipeline import Pipeline

    total = round(60 * minutes * FPS)
    curve: list[float] = []
    encoder: list[float] = []

    def on_frame(done: int, _: int | None) -> None:
        if done % (total // 10) == 0:
            curve.append(memory_mb("VmRSS"))
            encoder.append(sum(memory_mb("VmHWM", child) for child in children()))

    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "speech.wav"
        wave = read_audio(EXAMPLES / "speech.wav")
        with soundfile.SoundFile(sound, "w", 16000, 1, "PCM_16") as file:
            for start in range(0, round(60 * minutes * 16000), len(wave)):
                file.write(wave[: round(60 * minutes * 16000) - start])
        output = Path("-") if stream else Path(folder) / "out.mp4"
        clip = ClipConfig(EXAMPLES / "portrait.png", sound, output, render=RenderConfig(size=size))
        started = time.perf_counter()
        result = Pipeline.load("mini", "cpu").generate(clip, on_frame)
    seconds = round(time.perf_counter() - started, 1)
    peak = {"peak_mb": memory_mb("VmHWM"), "ffmpeg_peak_mb": max(encoder)}
    return {"minutes": minutes, "frames": result.frames, "seconds": seconds, **peak,
            "curve_mb": curve}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", nargs="*", type=float, default=[1, 60])
    parser.add_argument("--size", type=int, default=64, help="longer side of the frames")
    parser.add_argument("--stream", action="store_true", help="to standard output")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        report = make_clip(options.minutes[0], options.size, stream=options.stream)
        print(json.dumps(report), file=sys.stderr)
        return
    peaks = []
    for minutes in options.minutes:
        command = [sys.executable, "-m", "benchmarks.memory", str(minutes), "--alone"]
        command += ["--size", str(options.size), *(["--stream"] if options.stream else [])]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
        )
        report = json.loads(done.stderr.splitlines()[-1])
        peaks.append(report["peak_mb"])
        print(json.dumps(report), flush=True)
    ratio = peaks[-1] / peaks[0]
    print(f"ratio {ratio:.3f}, {'within' if ratio <= BAR else 'OVER'} {BAR}")


if __name__ == "__main__":
    main()
