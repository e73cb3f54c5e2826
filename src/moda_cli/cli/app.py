"""The `moda` application: its error boundary and what every command shares."""

import _thread
import errno
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moda_cli import __version__
from moda_cli.errors import ModaError, UsageError

TyperUsageError = typer.BadParameter.__base__  # Typer brings its own copy of Click
INTERRUPTED, READER_GONE, TERMINATED = 130, 141, 143  # 128 and the signal, as in a shell
AGAIN_S = 0.01  # until an interrupt that was dropped comes again
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EBADF)


class ErrorBoundary(TyperGroup):
    """Turns every error a user can act on into one or two plain lines and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # cleans up on its way
        standalone = kwargs.pop("standalone_mode", True)
        kwargs["standalone_mode"] = False
        try:
            _reopen_streams()
            with _stubborn_interrupts():
                code = super().main(*args, **kwargs)
            if code == INTERRUPTED:  # Typer has caught it
                typer.echo("error: interrupted", err=True)
        except ModaError as error:
            code = _report(str(error), error.hint, error.exit_code, error)
        except TyperUsageError as error:  # type: ignore[misc]
            command = error.ctx.command_path if getattr(error, "ctx", None) else "moda"
            code = _report(error.format_message(), f"see `{command} --help`", 2, error)
        except (KeyboardInterrupt, typer.Abort) as error:
            code = _report("interrupted", "", INTERRUPTED, error)
        except OSError as error:
            if error.errno not in FULL:
                raise
            _drop_output()
            message = f"cannot write {error.filename or 'the output'}: {error.strerror}"
            code = _report(message, "", UsageError.exit_code, error)
        except SystemExit as error:
            if error.code != 1:
                raise
            code = READER_GONE  # Typer and rich have caught it, and leave with 1
        if standalone:
            sys.exit(code if isinstance(code, int) else 0)
        return code


@contextmanager
def _stubborn_interrupts() -> Iterator[None]:
    """A Ctrl-C that comes where Python drops exceptions, such as in a finaliser, comes again."""
    usual = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            threading.Timer(AGAIN_S, _thread.interrupt_main).start()
        else:
            usual(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _reopen_streams() -> None:
    """Standard streams that are closed lead nowhere: no file may be opened under their numbers.

    Raises UsageError without an output.
    """
    no_output = sys.stdout is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is taken
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if no_output:
        raise UsageError("standard output is closed", hint="send it to /dev/null instead")


def _drop_output() -> None:
    """What is left in the buffer would be tried again, and complained of, at Python's end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(message: str, hint: str, code: int, error: BaseException) -> int:
    with suppress(OSError):  # of a closed pipe: the code says it all
        typer.echo(f"error: {message}", err=True)
        if hint:
            typer.echo(f"hint: {hint}", err=True)
    if logging.getLogger("moda_cli").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    return code


app = typer.Typer(
    cls=ErrorBoundary,
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"moda {__version__}")
        raise typer.Exit


@app.callback()
def moda(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One portrait and one speech recording in, a talking-head video out."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Twice: show tracebacks.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def start_logging(quiet: bool, verbose: int) -> None:
    level = logging.ERROR if quiet else (logging.INFO, logging.DEBUG)[min(verbose, 2) // 2]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("moda_cli")
    logger.handlers = [handler]
    logger.setLevel(level)
