"""What a talker's first two thirds teach the bundled model of the last third.

    python -m benchmarks.fine_tuning [VIDEO... | --made] --out DIR

cuts each video in two, makes features by the face mesh, fine-tunes `mini` with the documented
commands, and prints what `gains.json` holds of the part that training never saw. --made: the videos
are made here, two people of a minute who speak in ways of their own; they are the example portrait
with the held-out voices, drawn by the rig from motion that is known.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from benchmarks.held_out_speech import speak, true_motion

import moda_cli as moda_api
from moda_cli.config import SAMPLE_RATE
from moda_cli.data.synthetic.corpus import TEST_VOICES
from moda_cli.data.synthetic.text import sentence
from moda_cli.media import probe_video
from moda_cli.media.ffmpeg import ffmpeg
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, Recording, decode, encode
from moda_cli.train.gains import FILE, SHOWN

PORTRAIT = Path(__file__).parents[1] / "examples" / "portrait.png"
MADE_S = 60
# How far each way of speaking goes beyond the rule's, by articulator; how much the head moves.
WAYS = {
    "loud": ({"jaw": 1.3, "spread": 1.2, "brow_up": 2.0}, 2.0),
    "mumbling": ({"jaw": 0.6, "spread": 0.5, "round": 0.7}, 0.4),
}
KEPT = ("-c:v", "libx264", "-crf", "14", "-c:a", "aac", "-b:a", "192k")


def halves(video: Path, folder: Path) -> None:
    """a.mp4 and b.mp4: the first two thirds of a video, and the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = f"{probe_video(video).duration_s * 2 / 3:.3f}"
    for name, part in (("a", ("-t", cut)), ("b", ("-ss", cut))):
        made = [*ffmpeg(), "-i", str(video), *part, *KEPT, str(folder / f"{name}.mp4")]
        subprocess.run(made, check=True)


def talker(way: str, number: int, folder: Path) -> Path:
    """A video of a minute: a voice that no training heard, and a way of speaking."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    sound = speak(TEST_VOICES[number], [sentence("en", rng, True) for _ in range(24)])
    soundfile.write(folder / "voice.wav", sound.wave[: MADE_S * SAMPLE_RATE], SAMPLE_RATE)
    motion, neutral = true_motion(sound)
    gains, head = WAYS[way]
    scale = torch.tensor([gains.get(name, 1.0) - 1 for name in ARTICULATORS])
    moved = decode((motion - neutral)[:, EXPRESSION])
    motion[:, EXPRESSION] += encode(scale * moved)
    motion[:, POSE] = neutral[POSE] + head * (motion[:, POSE] - neutral[POSE])
    recording = Recording(motion[: MADE_S * 25], neutral)
    video = folder / f"{way}.mp4"
    moda_api.generate(
        PORTRAIT, folder / "voice.wav", video, motion=recording, model="mini", overwrite=True
    )
    return video


def moda(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "moda_cli", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(f"| {'talker':24} | | {' | '.join(SHOWN)} |")
    made = [talker(way, k, args.out) for k, way in enumerate(WAYS)] if args.made else []
    for video in [*args.videos, *made]:
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
