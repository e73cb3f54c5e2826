"""Tasks on a Ray cluster that is there already. They carry paths and URLs, never tensors.

The driver keeps the list and the journal; a node holds one loaded model per process and device.
"""

import logging
import os
import re
import socket
from collections import Counter, deque
from collections.abc import Generator, Sequence
from functools import cache
from typing import Any

from moda_cli.errors import ModaError, UsageError
from moda_cli.files import Row
from moda_cli.jobs.processes import ATTEMPTS, ENDS, Event, Prepare, Work, broken, failure, given_up

NODES = 5  # that may be lost under a task
KNOCK_S = 5.0  # for a cluster to answer

_prepared = cache(lambda prepare, device, threads: prepare(device, threads))


def work_here(prepare: Prepare, device: str, threads: int, task: Any) -> tuple[str, Row]:
    """Do one task in this process of a node; the model stays for the next one."""
    place = {"node": socket.gethostname(), "process": os.getpid()}
    try:
        work: Work = _prepared(prepare, device, threads)
        return "done", {**work(task, (), lambda done, total: None), **place}
    except ModaError as error:
        return "failed", {**failure(error), **place}
    except Exception as error:
        _prepared.cache_clear()  # what is loaded may be spoilt
        return "broken", {"error": broken(error), **place}


def execute(tasks: Sequence[Any], prepare: Prepare, address: str, device: str) -> Generator[Event]:
    """Do every task on the cluster at `address`; yield what happens as it does.

    As many at once as the cluster has GPUs (or CPUs, where the device is one). A task that takes
    its process down is tried once more; one whose node is lost is not to blame and runs elsewhere,
    up to NODES times. Raises UsageError where Ray or the cluster is not there.
    """
    ray = connect(address)
    on_gpu = device.startswith("cuda") or (device == "auto" and "GPU" in ray.cluster_resources())
    resource = "GPU" if on_gpu else "CPU"
    share = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": 1}
    remote = ray.remote(max_retries=0, **share)(work_here)
    waiting, attempts, moves = deque(range(len(tasks))), Counter[int](), Counter[int]()
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            room = max(1, int(ray.cluster_resources().get(resource, 0)))
            while waiting and len(running) < room:
                task = waiting.popleft()
                yield Event("started", task, "ray")
                reference = remote.remote(prepare, "cuda" if on_gpu else "cpu", 1, tasks[task])
                running[reference] = task
            ended, _ = ray.wait(list(running), num_returns=1)
            for reference in ended:
                task = running.pop(reference)
                try:
                    what, row = ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()[0]
                    # a row too large to travel inline is lost as an object, with its node
                    lost = (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError)
                    is_lost = isinstance(error, lost)
                    what, row = "elsewhere" if is_lost else "broken", {"error": reason}
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
        for reference in running:
            ray.cancel(reference, force=True)


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
