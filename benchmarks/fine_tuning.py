"""What a talker's first two thirds teach the bundled model of the last third.

    python -m benchmarks.fine_tuning VIDEO... --out DIR

cuts each video in two, makes features by the face mesh, fine-tunes `mini` with the documented
commands, and prints what `gains.json` holds of the part that training never saw.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from moda_cli.media import probe_video
from moda_cli.media.ffmpeg import ffmpeg
from moda_cli.train.gains import FILE, SHOWN

KEPT = ("-c:v", "libx264", "-crf", "14", "-c:a", "aac", "-b:a", "192k")


def halves(video: Path, folder: Path) -> None:
    """a.mp4 and b.mp4: the first two thirds of a video, and the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = f"{probe_video(video).duration_s * 2 / 3:.3f}"
    for name, part in (("a", ("-t", cut)), ("b", ("-ss", cut))):
        made = [*ffmpeg(), "-i", str(video), *part, *KEPT, str(folder / f"{name}.mp4")]
        subprocess.run(made, check=True)


def moda(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "moda_cli", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(f"| {'talker':24} | | {' | '.join(SHOWN)} |")
    for video in args.videos:
        folder = args.out / video.stem
        halves(video, folder / "cut")
        moda("extract", folder / "cut", "--motion", "mesh", "-o", folder / "features", "-q")
        run = folder / "run"
        moda("train", folder / "features", "-o", run, "--config", "mini", "--from", "mini", "-q")
        for kind, scores in json.loads((run / FILE).read_text()).items():
            shown = (f"{scores[name]:.2f}" if name in scores else "" for name in SHOWN)
            print(f"| {video.stem:24} | {kind} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
