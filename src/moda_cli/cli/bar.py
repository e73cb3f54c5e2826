"""The progress bar of a command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Draw(Protocol):
    """Moves a bar; `fields` are texts beside it."""

    def __call__(self, done: int, total: int | None, **fields: str) -> None: ...


@contextmanager
def progress_bar(title: str, *fields: str, shown: bool) -> Iterator[Draw | None]:
    """Draws on stderr; None where it is not to be shown, or not a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in fields),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        texts: dict[str, Any] = dict.fromkeys(fields, "")
        task = progress.add_task("", total=None, **texts)

        def draw(done: int, total: int | None, **fields: Any) -> None:
            progress.update(task, completed=done, total=total, **fields)

        yield draw
