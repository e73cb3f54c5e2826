"""Processes that survive their tasks. Each one imports this file, so it is light and on its own."""

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from moda_cli.errors import DeviceError, InputError, WeightsError
from moda_cli.files import Row
from moda_cli.jobs import cluster, processes

if multiprocessing.current_process().name != "MainProcess":  # Ctrl-C while a process still imports
    signal.raise_signal(signal.SIGINT)


@dataclass(frozen=True)
class Dangerous:
    """Work whose tasks end their own process; each notes its attempts in a file."""

    folder: str

    def __call__(self, device: str, threads: int) -> processes.Work:
        if device == "broken":
            os.kill(os.getpid(), signal.SIGSEGV)
        if device == "flaky":
            with (Path(self.folder) / "loads").open("a") as file:
                file.write("x")
                if file.tell() % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
        if device == "absent":
            raise WeightsError("no weights", hint="fetch them")

        def work(
            task: str, following: Sequence[str], on_progress: processes.OnProgress
        ) -> processes.Row:
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
            if task.startswith("wait"):
                time.sleep(0.5)
            on_progress(1, 1)
            return {"process": os.getpid(), "following": list(following)}

        return work


def test_groups_leave_work_for_the_others_and_a_crash_is_repeated_alone() -> None:
    waiting = deque(range(7))
    assert list(processes.next_group(waiting, set(), 4, 2)) == [0, 1, 2, 3]
    assert list(processes.next_group(waiting, set(), 4, 2)) == [
        4,
        5,
    ]  # the third is for the other one
    waiting = deque(range(5))
    assert list(processes.next_group(waiting, {1}, 4, 1)) == [0]
    assert list(processes.next_group(waiting, {1}, 4, 1)) == [1]
    assert list(processes.next_group(waiting, {1}, 4, 1)) == [2, 3, 4]


class Noting:
    """Tasks that say what comes after them; `spoil` breaks its process, `refuse` is refused."""

    def __call__(self, device: str, threads: int) -> processes.Work:
        def work(task: str, following: Sequence[str], on_progress: processes.OnProgress) -> Row:
            if task == "spoil":
                raise RuntimeError("bad")
            if task == "refuse":
                raise InputError("no")
            return {"task": task, "then": list(following)}

        return work


def test_a_node_is_told_what_comes_next_and_leaves_the_rest_where_it_may_be_spoilt() -> None:
    rows = list(cluster.work_here(Noting(), "cpu", 1, ["a", "refuse", "b", "spoil", "c"]))
    assert [what for what, _ in rows] == ["done", "failed", "done", "broken"]
    assert rows[0][1]["then"] == ["refuse", "b", "spoil", "c"]
    assert rows[1][1]["exit_code"] == 3
    assert rows[3][1]["error"] == "RuntimeError: bad"


def test_a_job_that_takes_its_process_down_is_tried_twice_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    tasks = ["a", "kill", "b", "once", "bug", "c", "bad", "d"]
    events = list(processes.execute(tasks, Dangerous(str(tmp_path)), ["cpu", "cpu"], 0))
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


def run_groups(tasks: Sequence[str], folder: Path, workers: int) -> list[processes.Event]:
    devices = ["cpu"] * workers
    return list(processes.execute(tasks, Dangerous(str(folder)), devices, 0, group=4))


def test_a_group_knows_what_comes_next_and_no_one_is_left_without_work(tmp_path: Path) -> None:
    tasks = [f"wait{k}" for k in range(6)]
    events = run_groups(tasks, tmp_path, 2)
    following = {tasks[e.task]: e.row["following"] for e in events if e.kind == "done"}
    assert set(following) == set(tasks)
    assert max(map(len, following.values())) == 2  # 3 of the 6 at once, though 4 are allowed
    for task, others in following.items():
        after = tasks[tasks.index(task) + 1 :]
        assert others == after[: len(others)]
    kinds = [(e.kind, e.task) for e in events]
    assert all(kinds.index(("started", k)) < kinds.index(("done", k)) for k in range(6))


@pytest.mark.parametrize("deadly", ["kill", "bug"])
def test_who_shares_a_group_with_a_deadly_task_is_not_failed_for_it(
    tmp_path: Path, deadly: str
) -> None:
    tasks = ["a", deadly, "b", "bad", "c", "once"]
    events = run_groups(tasks, tmp_path, 1)
    ends = {tasks[e.task]: e for e in events if e.kind in ("done", "failed")}
    attempts = {name: e.row.get("attempts") for name, e in ends.items()}
    assert attempts == {"a": 1, deadly: 2, "b": 1, "bad": 1, "c": 1, "once": 2}
    assert {name for name, e in ends.items() if e.kind == "failed"} == {deadly, "bad"}
    assert ends["a"].row["following"] == [deadly, "b", "bad"]
    assert ends["b"].row["following"] == []  # alone from then on
    assert ends["c"].row["following"] == ["once"]
    assert Counter(e.kind for e in events)["retried"] == 2
    tries = {name: len((tmp_path / name).read_text().split()) for name in tasks}
    assert tries == {"a": 1, deadly: 2, "b": 1, "bad": 1, "c": 1, "once": 2}


def test_a_model_that_cannot_be_loaded_ends_the_batch(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights"):
        list(processes.execute(["a"], Dangerous(str(tmp_path)), ["absent"], 0))
    with pytest.raises(DeviceError, match="SIGSEGV"):
        list(processes.execute(["a"], Dangerous(str(tmp_path)), ["broken"], 0))


def test_a_load_that_crashes_now_and_then_does_not_end_the_batch(tmp_path: Path) -> None:
    tasks = ["a", "bug", "b"]
    events = list(processes.execute(tasks, Dangerous(str(tmp_path)), ["flaky"], 0))
    ends = {tasks[e.task]: e.kind for e in events if e.kind in ("done", "failed")}
    assert ends == {"a": "done", "bug": "failed", "b": "done"}
    assert len((tmp_path / "loads").read_text()) == 6  # each second one succeeds
