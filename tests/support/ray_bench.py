"""A Ray cluster of two nodes on this machine, and how to lose one in the middle of a task."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.cluster_utils import Cluster


@contextmanager
def two_nodes() -> Iterator[tuple[Cluster, Any]]:
    """The cluster and its second node, which may be removed. Their environment is that of now."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield cluster, cluster.add_node(num_cpus=1)
    finally:
        ray.shutdown()  # where a command ran in this process
        cluster.shutdown()


def lose_at_work(cluster: Cluster, node: Any, task: str, within_s: float = 60) -> None:
    """Kill a node while it does a task of this function, as a power cut would."""
    raylet = node.all_processes["raylet"][0].process.pid
    deadline = time.monotonic() + within_s
    while True:
        assert time.monotonic() < deadline, f"the node never did {task}"
        if busy := _at_work(raylet, task):
            os.kill(busy[0], signal.SIGSTOP)  # it cannot finish meanwhile
            if busy[0] in _at_work(raylet, task):
                break
            os.kill(busy[0], signal.SIGCONT)
        time.sleep(0.01)
    cluster.remove_node(node, allow_graceful=False)
    os.kill(busy[0], signal.SIGKILL)


def _at_work(raylet: int, task: str) -> list[int]:
    command = ["ps", "--ppid", str(raylet), "-o", "pid=,args="]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if f"ray::{task}" in line]
