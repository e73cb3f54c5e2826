"""The progress bar of a command."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Draw(Protocol):
    """Moves a bar; `fields` are texts beside it. A new title starts it anew."""

    def __call__(
        self, done: int, total: int | None, *, title: str | None = None, **fields: str
    ) -> None: ...


@contextmanager
def progress_bar(title: str, *fields: str, shown: bool) -> Iterator[Draw | None]:
    """Draws on stderr; None where it is not to be shown, or not a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in fields),
    )
    console = Console(stderr=True)
    with (
        logged_above(console),
        Progress(*columns, console=console, transient=True) as progress,
    ):
        texts: dict[str, Any] = dict.fromkeys(("count", *fields), "")
        task, now = progress.add_task(title, total=None, **texts), title

        def draw(done: int, total: int | None, *, title: str | None = None, **fields: Any) -> None:
            nonlocal now
            if title and title != now:
                now = title
                progress.reset(task, description=title, total=total, **texts)
            count = f"{done}/{total}" if total else str(done or "")
            progress.update(task, completed=done, total=total, count=count, **fields)

        yield draw


class _Above(logging.Handler):
    """Prints log records above the bars of a console."""

    def __init__(self, console: Any) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(record.getMessage(), markup=False, highlight=False)


@contextmanager
def logged_above(console: Any) -> Iterator[None]:
    """What is logged meanwhile appears above the console's bars."""
    logger = logging.getLogger("moda_cli")
    handlers, logger.handlers = logger.handlers, [_Above(console)]
    try:
        yield
    finally:
        logger.handlers = handlers


class OnPhase(Protocol):
    """What is being done now, and how much of it is done."""

    def __call__(self, phase: str, done: int = 0, total: int | None = None) -> None: ...


@contextmanager
def phases(fps: float, *, shown: bool) -> Iterator[OnPhase]:
    """A callback that names the phase of a clip; of frames drawn it shows speed and RTF as well.

    Speed counts from the first frame on: what came before has other reasons to be slow.
    """
    with progress_bar("starting", "rate", shown=shown) as draw:
        first: tuple[float, int] | None = None

        def show(phase: str, done: int = 0, total: int | None = None) -> None:
            nonlocal first
            if draw is None or (first and phase != "drawing"):  # windows are sampled ahead
                return
            now, rate = time.perf_counter(), ""
            if phase == "drawing" and done:
                first = first or (now, done)
                if done > first[1]:
                    each = (now - first[0]) / (done - first[1])
                    rate = f"{1 / each:.0f} frames/s, RTF {each * fps:.2f}"
            draw(done, total, title=phase, rate=rate)

        yield show
