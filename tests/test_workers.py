"""Processes that survive their tasks. Each one imports this file, so it is light and on its own."""

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from moda_cli.batch import workers
from moda_cli.errors import DeviceError, InputError, WeightsError


@dataclass(frozen=True)
class Dangerous:
    """Work whose tasks end their own process; each notes its attempts in a file."""

    folder: str

    def __call__(self, device: str, threads: int) -> workers.Work:
        if device == "broken":
            os.kill(os.getpid(), signal.SIGSEGV)
        if device == "absent":
            raise WeightsError("no weights", hint="fetch them")

        def work(task: str, on_progress: workers.OnProgress) -> workers.Row:
            with (Path(self.folder) / task.replace("/", "-")).open("a") as file:
                file.write(f"{os.getpid()}\n")
            tries = len((Path(self.folder) / task.replace("/", "-")).read_text().splitlines())
            if task.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if task.startswith("once") and tries == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            if task.startswith("bug"):
                raise MemoryError
            if task.startswith("bad"):
                raise InputError(f"cannot read {task}")
            on_progress(1, 1)
            return {"process": os.getpid()}

        return work


def test_a_job_that_takes_its_process_down_is_tried_twice_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    tasks = ["a", "kill", "b", "once", "bug", "c", "bad", "d"]
    events = list(workers.execute(tasks, Dangerous(str(tmp_path)), ["cpu", "cpu"], 0))
    ends = {tasks[e.task]: e for e in events if e.kind in ("done", "failed")}
    assert len(ends) == len(tasks)
    assert [name for name, e in ends.items() if e.kind == "failed"] in (
        sorted(["kill", "bug", "bad"], key=lambda name: list(ends).index(name)),
    )
    assert "SIGKILL" in ends["kill"].row["error"]
    assert "MemoryError" in ends["bug"].row["error"]
    assert ends["bad"].row["error"] == "cannot read bad"
    tries = {name: (tmp_path / name).read_text().split() for name in tasks}
    assert {name for name, pids in tries.items() if len(pids) == 2} == {"kill", "bug", "once"}
    assert all(len(pids) <= 2 for pids in tries.values())
    assert all(len(set(pids)) == len(pids) for pids in tries.values())  # each in a fresh process
    assert (ends["once"].row["attempts"], ends["a"].row["attempts"]) == (2, 1)
    kinds = Counter(e.kind for e in events)
    assert kinds["started"] == len(tasks) + 3
    assert kinds["retried"] == 3


def test_a_model_that_cannot_be_loaded_ends_the_batch(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights"):
        list(workers.execute(["a"], Dangerous(str(tmp_path)), ["absent"], 0))
    with pytest.raises(DeviceError, match="SIGSEGV"):
        list(workers.execute(["a"], Dangerous(str(tmp_path)), ["broken"], 0))
