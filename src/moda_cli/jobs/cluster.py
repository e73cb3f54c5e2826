"""Tasks on a Ray cluster that is there already. They carry paths and URLs, never tensors.

The driver keeps the list and the journal; a node holds one loaded model per process and device.
"""

import logging
import os
import re
import socket
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from typing import Any

from moda_cli.errors import ModaError, UsageError
from moda_cli.files import Row
from moda_cli.jobs.processes import (
    ATTEMPTS,
    ENDS,
    Event,
    Prepare,
    Work,
    broken,
    failure,
    given_up,
    next_group,
)

NODES = 5  # that may be lost under a task
KNOCK_S = 5.0  # for a cluster to answer

_prepared = cache(lambda prepare, device, threads: prepare(device, threads))


def work_here(
    prepare: Prepare, device: str, threads: int, tasks: Sequence[Any]
) -> Iterator[tuple[str, Row]]:
    """Do a group of tasks in this process of a node; what became of each follows when it is over.

    The model stays for the next group. A process that may be spoilt leaves the rest undone.
    """
    place = {"node": socket.gethostname(), "process": os.getpid()}
    for number, task in enumerate(tasks, start=1):
        try:
            work: Work = _prepared(prepare, device, threads)
            what, row = "done", work(task, tasks[number:], lambda done, total: None)
        except ModaError as error:
            what, row = "failed", failure(error)
        except Exception as error:
            _prepared.cache_clear()
            what, row = "broken", {"error": broken(error)}
        yield what, {**row, **place}
        if what == "broken":
            return


def kind_of_device(address: str, device: str) -> str:
    """`cuda` where a cluster's tasks run on GPUs, else `cpu`. Raises UsageError as `connect`."""
    resources = connect(address).cluster_resources()
    on_gpu = device.startswith("cuda") or (device == "auto" and "GPU" in resources)
    return "cuda" if on_gpu else "cpu"


def execute(
    tasks: Sequence[Any], prepare: Prepare, address: str, device: str, group: int = 1
) -> Generator[Event]:
    """Do every task on the cluster at `address`; yield what happens as it does.

    As many processes at once as the cluster has GPUs (or CPUs, where the device is one), each of
    which is handed up to `group` tasks. A task that takes its process down is tried once more, and
    the others of its group are from then on done alone; one whose node is lost is not to blame and
    runs elsewhere, up to NODES times. Raises UsageError where Ray or the cluster is not there.
    """
    ray, kind = connect(address), kind_of_device(address, device)
    resource, share = "CPU", {"num_cpus": 1}
    if kind == "cuda":
        resource, share = "GPU", {"num_gpus": 1, "num_cpus": 1}
    remote = ray.remote(max_retries=0, num_returns="streaming", **share)(work_here)
    waiting, attempts, moves = deque(range(len(tasks))), Counter[int](), Counter[int]()
    alone: set[int] = set()
    running: dict[Any, deque[int]] = {}  # the first of each is the one at work
    try:
        while waiting or running:
            room = max(1, int(ray.cluster_resources().get(resource, 0)))
            while waiting and len(running) < room:
                hand = deque(next_group(waiting, alone, group, room - len(running)))
                for task in hand:
                    yield Event("started", task, "ray")
                rows = remote.remote(prepare, kind, 1, [tasks[task] for task in hand])
                running[rows] = hand
            heard, _ = ray.wait(list(running), num_returns=1)
            for rows in heard:
                task = running[rows].popleft()
                try:
                    what, row = ray.get(next(rows))
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()[0]
                    # a row too large to travel inline is lost as an object, with its node
                    lost = (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError)
                    is_lost = isinstance(error, lost)
                    what, row = "elsewhere" if is_lost else "broken", {"error": reason}
                if what not in ENDS:
                    others = running.pop(rows)
                    waiting.extendleft(reversed(others))
                    if what == "broken":
                        alone.update((task, *others))
                elif not running[rows]:
                    del running[rows]
                if end := ENDS.get(what):
                    worker = f"{row.pop('node')}:{row.pop('process')}"
                    yield Event(end, task, worker, {**row, "attempts": attempts[task] + 1})
                    continue
                tries = moves if what == "elsewhere" else attempts
                tries[task] += 1
                if attempts[task] < ATTEMPTS and moves[task] < NODES:
                    waiting.appendleft(task)
                    yield Event("retried", task, "ray", row)
                else:
                    yield Event("failed", task, "ray", given_up(row["error"], tries[task]))
    finally:
        for rows in running:
            ray.cancel(rows, force=True)


def connect(address: str) -> Any:
    """The package, connected to the cluster. Raises UsageError without either."""
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--ray needs the package ray", hint="pip install 'moda-cli[ray]'"
        ) from None
    if not ray.is_initialized():
        try:
            server = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
            if server:  # knock first: Ray itself tries for a minute
                socket.create_connection((server[1], int(server[2])), KNOCK_S).close()
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            hint = "start one with `ray start --head`, or check the address"
            raise UsageError(f"no Ray cluster at {address}: {reason}", hint=hint) from None
    return ray
