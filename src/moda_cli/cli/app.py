"""The `moda` application: its error boundary and what every command shares."""

import _thread
import atexit
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CodeType
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from moda_cli import __version__
from moda_cli.cli.command import HELP, Command, Headings
from moda_cli.cli.options import HELPED
from moda_cli.errors import ModaError, UsageError, did_you_mean
from moda_cli.stopwatch import DETAIL

TyperUsageError = typer.BadParameter.__base__  # Typer brings its own copy of Click
INTERRUPTED, READER_GONE, TERMINATED = 130, 141, 143  # 128 and the signal, as in a shell
AGAIN_S = 0.01  # between looks whether a dropped interrupt can come again
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EBADF)
CLOSED = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR)


COMMANDS = (
    "generate",
    "ui",
    "serve",
    "info",
    "doctor",
    "download",
    "eval",
    "extract",
    "train",
    "help",
)


class ErrorBoundary(Headings, TyperGroup):
    """Turns every error a user can act on into one or two plain lines and an exit code.

    Under --json also into one object on standard output.
    """

    as_json = False

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Raises UsageError for a command that is not there."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], self.commands, "`moda --help` lists the commands")
            raise UsageError(f"there is no command {args[0]}", hint=hint)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are met."""
        return sorted(self.commands, key=COMMANDS.index)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands first."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        self.as_json = "--json" in (kwargs.get("args") or (args and args[0]) or sys.argv[1:])
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # cleans up on its way
        standalone = kwargs.pop("standalone_mode", True)
        kwargs["standalone_mode"] = False
        try:
            _reopen_streams()
            with _stubborn_interrupts():
                code = super().main(*args, **kwargs)
            if code == INTERRUPTED:  # Typer has caught it
                self._report(_interrupted())
        except ModaError as error:
            code = self._report(error)
        except TyperUsageError as error:  # type: ignore[misc]
            code = self._report(_in_our_words(error))
        except (KeyboardInterrupt, typer.Abort) as error:
            code = self._report(_interrupted(error))
        except OSError as error:
            if error.errno not in (*FULL, *CLOSED):
                raise
            what = "use"
            if error.errno in FULL:
                what, self.as_json = "write", False  # there is nowhere to print it
                _drop_output()
            message = f"cannot {what} {error.filename or 'the output'}: {error.strerror}"
            code = self._report(UsageError(message))
        except SystemExit as error:
            if error.code != 1:
                raise
            code = READER_GONE  # Typer and rich have caught it, and leave with 1
        if standalone:
            _leave(code if isinstance(code, int) else 0)
        return code

    def _report(self, error: ModaError) -> int:
        with suppress(OSError):  # of a closed pipe: the code says it all
            typer.echo(f"error: {error}", err=True)
            if error.hint:
                typer.echo(f"hint: {error.hint}", err=True)
            if self.as_json:
                told = {"code": error.exit_code, "kind": error.kind, "message": str(error)}
                typer.echo(json.dumps({"error": {**told, "hint": error.hint}}))
        if logging.getLogger("moda_cli").isEnabledFor(logging.DEBUG):
            traceback.print_exception(error.__cause__ or error, file=sys.stderr)
        return error.exit_code


def _interrupted(cause: BaseException | None = None) -> ModaError:
    error = ModaError("interrupted")
    error.exit_code, error.kind, error.__cause__ = INTERRUPTED, "interrupted", cause
    return error


def _in_our_words(error: Any) -> UsageError:
    """What Typer finds wrong with a command line."""
    context: Any = getattr(error, "ctx", None)
    hint = f"see `{context.command_path if context else 'moda'} --help`"
    kind, option = type(error).__name__, getattr(error, "option_name", "")
    name = error.param.opts[0] if getattr(error, "param", None) else ""
    if kind == "NoSuchOption":
        known = [n for p in context.command.params for n in (*p.opts, *p.secondary_opts)]
        message, hint = f"there is no option {option}", did_you_mean(option, known, hint)
    elif kind == "BadOptionUsage":
        takes_none = "does not take" in error.message
        message = f"{option} takes no value" if takes_none else f"{option} needs a value"
    elif kind == "MissingParameter":
        message = f"{name if name.startswith('-') else name.upper()} is missing"
    else:
        message = error.format_message()
    said = UsageError(message, hint=hint)
    said.__cause__ = error
    return said


def _leave(code: int) -> NoReturn:
    """Ends this process; one of torchrun's skips the last steps of Python.

    In them Gloo's threads live on, and one that is late in freeing a tensor aborts the process.
    """
    if "LOCAL_RANK" in os.environ:
        atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextmanager
def _stubborn_interrupts() -> Iterator[None]:
    """A Ctrl-C that comes where Python drops exceptions, such as in a finaliser, comes again.

    Not while the main thread is still in the hook that hears of it, which drops exceptions too.
    """
    usual = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            threading.Thread(target=interrupt, daemon=True).start()
        else:
            usual(dropped)

    def interrupt() -> None:
        while again.__code__ in _codes_of_main_thread():
            time.sleep(AGAIN_S)
        if hasattr(signal, "pthread_kill"):  # it wakes a main thread that waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            _thread.interrupt_main()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _codes_of_main_thread() -> Iterator[CodeType]:
    """What runs there now, innermost first."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame:
        yield frame.f_code
        frame = frame.f_back


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


F = TypeVar("F", bound=Callable[..., Any])


class Moda(typer.Typer):
    """The application, whose commands are all of one kind."""

    def command(self, name: str | None = None, **given: Any) -> Callable[[F], F]:
        """As Typer's."""
        return super().command(name, cls=Command, **given)


FIRST_STEPS = """
First steps:
  moda generate --open                       the example clip, made and played
  moda generate me.png speech.wav --open     your own
  moda doctor                                what this machine can do
  moda --install-completion                  the shell completes options and values
"""

app = Moda(
    cls=ErrorBoundary,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP,
    epilog=FIRST_STEPS,
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


Command_ = Annotated[str, HELPED.argument("COMMAND", "Whose help.", values=COMMANDS)]


@app.command(name="help")
def help_(context: typer.Context, command: Command_ = "") -> None:
    """Show the help of a command."""
    root = context.find_root()
    group: Any = root.command
    if not command:
        typer.echo(root.get_help())
        return
    _, found, _ = group.resolve_command(root, [command])
    found.make_context(command, ["--help"], parent=root)


def start_logging(quiet: bool, verbose: int) -> None:
    level = logging.ERROR if quiet else (logging.INFO, DETAIL, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("moda_cli")
    logger.handlers = [handler]
    logger.setLevel(level)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # what is wrong with a file we say ourselves


def let_threads_sleep() -> None:
    """Have torch's threads sleep while they wait for each other; torch is not yet imported.

    Where they spin they take the cores from whoever needs them: on two busy ones a search for faces
    alone took 12 s in place of 0.1 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
