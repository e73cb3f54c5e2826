"""Batches for the loop, prepared ahead by other processes."""

import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader

from moda_cli.device import usable_cores
from moda_cli.errors import InputError, ModaError
from moda_cli.train.dataset import Batch, TrainingWindows, stack
from moda_cli.train.parallel import Ranks
from moda_cli.train.presets import TrainConfig

GPU_WORKERS = 12
LOST = "DataLoader worker"  # how torch begins to tell of a process that died
AHEAD = 4  # batches that each process prepares beyond the one in use


def sample_numbers(config: TrainConfig, ranks: Ranks, step: int, steps: int) -> Iterator[list[int]]:
    """The samples of each part of this process's share of every batch from `step` on."""
    share = config.batch_size // ranks.size
    size = share // config.accumulate
    for first in range(step * config.batch_size, steps * config.batch_size, config.batch_size):
        own = first + ranks.rank * share
        for start in range(own, own + share, size):
            yield list(range(start, start + size))


def load(
    windows: TrainingWindows,
    numbers: Iterable[list[int]],
    workers: int | None,
    device: torch.device,
) -> Generator[Batch]:
    """Batches of the numbered samples on the device, prepared ahead by `workers` processes.

    No more processes than this one may use cores: samples do not depend on who prepares them. None
    takes two, or for a GPU, which must not wait, as many as there are cores for it up to twelve. To
    be closed, which ends them. Raises InputError for a file that cannot be read.
    """
    if workers is None:
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
        workers = (
            min(GPU_WORKERS, max(1, usable_cores() // sharing - 1)) if device.type == "cuda" else 2
        )
    workers = min(workers, usable_cores())
    loader = DataLoader(
        windows,
        batch_sampler=numbers,
        collate_fn=stack,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_parent,
    )
    with _deaths_seen_at_batches():
        batches = iter(loader)
    try:
        yield from on_device(batches, device)
    except InputError as error:  # from a worker it comes with a traceback in its text
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None


@contextmanager
def _deaths_seen_at_batches() -> Iterator[None]:
    """Around a loader's start: torch is not to raise the death of its process wherever we are.

    It sees it as well, within seconds, where the next batch is asked for.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
    yield
    if before is not None:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def processes_watched() -> Iterator[None]:
    """Around steps: the loss of a process that `load` has started is told as such.

    Raises ModaError.
    """
    try:
        yield
    except (
        RuntimeError,
        ConnectionError,
        EOFError,
    ) as error:  # the last two: while it sent a batch
        if isinstance(error, RuntimeError) and LOST not in str(error):
            raise
        reason = str(error).splitlines()[0].strip() if str(error) else "it sent half a batch"
        raise ModaError(
            f"a process that prepares samples is gone: {reason}",
            hint="out of memory, most likely: try fewer --workers, and run the same command again",
        ) from None


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device; on CUDA each is copied while the one before it is in use."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    copying = torch.cuda.Stream(device)
    waiting: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            following = batch.to(device)
            copied = copying.record_event()
        if waiting is not None:
            yield waiting
        torch.cuda.current_stream(device).wait_event(copied)
        for part in following.parts():  # so that its memory is not given away while in use
            part.record_stream(torch.cuda.current_stream(device))
        waiting = following
    if waiting is not None:
        yield waiting


def _leave_signals_to_parent(_worker: int) -> None:
    """A terminal and a scheduler signal all processes: the main one decides, and ends these."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # where the system tells who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_parent_says, daemon=True).start()


def _end_when_parent_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
