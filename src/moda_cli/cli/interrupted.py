"""What a long command says when it is interrupted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

OnCount = Callable[[int, int], None]  # done, of how many


@contextmanager
def count_kept(what: str, shown: bool) -> Iterator[OnCount]:
    """A callback that counts what is finished; said on Ctrl-C and SIGTERM, since it is kept."""
    counted = [0, 0]

    def on_count(done: int, total: int) -> None:
        counted[:] = done, total

    try:
        yield on_count
    except (KeyboardInterrupt, SystemExit):
        if shown:
            done, total = counted
            said = (
                f"{done} of {total} {what} are done and kept" if total else "what is done is kept"
            )
            typer.echo(f"{said}; the same command goes on", err=True)
        raise
