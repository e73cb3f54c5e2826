"""The bundled model's motion against the truth of held-out voices: lips, emotions, blinks, head.

`python -m benchmarks.motion_quality --features DIR` reads the test split that
`moda extract --synthetic 4 -o DIR` leaves, and takes about 4 minutes on one free core. With
`--hop NEW AHEAD COMING` it compares motion made live, so many frames at a time, with a file's;
COMING: frames beyond whose sound is known, 0 of a microphone's.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from moda_cli import media
from moda_cli.config import EMOTIONS, FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, SamplerConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.generator.hearing import HearsMel
from moda_cli.generator.hops import Hop
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import causal_take, sample
from moda_cli.media.waves import Wave, frames_to_cover, num_frames
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode
from moda_cli.pipeline import Pipeline

Table = dict[str, dict[str, float]]  # row -> column -> value

CLOSED_JAW = 2.0  # a labial is closed at this jaw opening or less
NEARLY_CLOSED_JAW = 3.0  # for real speech, where no phones are known
BLINK_LID = 7.0
GRID_CLIPS = 12  # recordings spoken in every emotion
SCALE_CLIPS = 4  # of them, at every emotion scale
EMOTION_SCALES = (1.0, 1.5, 2.5)
SWEPT_EMOTIONS = ("none", "anger", "surprise")
LONG_S = 120
SILENCE_S = 20
JAW, LID = ARTICULATORS.index("jaw"), slice(*map(ARTICULATORS.index, ("lid_a", "brow_up")))
POSE_ANGLES = ("pitch", "yaw", "roll")
BARS = {  # what a bundled model must reach
    "r jaw": (0.80, 1.0),
    "r spread": (0.75, 1.0),
    "r round": (0.70, 1.0),
    **{f"jitter {angle}": (0.8, 1.3) for angle in POSE_ANGLES},
    "closure spread": (0.0, 0.05),
    "emotion accuracy": (0.80, 1.0),
    "blinks per minute": (10.0, 30.0),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """A test recording and what was meant to be seen with it."""

    voice: str
    emotion: str
    wave: Wave  # 16 kHz
    motion: Tensor  # (T, 70)
    labials: list[tuple[float, float]]  # seconds


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model and how it is sampled."""

    model: MotionGenerator
    config: SamplerConfig

    def speak(self, wave: Wave, emotion: str, config: SamplerConfig | None = None) -> Tensor:
        """The product's motion (T, 70) for a 16 kHz wave."""
        timeline = parse_emotion(emotion)
        take = causal_take(self.model, wave, timeline, config or self.config)
        return torch.cat(list(sample(self.model, take)))

    def articulators(self, motion: Tensor) -> Tensor:
        """The eight articulators (T, 8) of a motion (T, 70), float64."""
        return decode((motion - self.model.stats.neutral)[:, EXPRESSION].double())


@dataclass(frozen=True, slots=True)
class LiveSpeaker(Speaker):
    """The same, a few frames at a time as their sound arrives."""

    hop: Hop
    coming: int  # frames beyond the hop whose sound is known

    def speak(self, wave: Wave, emotion: str, config: SamplerConfig | None = None) -> Tensor:
        """The motion (T, 70) that a session would show, without its delay."""
        timeline, parts = parse_emotion(emotion), []
        sampler = HearsMel().hops(self.model, timeline, config or self.config, None, self.hop)
        size = self.hop.new * SAMPLES_PER_FRAME
        for start in range(0, len(wave) + self.hop.ahead * SAMPLES_PER_FRAME, size):
            block = wave[start : start + size]
            block = np.pad(block, (0, size - len(block)))
            left = wave[start + size :]
            coming = left[: min(num_frames(len(left)), self.coming) * SAMPLES_PER_FRAME]
            parts.append(sampler.step(block, timeline.emotion_shares, coming))  # one emotion
        return torch.cat(parts)[self.hop.ahead :][: frames_to_cover(len(wave))]


