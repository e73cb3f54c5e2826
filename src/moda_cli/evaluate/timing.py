"""Making the clips of a split, and how long that takes (RTF)."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from moda_cli import __version__, media
from moda_cli.checks import resolve
from moda_cli.choice import Choice
from moda_cli.config import FPS, SAMPLE_RATE, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.data.splits import Case, Split
from moda_cli.device import use_threads
from moda_cli.errors import UsageError
from moda_cli.evaluate.cache import Cache, content_key
from moda_cli.evaluate.inputs import Inputs, LeftOut, Pair, Timing, find_clip, split_references
from moda_cli.evaluate.prepared import ClipWindow, open_reference
from moda_cli.evaluate.protocol import SIDE, Protocol
from moda_cli.files import Row, append_row, atomic_write, sha256_of, whole_rows, with_absolute_paths
from moda_cli.jobs.processes import Event, OnProgress, Work, check_space
from moda_cli.pipeline import Pipeline
from moda_cli.stopwatch import Stopwatch

log = logging.getLogger(__name__)

REPEATS = 3  # timed runs, after one that warms up; the median counts
TIMINGS = "timings.jsonl"

OnClip = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Material:
    """A clip to make."""

    id: str
    portrait: Path
    audio: Path


def materials(
    split: Split, root: Path, folder: Path, protocol: Protocol, cache: Cache
) -> list[Material]:
    """A split's portraits and sounds as files in `folder`.

    The portrait is the window's first frame, the sound the window's own.
    """
    used, _ = split_references(split, root, protocol, cache)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for entry in used:
        path = find_clip(root, split, entry.id)
        assert path is not None  # it was usable
        clip = open_reference(path, ClipWindow(entry.first_frame, entry.frames), protocol, cache)
        place = folder / clip.key[:16]  # another window or fit is another portrait
        place.mkdir(exist_ok=True)
        job = Material(entry.id, place / f"{entry.id}.png", place / f"{entry.id}.wav")
        if not (job.portrait.is_file() and job.audio.is_file()):
            import soundfile

            media.write_image(job.portrait, next(islice(clip, 1)))
            with atomic_write(job.audio) as temporary:
                soundfile.write(temporary, clip.wave(), SAMPLE_RATE, format="WAV")
        jobs.append(job)
    return jobs


def case_jobs(cases: Sequence[Case]) -> list[Material]:
    return [Material(case.id, case.portrait, case.audio) for case in cases]


@dataclass(frozen=True, slots=True)
class ClipTimer:
    """Makes the function that makes and times clips, once a process."""

    model: str
    renderer: str
    dtype: str

    def __call__(self, device: str, threads: int) -> Work:
        """threads: of the CPU, 0 leaves it to torch. Raises WeightsError or DeviceError."""
        if threads:
            use_threads(threads)
        pipeline = Pipeline.load(self.model, device, self.renderer, self.dtype)

        def make(clip: ClipConfig, following: Sequence[ClipConfig], on_progress: OnProgress) -> Row:
            return {"timing": asdict(timed_generate(pipeline, clip, pipeline.model.device))}

        return make


def generate_all(
    jobs: Sequence[Material],
    folder: Path,
    execute: Callable[[Sequence[ClipConfig]], Generator[Event]],
    seed: int,
    made_by: Mapping[str, str | int],
    on_clip: OnClip | None = None,
) -> tuple[dict[str, Timing], list[LeftOut]]:
    """Make and time the clips that `folder` does not hold yet; those it holds keep their times.

    execute: has a ClipTimer do them. A clip that cannot be made is left out and does not stop the
    others. Raises UsageError where one of the clips is there from elsewhere, is made by a machine
    that does not share the folder, or does not fit the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / TIMINGS
    known = {row["id"]: row for row in whole_rows(journal)}
    for job in jobs:
        if job.id not in known and (output := folder / f"{job.id}.mp4").exists():
            hint = "leave --generate out, or give another folder"
            raise UsageError(f"{output} is there, and was not made by `moda eval`", hint=hint)
    timings: dict[str, Timing] = {}
    left_out, todo = [], []
    for job in jobs:
        output = folder / f"{job.id}.mp4"
        sums = {"portrait": sha256_of(job.portrait), "audio": sha256_of(job.audio)}
        key = content_key(**sums, made_by={**made_by}, version=__version__)
        row = known.get(job.id)
        if row and row["key"] == key and output.is_file():
            timings[job.id] = Timing(**row["timing"])
            continue
        clip = ClipConfig(
            job.portrait,
            job.audio,
            output,
            overwrite=True,
            sampler=SamplerConfig(seed=seed),
            render=RenderConfig(size=SIDE),
        )
        todo.append((job.id, key, with_absolute_paths(clip)))
    begun = len(timings)
    with closing(execute([clip for _, _, clip in todo])) as events:
        for event in events:
            name, key, clip = todo[event.task]
            if event.kind == "started":
                begun += 1
                if on_clip:
                    on_clip(begun, len(jobs), f"{name} is made")
                if name not in known:  # from now on the clip is ours, finished or not
                    append_row(journal, {"id": name, "key": ""})
            elif event.kind == "failed":
                check_space(str(clip.output), event)
                left_out.append(LeftOut(name, f"it was not made: {event.row['error']}"))
            elif event.kind == "done":
                if not clip.output.is_file():
                    raise UsageError(
                        f"{clip.output} was made by {event.worker} and is not seen from here",
                        hint="all machines must share the folders",
                    )
                timings[name] = Timing(**event.row["timing"])
                append_row(journal, {"id": name, "key": key, "timing": event.row["timing"]})
    return timings, left_out


