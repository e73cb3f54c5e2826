"""All clips of a list to features, in several processes.

A job runs on one thread, so that its bytes do not depend on how many there are.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import torch

from moda_cli import components
from moda_cli.choice import resolve_device
from moda_cli.config import FPS, AudioKind
from moda_cli.data.annotations import Cut
from moda_cli.data.clip_files import Row
from moda_cli.errors import InputError, ModaError
from moda_cli.extract.clip import EMOTION, MOTION, SYNC, Networks, extract_cut
from moda_cli.extract.records import claim, forget, is_done, job_key, record, write_index
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

OnJob = Callable[[int, int], None]  # jobs done, of how many


@dataclass(frozen=True, slots=True)
class Summary:
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
    on_job: OnJob | None = None,
) -> Summary:
    """Write the features of every usable clip to `out`, `index.jsonl` and `dropped.jsonl`.

    Clips that an earlier run finished are left as they are. on_job(clips done, of how many).
    Raises UsageError where `out` holds other features, WeightsError, DeviceError.
    """
    where = resolve_device(device)
    store.require(*needed(audio))
    options = resolve_options(audio)
    claim(out, options)
    absent = {cut.name: "the video is not there" for cut in cuts if cut.video is None}
    todo = [cut for cut in cuts if cut.name not in absent and not is_done(out, cut)]
    done = len(cuts) - len(todo)
    failed: dict[str, str] = {}
    try:
        for cut, fault in run_all(todo, out, options, str(where), workers):
            done += 1
            if fault:
                failed[cut.name] = fault
                log.warning("%s: %s", cut.name, fault)
            if on_job:
                on_job(done, len(cuts))
    finally:
        rows, dropped = write_index(out, {cut.name: cut for cut in cuts}, {**absent, **failed})
    frames = sum(row["frames"] for row in rows)
    return Summary(len(rows), frames / FPS / 3600, len(dropped), failed)


def needed(audio: AudioKind) -> tuple[str, ...]:
    """The components without which nothing is extracted."""
    encoder = [components.ENCODERS[audio]] if audio in components.ENCODERS else []
    return (*components.FACE, MOTION, *encoder)


def fetch(audio: AudioKind, on_progress: OnProgress | None = None) -> None:
    """Fetch what is missing of them. Raises WeightsError, offline with the command to run."""
    ensure(needed(audio), on_progress)


def resolve_options(audio: AudioKind) -> Row:
    """What features depend on beside the video: every row of the index says it."""
    optional = [name for name in (EMOTION, *SYNC) if store.installed(name)]
    if EMOTION not in optional:
        log.warning("no emotions: `moda download train --trust %s` fetches the classifier", EMOTION)
    lock = store.read_lock()
    names = [*needed(audio), *optional]
    return {
        "audio": audio,
        "fps": FPS,
        "networks": {name: lock[name].path_sha256[:16] for name in names},
    }


def run_all(
    cuts: Sequence[Cut], out: Path, options: Row, device: str, workers: int
) -> Iterator[tuple[Cut, str]]:
    """Each clip as it is done, and why it could not be; in this process where one is enough."""
    if workers == 1 or len(cuts) < 2:
        with one_thread():
            networks = Networks.load(options["audio"], torch.device(device)) if cuts else None
            for cut in cuts:
                assert networks is not None
                yield cut, run_job(cut, out, options, networks)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(cuts)),
        multiprocessing.get_context("spawn"),  # torch does not survive a fork
        _start,
    )
    try:
        futures = {pool.submit(_work, cut, out, options, device): cut for cut in cuts}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise ModaError(
            "a worker process ended; the memory may be full", hint="use fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_job(cut: Cut, out: Path, options: Row, networks: Networks) -> str:
    """Do a clip and record it; why it could not be done, or nothing."""
    try:
        forget(out, cut)
        key = job_key(cut)
        rows, dropped = extract_cut(cut, out, networks)
    except InputError as error:
        return str(error)
    record(out, cut, key, [{**row, "options": options} for row in rows], dropped)
    return ""


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads; jobs must not."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


@cache
def _networks(audio: AudioKind, device: str) -> Networks:
    return Networks.load(audio, torch.device(device))


def _work(cut: Cut, out: Path, options: Row, device: str) -> str:
    return run_job(cut, out, options, _networks(options["audio"], device))


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the workers too, without a word
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent does not tell its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
