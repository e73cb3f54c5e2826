"""All clips of a list to features, here, in several processes or on a cluster.

A job runs on one thread, so that its bytes do not depend on how many there are.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from moda_cli.config import FPS, AudioKind
from moda_cli.data.annotations import Cut
from moda_cli.device import one_thread, resolve_device, use_threads
from moda_cli.errors import WeightsError
from moda_cli.extract.features import (
    EMOTION,
    MOTION_EXTRACTOR,
    SYNC,
    ExtractionNetworks,
    MotionKind,
    extract_cut,
)
from moda_cli.extract.index import claim, cut_key, forget, is_done, mark_done, write_index
from moda_cli.face.landmarks203 import LANDMARKS
from moda_cli.files import Row, with_absolute_paths
from moda_cli.jobs.processes import Event, Work, check_space
from moda_cli.jobs.workforce import Workforce
from moda_cli.owner import owned
from moda_cli.speech.encoder import ENCODERS
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

PREPARATION = 3  # changes when the same video would give other features

OnJob = Callable[[int, int], None]  # jobs done, of how many


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a folder of features holds after a run."""

    clips: int
    hours: float
    dropped: int
    failed: dict[str, str] = field(default_factory=dict)  # clip of the list -> why


def extract(
    cuts: Sequence[Cut],
    out: Path,
    audio: AudioKind = "hubert",
    device: str = "auto",
    workers: int = 1,
    ray: str | None = None,
    on_job: OnJob | None = None,
    motion: MotionKind = "liveportrait",
) -> Extracted:
    """Write the features of every usable clip to `out`, `index.jsonl` and `dropped.jsonl`.

    ray: address of a cluster whose machines share `out` and the videos. Clips that an earlier run
    finished are left as they are. on_job(clips done, of how many). Raises UsageError where `out`
    holds other features, is full or is written by another process, or there is no such cluster,
    WeightsError, DeviceError.
    """
    where = device if ray else str(resolve_device(device))
    store.require(*needed_components(audio, motion))
    options = resolve_options(audio, motion)
    with owned(out):
        claim(out, options)
        return _extract_missing(cuts, out, options, where, workers, ray, on_job)


def _extract_missing(
    cuts: Sequence[Cut],
    out: Path,
    options: Row,
    where: str,
    workers: int,
    ray: str | None,
    on_job: OnJob | None,
) -> Extracted:
    absent = {cut.name: "the video is not there" for cut in cuts if cut.video is None}
    todo = [cut for cut in cuts if cut.name not in absent and not is_done(out, cut)]
    done = len(cuts) - len(todo)
    failed: dict[str, str] = {}
    extractor = Extractor(out.absolute(), options)
    if ray:
        todo = [with_absolute_paths(cut) for cut in todo]
    events = Workforce([where] * workers, ray=ray).execute(todo, extractor)
    try:
        with one_thread(opencv=True):
            for cut, fault in run_all(todo, out, options, events):
                done += 1
                if fault:
                    failed[cut.name] = fault
                    log.warning("%s: %s", cut.name, fault)
                if on_job:
                    on_job(done, len(cuts))
    finally:
        rows, dropped = write_index(out, {cut.name: cut for cut in cuts}, {**absent, **failed})
    frames = sum(row["frames"] for row in rows)
    return Extracted(len(rows), frames / FPS / 3600, len(dropped), failed)


def needed_components(audio: AudioKind, motion: MotionKind) -> tuple[str, ...]:
    """The components without which nothing is extracted."""
    looks = [LANDMARKS, MOTION_EXTRACTOR] if motion == "liveportrait" else []
    return (*looks, *([ENCODERS[audio]] if audio in ENCODERS else []))


def fetch_components(
    audio: AudioKind, motion: MotionKind, on_progress: OnProgress | None = None
) -> None:
    """Fetch what is missing of them. Raises WeightsError, offline with the command to run."""
    ensure(needed_components(audio, motion), on_progress)


def resolve_options(audio: AudioKind, motion: MotionKind) -> Row:
    """What features depend on beside the video: every row of the index says it."""
    if motion == "liveportrait" and not store.installed(EMOTION):
        log.warning("no emotions: `moda download train --trust %s` fetches the classifier", EMOTION)
    return {
        "audio": audio,
        "motion": motion,
        "fps": FPS,
        "preparation": PREPARATION,
        "networks": network_hashes(audio, motion),
    }


def network_hashes(audio: AudioKind, motion: MotionKind) -> dict[str, str]:
    """What is looked and listened with, by component."""
    lock = store.read_lock()
    beside = (EMOTION, *SYNC) if motion == "liveportrait" else SYNC
    names = (*needed_components(audio, motion), *filter(store.installed, beside))
    return {name: lock[name].path_sha256[:16] for name in names}


@dataclass(frozen=True)
class Extractor:
    """Makes the function that extracts clips, once a process. Travels to it by its options."""

    out: Path
    options: Row = field(hash=False)

    def __call__(self, device: str, threads: int) -> Work:
        """Raises WeightsError, also for other networks than those of the run."""
        kinds = self.options["audio"], self.options["motion"]
        if network_hashes(*kinds) != self.options["networks"]:
            hint = "let all machines share MODA_CACHE, or download the same files there"
            raise WeightsError("other weights are installed here than where it began", hint=hint)
        use_threads(threads)
        networks = ExtractionNetworks.load(*kinds, torch.device(device))

        def work(cut: Cut, following: Sequence[Cut], on_progress: object) -> Row:
            rows, dropped = extract_cut(cut, self.out, networks)
            return {"rows": rows, "dropped": dropped}

        return work


def run_all(
    cuts: Sequence[Cut], out: Path, options: Row, events: Generator[Event]
) -> Iterator[tuple[Cut, str]]:
    """Each clip as it is done and recorded, and why it could not be."""
    keys: dict[int, str] = {}
    with closing(events):
        for event in events:
            cut = cuts[event.task]
            if event.kind == "started":
                forget(out, cut)
                keys[event.task] = cut_key(cut)
            elif event.kind == "failed":
                check_space(cut.name, event)
                yield cut, event.row["error"]
            elif event.kind == "done":
                rows, dropped = event.row["rows"], event.row["dropped"]
                paths = [out / f"{row['clip']}.safetensors" for row in rows]
                if unseen := [path for path in paths if not path.is_file()]:
                    made = f"{unseen[0]} was made by {event.worker} and cannot be seen from here"
                    yield cut, f"{made}: the machines must share the output folder"
                    continue
                rows = [{**row, "options": options} for row in rows]
                mark_done(out, cut, keys[event.task], rows, dropped)
                yield cut, ""
