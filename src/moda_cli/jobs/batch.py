"""A batch from its list of jobs to its report: what is to be done, done, and written down."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from moda_cli.config import INPUT_FILES
from moda_cli.errors import InputError, UsageError
from moda_cli.files import Row, write_rows
from moda_cli.jobs.clip_list import Job, Shard
from moda_cli.jobs.clips import input_faults
from moda_cli.jobs.journal import Journal, job_inputs, job_key, onto_disk, remove_partial
from moda_cli.jobs.options import flat_options
from moda_cli.jobs.places import size_of, sum_of
from moda_cli.jobs.processes import Event, check_space
from moda_cli.media import final_path

Execute = Callable[[Sequence[Any]], Generator[Event]]

NAMED = 20  # files in one message


@dataclass(frozen=True, slots=True)
class Rules:
    """Which jobs of a batch are done in this run."""

    shard: Shard
    overwrite: bool = False  # outputs that other jobs, or others, have made
    force: bool = False  # finished jobs too
    retry_failed: bool = False  # failed ones too
    strict: bool = False  # refuse to start where an input is unusable


@dataclass(frozen=True, slots=True)
class Summary:
    """How a batch ended."""

    made: int
    skipped: int  # finished in an earlier run
    failed: int  # of them all, earlier runs included
    seconds: float
    report: Path


class View(Protocol):
    """Who watches a batch."""

    def planned(self, todo: int, skipped: int, failed: int) -> None: ...

    def happened(self, job: Job, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class _Task:
    job: Job
    key: str
    sums: dict[str, str | None]


def run(
    jobs: Sequence[Job],
    folder: Path,
    model: Mapping[str, str],
    execute: Execute,
    view: View,
    rules: Rules,
) -> Summary:
    """Do what is not done yet; `execute` yields what becomes of the jobs it is given.

    model: what `Choice.described` says of the model that makes them.

    Raises UsageError before the first job where outputs are taken, InputError where `strict`
    refuses, and UsageError when the disk is full: the same call goes on from there.
    """
    began = time.monotonic()
    mine = rules.shard.of(jobs)
    if rules.strict and (faults := list(input_faults(mine))):
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise InputError(f"{_count(len(faults), 'unusable input')}, nothing was started:{lines}")
    made = failed = 0
    with Journal(folder, rules.shard) as journal:
        tasks = _identified(mine, model["model_sha256"])
        todo = _todo(tasks, journal, rules)
        names = [journal.name(task.job) for task in tasks]
        left = {journal.name(task.job) for task in todo}
        kept = [journal.last[name]["state"] for name in names if name not in left]
        skipped = kept.count("done")
        view.planned(len(todo), skipped, kept.count("failed"))
        try:
            for task, event in _events(todo, journal, execute):
                if event.kind in ("done", "failed"):
                    journal.write(_row(task, event, journal, model))
                made += event.kind == "done"
                failed += event.kind == "failed"
                view.happened(task.job, event)
        finally:
            write_report(journal, names)
    return Summary(
        made, skipped, failed + kept.count("failed"), time.monotonic() - began, journal.report
    )


def _identified(jobs: Sequence[Job], model_sha256: str) -> list[_Task]:
    """The jobs with the sums of their inputs, each file read once."""
    places = sorted({place for job in jobs for place in job_inputs(job).values()})
    with ThreadPoolExecutor(max_workers=8) as pool:
        sums = dict(zip(places, pool.map(sum_of, places), strict=True))
    tasks = []
    for job in jobs:
        own = {key: sums[place] for key, place in job_inputs(job).items()}
        tasks.append(_Task(job, job_key(job, own, model_sha256), own))
    return tasks


def _todo(tasks: Sequence[_Task], journal: Journal, rules: Rules) -> list[_Task]:
    """The tasks to do. Raises UsageError for outputs that are there and not theirs."""
    todo, taken = [], []
    for task in tasks:
        exists, size = size_of(task.job)
        verdict = journal.verdict(task.job, task.key, exists, size)
        if verdict == "done" and not rules.force:
            continue
        if verdict == "failed" and not (rules.force or rules.retry_failed):
            continue
        if not rules.overwrite:
            if verdict == "conflict":
                taken.append(task.job.output)
            elif verdict == "run":
                taken += [str(path) for path in task.job.clip.side_files if path.exists()]
        todo.append(task)
    if taken:
        lines = "".join(f"\n  {place}" for place in taken[:NAMED])
        more = f"\n  and {len(taken) - NAMED} more" if len(taken) > NAMED else ""
        raise UsageError(
            f"{_count(len(taken), 'output')} already there, made from other inputs, options or"
            f" weights, or not by this batch:{lines}{more}",
            hint="pass -y to overwrite, or choose another folder",
        )
    return todo


def _events(
    todo: Sequence[_Task], journal: Journal, execute: Execute
) -> Iterator[tuple[_Task, Event]]:
    """What happens to the tasks. A job is in the journal before anything is done about it."""
    ready = []
    for task in todo:
        if journal.last.get(journal.name(task.job), {}).get("state") == "started":
            remove_partial(task.job.clip.output)  # of a run that was killed
        absent = [place for key, place in job_inputs(task.job).items() if task.sums[key] is None]
        if absent:
            row = {"error": f"there is no file {absent[0]}", "hint": "check the path"}
            yield task, Event("failed", 0, "", {**row, "exit_code": 3, "attempts": 0})
        else:
            ready.append(task)
    running: set[int] = set()
    try:
        with closing(execute([_allowed(task.job) for task in ready])) as events:
            for event in events:
                task = ready[event.task]
                if event.kind == "started":
                    running.add(event.task)
                    journal.started(task.job, task.key)
                    _make_folders(task.job)
                elif event.kind == "retried":
                    remove_partial(task.job.clip.output)
                elif event.kind == "failed":
                    remove_partial(task.job.clip.output)
                    check_space(task.job.output, event)
                    running.discard(event.task)
                elif event.kind == "done":
                    event = _kept(task.job, event)
                    running.discard(event.task)
                yield task, event
    finally:  # the processes have gone
        for index in running:
            remove_partial(ready[index].job.clip.output)


def _allowed(job: Job) -> Job:
    """A job as its process gets it: that its outputs may be replaced is settled."""
    return replace(job, clip=replace(job.clip, overwrite=True))


def _make_folders(job: Job) -> None:
    if "output" not in job.urls:
        for path in (final_path(job.clip.output), *job.clip.side_files):
            path.parent.mkdir(parents=True, exist_ok=True)


def _kept(job: Job, event: Event) -> Event:
    """The event with the output's size, once the output is safe on the disk."""
    if "output" not in job.urls:
        try:
            onto_disk(job.clip.output)
        except FileNotFoundError:
            error = f"{job.output} was made by {event.worker} and cannot be seen from here"
            hint = "give --output a folder that all machines share, or URLs"
            return replace(event, kind="failed", row={"error": error, "hint": hint, "exit_code": 1})
    _, size = size_of(job)
    return replace(event, row={**event.row, "bytes": size})


def _row(task: _Task, event: Event, journal: Journal, model: Mapping[str, str]) -> Row:
    """What the journal and the report say of a job that is over."""
    clip = task.job.clip
    places = {
        key: place if key in task.job.urls else str(Path(place).absolute())
        for key, place in job_inputs(task.job).items()
    }
    return {
        "state": event.kind,
        "output": journal.name(task.job),
        "key": task.key,
        "error": None,
        **places,
        **{f"{key}_sha256": value for key, value in task.sums.items()},
        "options": {key: v for key, v in flat_options(clip).items() if key not in INPUT_FILES},
        "seed": clip.sampler.seed,
        **model,
        "origin": task.job.origin,
        "worker": event.worker,
        **event.row,
    }


def write_report(journal: Journal, names: Iterable[str]) -> None:
    """The last word on each of these outputs, in their order; those without one are left out.

    Raises UsageError where it cannot be written.
    """
    rows = (journal.last.get(name, {}) for name in names)
    over = [row for row in rows if row.get("state") in ("done", "failed")]
    if not over:
        return
    write_rows(journal.report, over)


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