def read_clips(root: Path) -> list[Clip]:
    """The test clips, the voices taking turns so that any beginning of the list is balanced."""
    rows = [json.loads(line) for line in (root / "index.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "test"]
    rows.sort(key=lambda row: (row["clip"][-2:], row["speaker"]))
    clips = []
    for row in rows:
        with safe_open(root / f"{row['clip']}.safetensors", framework="pt") as file:
            motion = file.get_tensor("motion").float()
        wave = media.read_audio(root / f"{row['clip']}.wav")
        labials = [(start, end) for start, end in row["labial"]]
        clips.append(Clip(row["source"], row["emotion"], wave, motion, labials))
    return clips


def correlation(made: Tensor, true: Tensor) -> float:
    """Pearson's r of two curves (T)."""
    return float(torch.corrcoef(torch.stack((made, true)))[0, 1])


def closures(jaw: Tensor, labials: Iterable[tuple[float, float]]) -> list[bool]:
    """For each labial phone, whether a frame of `jaw` (T) within it, +- half a frame, is closed."""
    found = []
    for start, end in labials:
        first = max(0, int(np.ceil(start * FPS - 1)))  # the frame's centre is half a frame later
        within = jaw[first : int(end * FPS) + 1]
        found.append(bool((within <= CLOSED_JAW).any()))
    return found


def fidelity(speaker: Speaker, clips: Sequence[Clip], seeds: Sequence[int]) -> dict[str, Table]:
    """Correlation, spread and jitter against the truth, each the mean over `seeds`.

    Each clip has noise of its own: head and blinks hardly depend on the sound, so one noise for all
    would show the same head in every clip.
    """
    voices = {clip.voice: [clip.voice] for clip in clips}
    groups = {**voices, "all": list(voices)}
    runs: list[dict[str, Table]] = []
    for seed in seeds:
        motions = [
            speaker.speak(clip.wave, clip.emotion, replace(speaker.config, seed=1000 * seed + k))
            for k, clip in enumerate(clips)
        ]
        tables: dict[str, Table] = {"correlation": {}, "sd ratio": {}, "jitter": {}, "closure": {}}
        for group, members in groups.items():
            chosen = [
                (m, clip) for m, clip in zip(motions, clips, strict=True) if clip.voice in members
            ]
            made = torch.cat([speaker.articulators(motion) for motion, _ in chosen])
            true = torch.cat([speaker.articulators(clip.motion) for _, clip in chosen])
            turns = torch.cat([motion[:, POSE].diff(dim=0) for motion, _ in chosen])
            true_turns = torch.cat([clip.motion[:, POSE].diff(dim=0) for _, clip in chosen])
            tables["correlation"][group] = {
                name: correlation(made[:, k], true[:, k]) for k, name in enumerate(ARTICULATORS)
            }
            tables["sd ratio"][group] = dict(
                zip(ARTICULATORS, (made.std(dim=0) / true.std(dim=0)).tolist(), strict=True)
            )
            jitter = (turns.std(dim=0) / true_turns.std(dim=0)).tolist()
            tables["jitter"][group] = dict(zip(POSE_ANGLES, jitter, strict=True))
            tables["closure"][group] = {
                "generated": closed_share(speaker, chosen),
                "chance": closed_share(speaker, [(m.roll(len(m) // 2, 0), c) for m, c in chosen]),
                "truth": closed_share(speaker, [(c.motion, c) for _, c in chosen]),
            }
        runs.append(tables)
    return {
        title: {
            group: {name: float(np.mean([run[title][group][name] for run in runs])) for name in row}
            for group, row in table.items()
        }
        for title, table in runs[0].items()
    }


def closed_share(speaker: Speaker, spoken: Iterable[tuple[Tensor, Clip]]) -> float:
    """Share of the labials of (motion, clip) pairs that close."""
    closed = [
        is_closed
        for motion, clip in spoken
        for is_closed in closures(speaker.articulators(motion)[:, JAW], clip.labials)
    ]
    return float(np.mean(closed))


def class_accuracy(points: Tensor) -> float:
    """How often the nearest class mean is right: (clips, classes, 8), split into halves by clip.

    Means come from one half and are tried on the other, both ways; distances are in pooled
    within-class standard deviations.
    """
    count = points.shape[1]
    halves = points[0::2], points[1::2]
    right = []
    for known, unseen in (halves, halves[::-1]):
        means = known.mean(dim=0)
        pooled = (known - means).square().mean(dim=(0, 1)).sqrt()
        nearest = torch.cdist((unseen / pooled).flatten(0, 1), means / pooled).argmin(dim=1)
        right.append(nearest == torch.arange(count).repeat(len(unseen)))
    return float(torch.cat(right).double().mean())


def emotions(speaker: Speaker, clips: Sequence[Clip]) -> tuple[dict[str, Table], dict[str, float]]:
    """The same recordings in every class: labial closure, how tellable, what the scale does."""
    motions = {name: [speaker.speak(clip.wave, name) for clip in clips] for name in EMOTIONS}
    points = torch.stack(
        [
            torch.stack([speaker.articulators(motion).mean(dim=0) for motion in motions[name]])
            for name in EMOTIONS
        ],
        dim=1,
    )  # (clips, 9, 8)
    table: Table = {}
    for name in EMOTIONS:
        jaw = torch.cat([speaker.articulators(motion)[:, JAW] for motion in motions[name]])
        table[name] = {
            "closure": closed_share(speaker, zip(motions[name], clips, strict=True)),
            "mean jaw": float(jaw.mean()),
            "p90 jaw": float(jaw.quantile(0.9)),
        }
    apart = [row["closure"] - table["none"]["closure"] for row in table.values()]
    figures = {
        "closure spread": max(map(abs, apart)),
        "emotion accuracy": class_accuracy(points[:, :-1]),
    }
    pooled = (points - points.mean(dim=0)).square().mean(dim=(0, 1)).sqrt()
    scaled: Table = {name: {} for name in (*EMOTIONS[:-1], "mean")}
    for scale in EMOTION_SCALES:
        config = SamplerConfig(speaker.config.steps, emotion_scale=scale)
        means = torch.stack(
            [
                torch.cat(
                    [
                        speaker.articulators(speaker.speak(clip.wave, name, config))
                        for clip in clips[:SCALE_CLIPS]
                    ]
                ).mean(dim=0)
                for name in EMOTIONS
            ]
        )
        away = ((means[:-1] - means[-1]) / pooled).norm(dim=1).tolist()
        for name, distance in zip(EMOTIONS[:-1], away, strict=True):
            scaled[name][f"scale {scale:g}"] = distance
        scaled["mean"][f"scale {scale:g}"] = float(np.mean(away))
    return {"emotions, same recordings": table, "distance from none, in sd": scaled}, figures


def runs_of(active: Tensor) -> list[tuple[int, int]]:
    """[start, end) of every run of True in (T)."""
    padded = torch.nn.functional.pad(active.int(), (1, 1))
    edges = padded.diff().nonzero().flatten().tolist()
    return list(zip(edges[0::2], edges[1::2], strict=True))


def blinking(articulators: Tensor) -> dict[str, float]:
    """Blinks a minute and how far they close, of articulators (T, 8)."""
    lids = articulators[:, LID].mean(dim=1)
    blinks = runs_of(lids > BLINK_LID)
    depths = [float(lids[start:end].max()) for start, end in blinks]
    return {
        "blinks per minute": len(blinks) * 60 * FPS / len(lids),
        "lid at closure": float(np.mean(depths)) if depths else 0.0,
        "frames closed": float(np.mean([end - start for start, end in blinks])) if blinks else 0.0,
    }


def long_take(speaker: Speaker, clips: Sequence[Clip], seeds: Sequence[int]) -> Table:
    """Two minutes in one go, each measure the mean over `seeds`.

    Drift is how far the last quarter's mean lies from the first's, in standard deviations of the
    take: of the channel that moves most. A bend is a second difference, here against its mean over
    all frames: 1 means that the borders of the windows do not show.
    """
    wave = np.concatenate([clip.wave for clip in clips])[: LONG_S * SAMPLE_RATE]
    shape = speaker.model.network.config
    step = shape.window - shape.overlap
    blinks, drifts, bends = [], [], []
    for seed in seeds:
        motion = speaker.speak(wave, "none", replace(speaker.config, seed=seed))
        articulators = speaker.articulators(motion)
        blinks.append(blinking(articulators))
        both = torch.cat((articulators, motion[:, POSE].double()), dim=1)
        quarters = both.tensor_split(4)
        drifts.append((quarters[-1].mean(dim=0) - quarters[0].mean(dim=0)) / both.std(dim=0))
        bend = both.diff(n=2, dim=0).abs()
        starts = torch.arange(step, len(bend) - shape.overlap, step) - 1  # of cross-fades
        at = [bend[starts + shift].mean(dim=0) for shift in (0, shape.overlap)]
        bends.append(torch.stack(at) / bend.mean(dim=0))
    bend = torch.stack(bends).mean(dim=0)
    row = {name: float(np.mean([found[name] for found in blinks])) for name in blinks[0]}
    row["largest drift"] = float(torch.stack(drifts).mean(dim=0).abs().max())
    for k, place in enumerate(("start", "end")):
        row[f"lips bend at fade {place}"] = float(bend[k, :3].mean())
        row[f"head bend at fade {place}"] = float(bend[k, len(ARTICULATORS) :].mean())
    return {"generated": row}


def silence(speaker: Speaker) -> Table:
    """How still the lips are on digital silence and on faint noise."""
    noise = np.random.default_rng(0).standard_normal(SILENCE_S * SAMPLE_RATE)
    table: Table = {}
    for name, level in (("zeros", 0.0), ("noise -66 dB", 5e-4)):
        motion = speaker.speak((level * noise).astype(np.float32), "none")
        lips = speaker.articulators(motion)[:, :3]
        table[name] = {
            f"{measure} {axis}": float(value)
            for k, axis in enumerate(("|jaw|", "|spread|", "|round|"))
            for measure, value in (
                ("mean", lips[:, k].abs().mean()),
                ("sd", lips[:, k].std()),
                ("max", lips[:, k].abs().max()),
            )
        }
    return table


def live_against_file(
    speaker: Speaker, live: LiveSpeaker, clips: Sequence[Clip], seeds: Sequence[int]
) -> dict[str, Table]:
    """Lips, closure, blinks and the head's turns of both."""
    table: Table = {}
    for name, each in (
        ("file", speaker),
        (f"live {live.hop.new} + {live.hop.ahead} + {live.coming}", live),
    ):
        found = fidelity(each, clips, seeds)
        lips = found["correlation"]["all"]
        table[name] = {f"r {part}": lips[part] for part in ARTICULATORS[:3]}
        table[name]["labials closed"] = found["closure"]["all"]["generated"]
        table[name] |= long_take(each, clips, seeds)["generated"]
    return {"live against file": table}


def real_speech(speaker: Speaker, files: Sequence[Path]) -> Table:
    """Lip closures a second and the jaw's opening on recordings without known phones."""
    table: Table = {}
    for path in files:
        wave = media.read_audio(path)
        articulators = speaker.articulators(speaker.speak(wave, "none"))
        jaw = articulators[:, JAW]
        table[path.name] = {
            "closures per s": len(runs_of(jaw < NEARLY_CLOSED_JAW)) * FPS / len(jaw),
            "mean jaw": float(jaw.mean()),
            "p90 jaw": float(jaw.quantile(0.9)),
        }
    return table


def sweep(speaker: Speaker, clips: Sequence[Clip], grid: Sequence[Clip], scales: str) -> Table:
    """Lips, jitter and labial closure at each scale, joint and of the audio alone; one seed."""
    plain = replace(speaker.config, guidance=None, audio_scale=None, emotion_scale=None)
    configs = {}
    for scale in map(float, scales.split(",")):
        configs[f"guidance {scale:g}"] = replace(plain, guidance=scale)
        configs[f"audio scale {scale:g}"] = replace(plain, audio_scale=scale)
    table: Table = {}
    for title, config in configs.items():
        at = replace(speaker, config=config)
        measured = fidelity(at, clips, [config.seed])
        row = {f"r {name}": measured["correlation"]["all"][name] for name in ARTICULATORS[:3]}
        row |= {
            f"sd {name}": measured["sd ratio"]["all"][name] for name in ("jaw", "spread", "smile")
        }
        row |= {f"jitter {angle}": measured["jitter"]["all"][angle] for angle in POSE_ANGLES}
        for name in SWEPT_EMOTIONS:
            spoken = [(at.speak(clip.wave, name), clip) for clip in grid]
            row[f"closed {name}"] = closed_share(at, spoken)
        table[title] = row
    return table


def verdicts(report: dict[str, Table], figures: dict[str, float]) -> Table:
    """The bars and whether they are met."""
    values = {
        **{f"r {name}": report["correlation"]["all"][name] for name in ARTICULATORS[:3]},
        **{f"jitter {angle}": report["jitter"]["all"][angle] for angle in POSE_ANGLES},
        "blinks per minute": report["two minutes"]["generated"]["blinks per minute"],
        **figures,
    }
    return {
        name: {"value": values[name], "from": low, "to": high, "met": low <= values[name] <= high}
        for name, (low, high) in BARS.items()
    }


def show(title: str, table: Table) -> None:
    """Print one table."""
    names = list(next(iter(table.values())))
    first = max(len(title), *map(len, table))
    widths = [max(8, len(name)) for name in names]
    print("\n" + title.ljust(first), *(n.rjust(w) for n, w in zip(names, widths, strict=True)))
    for row, values in table.items():
        cells = (f"{values[name]:.3f}".rjust(w) for name, w in zip(names, widths, strict=True))
        print(row.ljust(first), *cells, flush=True)


def tell(report: dict[str, Table], out: Path | None) -> None:
    """Print all tables, and write them as JSON where asked to."""
    for title, table in report.items():
        show(title, table)
    if out:
        out.write_text(json.dumps(report, indent=1))


def main() -> None:
    """Measure the motion of a model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--features", type=Path, required=True, help="folder with test clips")
    parser.add_argument("--model", default="mini", help="model directory")
    parser.add_argument("--guidance", type=float, help="joint guidance; default the model's own")
    parser.add_argument("--audio-scale", type=float, help="guidance by the audio alone")
    parser.add_argument("--steps", type=int, help="default the model's own")
    parser.add_argument("--seeds", type=int, default=3, help="averaged in the correlations")
    parser.add_argument("--clips", type=int, default=54, help="clips of the correlations")
    parser.add_argument("--speech", type=Path, nargs="*", default=[], help="real recordings")
    parser.add_argument("--sweep", metavar="S,S,...", help="only compare guidance scales")
    parser.add_argument("--hop", type=int, nargs=3, help="only compare live motion with a file's")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)

    config = SamplerConfig(args.steps, args.guidance, args.audio_scale)
    speaker = Speaker(Pipeline.load(args.model, "cpu").model, config)
    clips = read_clips(args.features)
    grid = sorted(clips, key=lambda clip: -len(clip.labials) / len(clip.motion))[:GRID_CLIPS]
    chosen = clips[: args.clips]
    if args.sweep:
        report = {"sweep": sweep(speaker, chosen, grid, args.sweep)}
    elif args.hop:
        *hop, coming = args.hop
        live = LiveSpeaker(speaker.model, speaker.config, Hop(*hop), coming)
        report = live_against_file(speaker, live, chosen, range(args.seeds))
    else:
        report = fidelity(speaker, chosen, range(args.seeds))
        tables, figures = emotions(speaker, grid)
        report |= tables
        report["two minutes"] = long_take(speaker, clips, range(args.seeds))
        report["silence"] = silence(speaker)
        if args.speech:
            report["real speech"] = real_speech(speaker, args.speech)
        report["bars"] = verdicts(report, figures)
    tell(report, args.out)


if __name__ == "__main__":
    main()
