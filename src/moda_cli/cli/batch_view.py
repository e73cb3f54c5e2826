"""A batch on the terminal: bars and failures on stderr while it runs, a table at its end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from moda_cli.cli.bar import logged_above

if TYPE_CHECKING:
    from moda_cli.jobs.batch import Summary
    from moda_cli.jobs.clip_list import Job
    from moda_cli.jobs.processes import Event

SHOWN = 20  # failures in the final table


def failure(job: "Job", event: "Event") -> str:
    hint = event.row.get("hint")
    return f"failed: {job.origin}: {event.row['error']}" + (f" ({hint})" if hint else "")


class Plain:
    """What a log file wants: the paths made on stdout, a line for each failure on stderr."""

    def __init__(self, quiet: bool, paths: bool) -> None:
        self.quiet, self.paths = quiet, paths
        self.failures: list[tuple[str, str]] = []
        self.total = self.done = 0

    def planned(self, todo: int, skipped: int, failed: int) -> None:
        self.total, self.done = todo + skipped + failed, skipped
        if skipped or failed:
            again = "; --retry-failed tries them again" if failed else ""
            self.say(f"{skipped} finished before, {failed} failed before{again}; {todo} to do")

    def happened(self, job: "Job", event: "Event") -> None:
        self.done += event.kind == "done"
        if event.kind == "done" and self.paths:
            typer.echo(job.output)
        elif event.kind == "failed":
            self.failures.append((job.origin, event.row["error"]))
            typer.echo(failure(job, event), err=True)
        elif event.kind == "retried":
            self.say(f"trying again: {job.origin}: {event.row['error']}")

    def say(self, text: str) -> None:
        if not self.quiet:
            typer.echo(text, err=True)

    def interrupted(self) -> None:
        if self.total:
            self.say(f"{self.done} of {self.total} clips are done; the same command goes on")

    def ended(self, summary: "Summary") -> None:
        self.say(outcome(summary))


class Live(Plain):
    """An overall bar, a line for each worker, and failures above them as they come."""

    def __init__(self, console: Any, progress: Any) -> None:
        super().__init__(quiet=False, paths=False)
        self.console, self.progress = console, progress
        self.overall = progress.add_task("all", total=None, note="")
        self.lines: dict[str, Any] = {}
        self.at: dict[str, str] = {}  # what each worker is making

    def planned(self, todo: int, skipped: int, failed: int) -> None:
        super().planned(todo, skipped, failed)
        self.progress.update(self.overall, total=todo)

    def happened(self, job: "Job", event: "Event") -> None:
        if event.worker and event.worker not in self.lines:
            self.lines[event.worker] = self.progress.add_task(event.worker, total=None, note="")
        line = self.lines.get(event.worker)
        at_work = event.kind in ("started", "progress")
        if at_work and self.at.get(event.worker) != job.output:  # groups start all at once
            self.at[event.worker] = job.output
            self.progress.reset(line, total=None, note=job.output)
        if event.kind == "progress":
            self.progress.update(line, completed=event.row["done"], total=event.row["total"])
        elif event.kind == "retried":
            self.console.print(f"trying again: {job.origin}: {event.row['error']}", markup=False)
        elif event.kind in ("done", "failed"):
            if event.kind == "failed":
                self.failures.append((job.origin, event.row["error"]))
                self.console.print(failure(job, event), markup=False)
            elif self.paths:
                typer.echo(job.output)
            self.done += event.kind == "done"
            note = f"{self.done} done, {len(self.failures)} failed"
            self.progress.update(self.overall, advance=1, note=note)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def ended(self, summary: "Summary") -> None:
        from rich.table import Table

        table = Table("made", "finished before", "failed", "time", "report")
        clock = time.strftime("%H:%M:%S", time.gmtime(summary.seconds))
        numbers = map(str, (summary.made, summary.skipped, summary.failed))
        table.add_row(*numbers, clock, str(summary.report))
        self.console.print(table)
        if self.failures:
            faults = Table("failed", "why")
            for origin, error in self.failures[:SHOWN]:
                faults.add_row(origin, error)
            if len(self.failures) > SHOWN:
                faults.add_row(f"and {len(self.failures) - SHOWN} more", "see the report")
            self.console.print(faults)


@contextmanager
def batch_view(*, quiet: bool, paths: bool) -> Iterator[Plain]:
    """A view of a batch: live where stderr is a terminal. paths: print what is made on stdout."""
    if quiet or not sys.stderr.isatty():
        yield Plain(quiet, paths and not quiet)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with (
        logged_above(console),
        Progress(*columns, console=console, transient=True) as progress,
    ):
        view = Live(console, progress)
        view.paths = paths and not sys.stdout.isatty()
        yield view


def outcome(summary: "Summary") -> str:
    """One line on how a batch ended."""
    return (
        f"{summary.made} made, {summary.skipped} finished before, {summary.failed} failed"
        f" in {summary.seconds:.0f} s; {summary.report}"
    )
