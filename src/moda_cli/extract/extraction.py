"""All clips of a list to features, here, in several processes or on a cluster.

A job runs on one thread, so that its bytes do not depend on how many there are.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
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
    extract_cut,
)
from moda_cli.extract.index import claim, cut_key, forget, is_done, mark_done, write_index
from moda_cli.face.landmarks203 import LANDMARKS
from moda_cli.files import Row
from moda_cli.jobs.processes import Event, Work, check_space
from moda_cli.jobs.workforce import Workforce
from moda_cli.speech.encoder import ENCODERS
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

PREPARATION = 2  # changes when the same video would give other features

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
) -> Extracted:
    """Write the features of every usable clip to `out`, `index.jsonl` and `dropped.jsonl`.

    ray: address of a cluster whose machines share `out` and the videos. Clips that an earlier run
    finished are left as they are. on_job(clips done, of how many). Raises UsageError where `out`
    holds other features or is full or there is no such cluster, WeightsError, DeviceError.
    """
    where = device if ray else str(resolve_device(device))
    store.require(*needed_components(audio))
    options = resolve_options(audio)
    claim(out, options)
    absent = {cut.name: "the video is not there" for cut in cuts if cut.video is None}
    todo = [cut for cut in cuts if cut.name not in absent and not is_done(out, cut)]
    done = len(cuts) - len(todo)
    failed: dict[str, str] = {}
    extractor = Extractor(out.absolute(), options)
    if ray:
        todo = [absolute(cut) for cut in todo]
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


def needed_components(audio: AudioKind) -> tuple[str, ...]:
    """The components without which nothing is extracted."""
    encoder = [ENCODERS[audio]] if audio in ENCODERS else []
    return (LANDMARKS, MOTION_EXTRACTOR, *encoder)


def fetch_components(audio: AudioKind, on_progress: OnProgress | None = None) -> None:
    """Fetch what is missing of them. Raises WeightsError, offline with the command to run."""
    ensure(needed_components(audio), on_progress)


def resolve_options(audio: AudioKind) -> Row:
    """What features depend on beside the video: every row of the index says it."""
    if not store.installed(EMOTION):
        log.warning("no emotions: `moda download train --trust %s` fetches the classifier", EMOTION)
    return {
        "audio": audio,
        "fps": FPS,
        "preparation": PREPARATION,
        "networks": network_hashes(audio),
    }


def network_hashes(audio: AudioKind) -> dict[str, str]:
    """What is looked and listened with, by component."""
    lock = store.read_lock()
    optional = [name for name in (EMOTION, *SYNC) if store.installed(name)]
    return {name: lock[name].path_sha256[:16] for name in (*needed_components(audio), *optional)}


def absolute(cut: Cut) -> Cut:
    """The clip with files that another machine finds."""
    video, sound = (path and path.absolute() for path in (cut.video, cut.sound))
    return replace(cut, video=video, sound=sound)


@dataclass(frozen=True)
class Extractor:
    """Makes the function that extracts clips, once a process. Travels to it by its options."""

    out: Path
    options: Row = field(hash=False)

    def __call__(self, device: str, threads: int) -> Work:
        """Raises WeightsError, also for other networks than those of the run."""
        if network_hashes(self.options["audio"]) != self.options["networks"]:
            hint = "let all machines share MODA_CACHE, or download the same files there"
            raise WeightsError("other weights are installed here than where it began", hint=hint)
        use_threads(threads)
        networks = ExtractionNetworks.load(self.options["audio"], torch.device(device))

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