def described(choice: Choice, seed: int) -> dict[str, str | int]:
    """What a reader of an RTF must know, and what a clip that is there must have been made by.

    The choice's components must be there.
    """
    return {
        **choice.described(),
        "steps": choice.config.steps,
        "window": choice.config.window,  # frames generated at once
        "longer_side": SIDE,
        "fps": FPS,
        "seed": seed,
        "runs": REPEATS,
    }


def timed_generate(pipeline: Pipeline, clip: ClipConfig, device: torch.device) -> Timing:
    """Make a clip, which warms up, then time its making with and without encoding.

    Each is the median of three runs.
    """
    frames = pipeline.generate(clip).frames
    encoded = sorted(pipeline.generate(clip).seconds for _ in range(REPEATS))
    runs = sorted((time_frames(pipeline, clip, device) for _ in range(REPEATS)), key=lambda r: r[0])
    seconds, stages = runs[REPEATS // 2]
    return Timing(frames / FPS, seconds, encoded[REPEATS // 2], stages)


def time_frames(
    pipeline: Pipeline, clip: ClipConfig, device: torch.device
) -> tuple[float, dict[str, float]]:
    """Seconds from a decoded sound to the last frame, and those of each stage.

    The portrait's own analysis is in it. Stages overlap as they do in `Pipeline.generate`, so they
    may add up to more than the whole.
    """
    wave, resolved = media.read_audio(clip.audio), resolve(clip)
    finish = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None
    watch = Stopwatch(finish)
    animation = pipeline.animate(resolved, wave, watch=watch)
    with watch("frames"):
        for _ in animation.frames(animation.motion, FPS):
            pass
    return watch.elapsed(), watch.seconds


def with_timings(inputs: Inputs, timings: dict[str, Timing], left_out: Sequence[LeftOut]) -> Inputs:
    """The inputs of an evaluation with what generating said of them."""
    reasons = {row.id: row for row in left_out}
    pairs: list[Pair] = [replace(pair, timing=timings.get(pair.id)) for pair in inputs.pairs]
    rows = [reasons.get(row.id, row) for row in inputs.left_out]
    return replace(inputs, pairs=pairs, left_out=rows)
