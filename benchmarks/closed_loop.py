"""Closed loop: do rendered faces do what the speech says? Judged by an independent face tracker.

`python -m benchmarks.closed_loop --judge PYTHON --media DIR` needs flite, festival, and the Python
of a virtual environment with mediapipe 0.10.21 (see `face_tracker`). DIR holds portraits/.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import soundfile
import torch
from benchmarks.held_out_speech import (
    SENTENCES,
    Sound,
    long_speech,
    silences,
    speak,
    true_motion,
)
from benchmarks.lip_measures import best_lag, dips, gap_range, judge_gap, judge_lips, pooled
from numpy.typing import NDArray

from moda_cli import media
from moda_cli.config import FPS, SAMPLE_RATE, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.control.blinks import CLOSED_LID
from moda_cli.data.synthetic.corpus import TEST_VOICES
from moda_cli.data.synthetic.visemes import LABIAL, OPEN, Phone, lips
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.portrait import frame_portrait
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media import figures
from moda_cli.motion import (
    ARTICULATORS,
    EXPRESSION,
    POSE,
    Recording,
    decode,
    load_motion,
    save_motion,
)
from moda_cli.pipeline import Pipeline
from moda_cli.render.rig.rig import Rig

ROOT = Path(__file__).parents[1]
SIZE = 512  # longer side of the frames
CRF = 12  # next to lossless
CLOSED_JAW = 1.0  # unit; at or below it a full closure was asked for
JAW = ARTICULATORS.index("jaw")
LIDS = [ARTICULATORS.index(name) for name in ("lid_a", "lid_b")]
BARS = {  # figure: lowest, highest
    "found": (1.0, 1.0),
    "closed": (0.85, 1.0),
    "margin": (0.30, 1.0),
    "dprime": (2.0, np.inf),
    "lag": (0, 0),
    "zeros_mean": (-0.01, 0.01),
    "zeros_sd": (0.0, 0.01),
    "hiss_mean": (-0.01, 0.01),
    "hiss_sd": (0.0, 0.01),
    "blinks": (10.0, 30.0),
    "neutral": (0, 0),
    "border": (0, 0),
}

Track = dict[str, NDArray[np.float64]]  # what face_tracker.measure names, (T, ...)
Picture = NDArray[np.uint8]


class Clip(NamedTuple):
    """A generated video, its commanded articulators (T, 8) and pose (T, 3) in degrees."""

    video: Path
    articulators: NDArray[np.float64]
    pose: NDArray[np.float64]


class Bench:
    """Generates with one pipeline and tracks with one judge; the clips stay in a folder."""

    def __init__(self, judge: Path, folder: Path) -> None:
        self.judge, self.folder = judge, folder
        self.pipeline = Pipeline.load("auto", "cpu")

    def clip(self, portrait: Path, sound: Sound, seed: int, motion: Path | None = None) -> Clip:
        """The video of a portrait saying a sound, in a given motion or the model's own."""
        stem = self.folder / f"{portrait.stem}_{sound.name}"
        wave, video, made = (stem.with_suffix(s) for s in (".wav", ".mp4", ".safetensors"))
        soundfile.write(wave, sound.wave, SAMPLE_RATE)
        config = ClipConfig(
            portrait,
            wave,
            video,
            motion=motion,
            save_motion=made,
            crf=CRF,
            overwrite=True,
            sampler=SamplerConfig(seed=seed),
            render=RenderConfig(size=SIZE),
        )
        self.pipeline.generate(config)
        made_motion = load_motion(made)
        offset = (made_motion.motion - made_motion.neutral).double()
        return Clip(video, decode(offset[:, EXPRESSION]).numpy(), offset[:, POSE].numpy())

    def track(self, files: Sequence[Path]) -> dict[str, Track]:
        """What the tracker sees in each file, by stem."""
        tracker = Path(__file__).with_name("face_tracker.py")
        command = [self.judge, tracker, self.folder, *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the judge failed:\n{done.stderr[-2000:]}")
        return {file.stem: dict(np.load(self.folder / f"{file.stem}.npz")) for file in files}

    def framed(self, portrait: Path) -> tuple[Picture, FaceLandmarks]:
        """The portrait as its videos show it, and its face."""
        config = ClipConfig(portrait, portrait, portrait, render=RenderConfig(size=SIZE))
        picture = media.read_image(portrait, config.background)
        return frame_portrait(picture, choose_face(find_faces(picture), "largest"), config.render)

    def before_encoding(self, portrait: Path, motion: Path) -> dict[str, int]:
        """Largest difference from the source: of neutral motion, and at the picture's border."""
        picture, face = self.framed(portrait)
        recording = load_motion(motion)
        whole, neutral = recording.motion, recording.neutral
        rig = Rig(picture, face, neutral)

        def difference(frame: Picture) -> NDArray[np.uint8]:
            return np.asarray(cv2.absdiff(frame, picture), np.uint8)

        border = np.ones(picture.shape[:2], bool)
        border[1:-1, 1:-1] = False
        return {
            "neutral": int(difference(next(rig.render(neutral[None]))).max()),
            "border": max(int(difference(f)[border].max()) for f in rig.render(whole)),
        }


def lip_figures(
    clips: Sequence[Clip], tracks: Sequence[Track], sounds: Sequence[Sound]
) -> dict[str, float]:
    """What the rendered lips do, what the motion asked of them, and how one follows the other."""
    gaps = [track["gap"] for track in tracks]
    filled = [np.where(np.isfinite(gap), gap, np.nanmean(gap)) for gap in gaps]
    jaws = [clip.articulators[:, JAW] for clip in clips]
    truths = [lips(s.phones, len(g))[:, 0].clip(0) for s, g in zip(sounds, gaps, strict=True)]
    each = [judge_gap(gap, sound.phones) for gap, sound in zip(gaps, sounds, strict=True)]
    shown = pooled(each)
    asked = pooled([judge_gap(j.clip(0), s.phones) for j, s in zip(jaws, sounds, strict=True)])
    shut = pooled([judge_lips(j, s.phones, CLOSED_JAW) for j, s in zip(jaws, sounds, strict=True)])
    lag, r = best_lag(filled, truths)
    rig_lag, rig_r = best_lag(filled, [jaw.clip(0) for jaw in jaws])
    return {
        "range": float(np.mean([gap_range(gap) for gap in gaps])),
        **{f"closed_{s.name[:3]}": part.closed for s, part in zip(sounds, each, strict=True)},
        "closed": shown.closed,
        "shifted": shown.shifted,
        "margin": shown.closed - shown.shifted,
        "dprime": shown.dprime,
        "lag": lag,
        "r": r,
        "asked_closed": asked.closed,
        "asked_margin": asked.closed - asked.shifted,
        "asked_jaw_shut": shut.closed,
        "asked_dprime": asked.dprime,
        "asked_r": best_lag(jaws, truths)[1],
        "rig_lag": rig_lag,
        "rig_r": rig_r,
    }


def ceiling(sounds: Sequence[Sound]) -> dict[str, float]:
    """What the true mouth of the phones would score: the text limits the margin."""
    jaws = [lips(s.phones, len(s.wave) * FPS // SAMPLE_RATE)[:, 0].clip(0) for s in sounds]
    best = pooled([judge_gap(jaw, sound.phones) for jaw, sound in zip(jaws, sounds, strict=True)])
    return {"closed": best.closed, "shifted": best.shifted, "dprime": best.dprime}


def blink_figures(clip: Clip, track: Track) -> dict[str, float]:
    """Blinks a minute seen (the opening under half its median) and asked for, and how far shut."""
    eyes = track["eyes"].mean(axis=1)
    lid = clip.articulators[:, LIDS].mean(axis=1)
    minutes = len(eyes) / FPS / 60
    return {
        "blinks": dips(eyes, np.nanmedian(eyes) / 2) / minutes,
        "asked_blinks": dips(-lid, -CLOSED_LID / 2) / minutes,
        "eyes_shut": float(np.nanmin(eyes) / np.nanmedian(eyes)),
        "asked_shut": float(lid.max() / CLOSED_LID),
    }


def moments(clip: Clip, track: Track, phones: Sequence[Phone]) -> dict[str, int]:
    """Twelve telling frames of a clip and what they should show."""

    def middle(symbols: Sequence[str], number: int, name: str) -> tuple[str, int]:
        phone = [p for p in phones if p.symbol in symbols][number]
        frame = min(int((phone.start + phone.end) / 2 * FPS), len(track["gap"]) - 1)
        jaw = clip.articulators[frame, JAW]
        return f"{frame / FPS:.2f} s {name}, jaw {jaw:.0f}", frame

    yaw, lid = clip.pose[:, 1], clip.articulators[:, LIDS].mean(axis=1)
    lowest = int(np.nanargmin(track["eyes"].mean(axis=1)))
    return dict(
        [
            ("0.00 s first frame", 0),
            *(middle([LABIAL], number, "/p b m/") for number in (1, 6, 11)),
            *(middle(OPEN, number, "open vowel") for number in (0, 5, 10)),
            middle(["W", "UW", "OW"], 0, "rounded"),
            middle(["IY", "S"], 0, "spread"),
            (f"{lowest / FPS:.2f} s eyes most closed, lid {lid[lowest]:.0f}", lowest),
            (f"{yaw.argmax() / FPS:.2f} s largest yaw", int(yaw.argmax())),
            (f"{yaw.argmin() / FPS:.2f} s smallest yaw", int(yaw.argmin())),
        ]
    )


def sheet(clip: Clip, track: Track, phones: Sequence[Phone]) -> Picture:
    """Telling frames of a clip: the face, and under it the eyes and the mouth enlarged."""
    video = cv2.VideoCapture(str(clip.video))
    shots = [video.read()[1][..., ::-1] for _ in range(len(track["gap"]))]
    frames = [np.asarray(shot, np.uint8) for shot in shots]
    shown = moments(clip, track, phones)

    def part(frame: Picture, centre: NDArray[np.float64], wide: float, high: float) -> Picture:
        """A rectangle of the face, its sides in IOD, 400 pixels wide."""
        scale = 400 / (wide * iod)
        move = np.array([[scale, 0, 200 - scale * centre[0]], [0, scale, 0]])
        move[1, 2] = 200 * high / wide - scale * centre[1]
        size = (400, round(400 * high / wide))
        return np.asarray(cv2.warpAffine(frame, move, size, flags=cv2.INTER_CUBIC), np.uint8)

    cells = []
    for index in shown.values():
        at = index if track["found"][index] else int(np.flatnonzero(track["found"])[0])
        irises, mouth = track["irises"][at], track["mouth"][at]
        iod = float(np.linalg.norm(irises[1] - irises[0]))
        eyes = irises.mean(axis=0)
        face = (eyes + mouth) / 2
        parts = ((face, 3.2, 3.2), (eyes, 1.9, 0.6), (mouth, 1.3, 0.75))
        cells.append(np.vstack([part(frames[index], *rectangle) for rectangle in parts]))
    return figures.contact_sheet(cells, 4, list(shown))


def misses(name: str, row: dict[str, Any]) -> list[str]:
    """The bars a portrait's figures miss, in words."""
    return [
        f"{name}: {key} {row[key]:.3g}, not {low:.3g} to {high:.3g}"
        for key, (low, high) in BARS.items()
        if key in row and not low <= row[key] <= high
    ]


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Figures down, portraits across."""
    names = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [" " * 14 + "".join(f"{name[:12]:>13}" for name in rows)]
    for key in names:
        values = (f"{row[key]:.3g}" if key in row else "-" for row in rows.values())
        lines.append(f"{key:<14}" + "".join(f"{value:>13}" for value in values))
    return "\n".join(lines)


def machine() -> str:
    """The processor's name and number of cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "CPU")
    return f"{model}, {os.cpu_count()} cores"


def portraits_of(arguments: argparse.Namespace) -> list[Path]:
    """The portraits asked for, else the drawn one and those of the media folder."""
    found = arguments.portraits or [
        ROOT / "examples" / "portrait.png",
        *sorted((arguments.media / "portraits").iterdir()),
    ]
    return list(found[: 2 if arguments.quick else arguments.count])


def measure(bench: Bench, portraits: Sequence[Path], blinkers: int, out: Path) -> dict[str, Any]:
    """Figures by portrait; a contact sheet each in `out`. The first `blinkers` speak long, too.

    The judge looks at one portrait's clips while the next one's are made.
    """
    spoken = [speak(voice, SENTENCES) for voice in TEST_VOICES]
    quiet, long = silences(), long_speech()
    perfect, truth = spoken[0]._replace(name="true"), bench.folder / "true.safetensors"
    save_motion(truth, Recording(*true_motion(perfect)), {})
    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for seed, portrait in enumerate(portraits):
            sounds = [*spoken, *quiet, *([long] if seed < blinkers else [])]
            clips = {sound.name: bench.clip(portrait, sound, seed) for sound in sounds}
            clips["true"] = bench.clip(portrait, perfect, seed, truth)
            still = bench.folder / f"{portrait.stem}_source.png"
            media.write_image(still, bench.framed(portrait)[0])
            files = [still, *(clip.video for clip in clips.values())]
            waiting.append((portrait, clips, pool.submit(bench.track, files)))
    rows = {}
    for portrait, clips, seen in waiting:
        tracks = {stem.removeprefix(f"{portrait.stem}_"): t for stem, t in seen.result().items()}
        source = tracks.pop("source")["gap"][0]
        names = [sound.name for sound in spoken]
        found = np.concatenate([track["found"] for track in tracks.values()])
        row: dict[str, Any] = {"found": float(found.mean())}
        row |= lip_figures([clips[n] for n in names], [tracks[n] for n in names], spoken)
        rig = lip_figures([clips["true"]], [tracks["true"]], [perfect])
        row |= {f"true_{name}": rig[name] for name in ("closed", "margin", "dprime", "rig_r")}
        for sound in quiet:
            change = tracks[sound.name]["gap"] - source
            row |= {f"{sound.name}_mean": float(np.nanmean(change))}
            row |= {f"{sound.name}_sd": float(np.nanstd(change))}
        if long.name in clips:
            row |= blink_figures(clips[long.name], tracks[long.name])
            plain = lip_figures([clips[long.name]], [tracks[long.name]], [long])
            row |= {f"plain_{name}": plain[name] for name in ("closed", "margin", "dprime")}
        first = clips[names[0]]
        row |= bench.before_encoding(portrait, first.video.with_suffix(".safetensors"))
        rows[portrait.stem] = row
        drawn = sheet(first, tracks[names[0]], spoken[0].phones)
        media.write_image(out / f"closed_loop_{portrait.stem}.png", drawn)
    return {"portraits": rows, "text": ceiling(spoken)}


def main() -> None:
    """Run the closed loop from the command line."""
    parser = argparse.ArgumentParser(description="Measure rendered faces with a face tracker.")
    parser.add_argument("--judge", type=Path, required=True, help="Python with mediapipe")
    parser.add_argument("--media", type=Path, required=True, help="folder with portraits/")
    parser.add_argument("--portraits", type=Path, nargs="+", help="instead of the folder's")
    parser.add_argument("--count", type=int, default=5, help="portraits at most")
    parser.add_argument("--out", type=Path, default=Path("out_closed_loop"))
    parser.add_argument("--quick", action="store_true", help="two portraits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    started = time.perf_counter()
    clips = arguments.out / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    blinkers = 1 if arguments.quick else 2
    bench = Bench(arguments.judge, clips)
    result = measure(bench, portraits_of(arguments), blinkers, arguments.out)
    rows = result["portraits"]
    result["missed"] = [line for name, row in rows.items() for line in misses(name, row)]
    result |= {"machine": machine(), "seconds": round(time.perf_counter() - started)}
    (arguments.out / "closed_loop.json").write_text(json.dumps(result, indent=1) + "\n")
    text = ", ".join(f"{name} {value:.3g}" for name, value in result["text"].items())
    print(table(rows), f"true mouth of the text: {text}", *result["missed"], sep="\n")
    print(f"{result['seconds']} s on {result['machine']}")


if __name__ == "__main__":
    main()
