"""Processes that work off a list of tasks, and survive one that takes its process down.

Nothing here knows what a task is: `prepare(device, threads)` makes the function that does one.
"""

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from moda_cli.errors import FREE_SPACE, DeviceError, ModaError, UsageError, is_disk_full
from moda_cli.files import Row

log = logging.getLogger(__name__)

ATTEMPTS = 2  # of a task whose process dies
TICK_S = 0.2  # between two reports of progress
GRACE_S = 5.0  # for a process to leave once it is asked to

OnProgress = Callable[[int, int | None], None]  # (done, of how many)
Work = Callable[[Any, Sequence[Any], OnProgress], Row]  # (task, those this process does next)
Prepare = Callable[[str, int], Work]  # (device, CPU threads), in the process itself


Kind = Literal["started", "progress", "retried", "done", "failed"]
ENDS: dict[str, Kind] = {"done": "done", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a task. `started` comes before anything is done about it."""

    kind: Kind
    task: int
    worker: str
    row: Row = field(default_factory=dict)


class Pipe:
    """A worker's end of the connection, shared by its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._last = 0.0

    def send(self, what: str, **content: object) -> None:
        with self._lock, suppress(OSError):  # without its parent this process is about to end
            self._connection.send((what, content))

    def progress(self, done: int, total: int | None) -> None:
        if done == total or time.monotonic() - self._last > TICK_S:
            self._last = time.monotonic()
            self.send("progress", done=done, total=total)

    def next_tasks(self) -> list[Any]:
        tasks: list[Any] = self._connection.recv()
        return tasks


class Forward(logging.Handler):
    """Sends log records to the process that owns the terminal."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self.pipe.send("log", level=record.levelno, message=record.getMessage())


def serve(connection: Connection, prepare: Prepare, device: str, threads: int, level: int) -> None:
    """The life of a worker: groups of tasks come in until an empty one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # files in the making are removed
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    pipe = Pipe(connection)
    logger = logging.getLogger("moda_cli")
    logger.handlers, logger.propagate = [Forward(pipe)], False
    logger.setLevel(level)
    try:
        work = prepare(device, threads)
    except ModaError as error:
        pipe.send("unusable", error=error)
        return
    pipe.send("ready")
    while tasks := pipe.next_tasks():
        for place, task in enumerate(tasks, start=1):
            try:
                row = work(task, tasks[place:], pipe.progress)
            except ModaError as error:
                pipe.send("failed", **failure(error))
            except Exception as error:  # a bug, or memory: either way this process may be spoilt
                log.debug("%s", traceback.format_exc())
                pipe.send("broken", error=broken(error))
                return
            else:
                pipe.send("done", **row)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits here, and is kept from the processes started meanwhile and from theirs."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or it starts with the first one, and lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def failure(error: ModaError) -> Row:
    return {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}


def broken(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


class Worker:
    """A process as its parent sees it."""

    def __init__(self, name: str, device: str, prepare: Prepare, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name, self.device = name, device
        self.connection, theirs = context.Pipe()
        level = logging.getLogger("moda_cli").getEffectiveLevel()
        self.process = context.Process(
            target=serve, args=(theirs, prepare, device, threads, level), daemon=True
        )
        with _interrupts_held():
            self.process.start()
        theirs.close()
        self.ready = False
        self.hand: deque[int] = deque()  # its tasks; the first is the one at work

    def dismiss(self) -> None:
        """Ask an idle process to leave, and a busy one to remove its files and leave."""
        with suppress(OSError):  # it has gone already
            if self.ready and not self.hand:
                self.connection.send([])
            else:
                self.process.terminate()

    def end(self) -> None:
        self.process.join(GRACE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()

    def hear(self) -> tuple[str, Row]:
        """The next message; `gone` where there will be none."""
        try:
            what, content = self.connection.recv()
        except (EOFError, OSError):
            return "gone", {"error": self._why_gone()}
        return what, content

    def _why_gone(self) -> str:
        self.process.join(GRACE_S)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name
        guess = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{guess}"


def next_group(
    waiting: deque[int], alone: Collection[int], most: int, processes: int
) -> Iterator[int]:
    """Tasks taken off the queue for one process, so that no other idles while some wait.

    alone: those that are done with no other at their side.
    """
    for _ in range(min(most, math.ceil(len(waiting) / processes))):
        task = waiting.popleft()
        yield task
        if task in alone or (waiting and waiting[0] in alone):
            return


def execute(
    tasks: Sequence[Any],
    prepare: Prepare,
    devices: Sequence[str],
    threads: int,
    group: int = 1,
) -> Generator[Event]:
    """Do every task on one process per device named; yield what happens as it does.

    A process is handed up to `group` tasks at once, so that it may prepare them together. One that
    takes its process down is tried once more in a fresh one, then it has failed; whoever was in a
    group with it is from then on done alone. Raises what `prepare` raises of our errors,
    DeviceError where it keeps crashing.
    """
    waiting, attempts = deque(range(len(tasks))), Counter[int]()
    alone: set[int] = set()
    workers: list[Worker] = []

    def renew(worker: Worker) -> None:
        worker.dismiss()
        worker.end()
        place = workers.index(worker)
        workers[place] = Worker(worker.name, worker.device, prepare, threads)

    try:
        for number, device in enumerate(devices[: len(tasks)], start=1):
            workers.append(Worker(f"{number} {device}", device, prepare, threads))
        stillborn = 0
        while waiting or any(worker.hand for worker in workers):
            for worker in workers:
                if worker.ready and waiting and not worker.hand:
                    worker.hand.extend(next_group(waiting, alone, group, len(workers)))
                    for task in worker.hand:
                        yield Event("started", task, worker.name)
                    with suppress(OSError):  # it has gone, and is found so below
                        worker.connection.send([tasks[task] for task in worker.hand])
            for worker in _heard(workers):
                what, content = worker.hear()
                if what == "log":
                    log.log(content["level"], "%s", content["message"])
                elif what == "ready":
                    worker.ready, stillborn = True, 0
                elif what == "unusable":
                    raise content["error"]
                elif not worker.hand:
                    stillborn += not worker.ready
                    if stillborn >= ATTEMPTS:
                        reason = f"the model could not be loaded on {worker.device}"
                        hint = "try fewer --workers, or --device cpu"
                        raise DeviceError(f"{reason}: {content['error']}", hint=hint)
                    renew(worker)
                elif what == "progress":
                    yield Event("progress", worker.hand[0], worker.name, content)
                elif end := ENDS.get(what):
                    task = worker.hand.popleft()
                    yield Event(end, task, worker.name, {**content, "attempts": attempts[task] + 1})
                else:
                    task, *others = worker.hand
                    worker.hand.clear()
                    renew(worker)
                    alone.update((task, *others))
                    waiting.extendleft(reversed(others))
                    attempts[task] += 1
                    if attempts[task] < ATTEMPTS:
                        waiting.appendleft(task)
                        yield Event("retried", task, worker.name, content)
                    else:
                        yield Event("failed", task, worker.name, given_up(content["error"]))
    finally:
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.end()


def in_this_process(
    tasks: Sequence[Any], prepare: Prepare, device: str, threads: int
) -> Generator[Event]:
    """Do every task in this process. One that takes it down takes all; Ctrl-C ends it at once."""
    work = prepare(device, threads) if tasks else None
    for task in range(len(tasks)):
        assert work is not None
        yield Event("started", task, device)
        try:
            row = work(tasks[task], (), lambda done, total: None)
        except ModaError as error:
            yield Event("failed", task, device, {**failure(error), "attempts": 1})
        else:
            yield Event("done", task, device, {**row, "attempts": 1})


def given_up(reason: str, times: int = ATTEMPTS) -> Row:
    """What is reported of a task that took its process or node down whenever it was tried."""
    return {"error": f"{reason}, {times} times", "hint": "", "exit_code": 1, "attempts": times}


def check_space(what: str, event: Event) -> None:
    """Raises UsageError where a task failed for a full disk, which is no fault of the task's."""
    reason = event.row["error"]
    if is_disk_full(reason):
        raise UsageError(f"no space is left for {what}: {reason}", hint=FREE_SPACE)


def _heard(workers: Sequence[Worker]) -> list[Worker]:
    """The workers with news; waits for some."""
    heard = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in heard]
