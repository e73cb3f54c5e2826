"""Who works off tasks: this process, processes of this machine, or a Ray cluster."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from moda_cli.jobs import cluster, processes
from moda_cli.jobs.processes import Event, Prepare


@dataclass(frozen=True, slots=True)
class Workforce:
    """The one choice between them."""

    devices: Sequence[str]  # of the processes, one each; of a cluster, the kind of its devices
    threads: int = 1  # of the CPU that each process takes; 0 leaves it to torch
    group: int = 1  # tasks that a process is handed at once
    isolated: bool = False  # a lone process is another one, too: a crash costs only its task
    ray: str | None = None  # address of a cluster that does instead

    def execute(self, tasks: Sequence[Any], prepare: Prepare) -> Generator[Event]:
        """Do every task; yield what happens as it does. Raises what `prepare` raises."""
        if self.ray:
            return cluster.execute(tasks, prepare, self.ray, self.devices[0], self.group)
        if self.isolated or (len(self.devices) > 1 and len(tasks) > 1):
            return processes.execute(tasks, prepare, self.devices, self.threads, self.group)
        return processes.in_this_process(tasks, prepare, self.devices[0], self.threads)
