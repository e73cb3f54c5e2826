"""Files that appear whole or not at all, their sums, and JSON lines."""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moda_cli.config import PICTURES, SOUNDS, VIDEOS
from moda_cli.errors import (
    FREE_SPACE,
    InputError,
    ModaError,
    UsageError,
    did_you_mean,
    is_disk_full,
)

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NAME_BYTES = 240  # of a name, so that the temporary one beside it is no longer than 255
Row = dict[str, Any]  # one JSON object of a file of lines
T = TypeVar("T", bound="DataclassInstance")


def check_is_file(path: Path, name: str = "", *, largest: float = math.inf) -> None:
    """Raises InputError for what has no bytes, or no end of them; `name` is what the user gave."""
    name = name or str(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise no_file(path) from None
    except (OSError, ValueError) as error:  # a name too long, a folder that may not be entered
        raise InputError(f"cannot read {name}: {getattr(error, 'strerror', error)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{name} is a folder, not a file", hint="give a file in it")
    if not stat.S_ISREG(found.st_mode):
        hint = "save what it gives to a file first"
        raise InputError(f"{name} is a pipe or a device, not a file", hint=hint)
    if found.st_size > largest:
        megabytes = f"{found.st_size / 1e6:.0f} MB of at most {largest / 1e6:.0f}"
        raise InputError(f"{name} is too large: {megabytes}")


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder, which no other run chooses."""
    return path.with_name(f".{_shortened(path.name)}.{secrets.token_hex(4)}.part")


def _shortened(name: str) -> str:
    return name.encode()[:NAME_BYTES].decode(errors="ignore")


def leftovers(path: Path) -> Iterator[Path]:
    """What lies beside a file, or a folder, under its temporary names."""
    name = re.sub(r"([*?[])", r"[\1]", _shortened(path.name))
    return path.parent.glob(f".{name}.????????.part")


def remove_abandoned(path: Path) -> None:
    """Delete what killed processes left beside a file under temporary names: nobody holds it.

    Where the system does not lock files, nothing is deleted.
    """
    for left in leftovers(path) if fcntl else ():
        with suppress(OSError):  # BlockingIOError: its process is at work
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def held_beside(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A temporary file or folder beside `path`, this process's until the block ends; then it goes.

    Another run that clears away what nobody holds may come between its making and its lock: then
    there is another one. Raises what `make` raises.
    """
    while True:
        temporary = temporary_beside(path)
        make(temporary)
        with ExitStack() as stack:
            stack.callback(_remove, temporary)
            if fcntl:
                with suppress(OSError):  # a file system without locks
                    descriptor = os.open(temporary, os.O_RDONLY)
                    stack.callback(os.close, descriptor)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            if temporary.exists():
                yield temporary
                return


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary name beside `path`, moved onto it when the block ends well and removed otherwise.

    What it holds is on the disk before the name is: a power cut leaves the old file or the new one,
    never half of it. Raises UsageError where nothing can be written, or without `overwrite` where
    another run has written the file meanwhile.
    """
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(held_beside(path, Path.touch))
            mode = temporary.stat().st_mode
        except OSError as error:
            hint = "choose a folder that exists and is yours to write"
            raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from None
        try:
            yield temporary
            _rename(temporary, path, mode, overwrite)
        except Exception as error:  # SafetensorError is none of the operating system's
            if isinstance(error, ModaError) or not is_disk_full(error):
                raise
            raise UsageError(f"cannot write {path}: {error}", hint=FREE_SPACE) from None


def _rename(temporary: Path, path: Path, mode: int, overwrite: bool) -> None:
    """Give a finished file its name. Raises UsageError as `atomic_write`."""
    try:
        temporary.chmod(mode)  # safetensors' own files are the user's alone
        to_disk(temporary)
        if overwrite or not _linked(temporary, path):
            temporary.replace(path)
    except FileExistsError:
        hint = "give each its own --output, or pass -y"
        raise UsageError(f"another run has written {path} meanwhile", hint=hint) from None
    except OSError as error:
        hint = FREE_SPACE if is_disk_full(error) else ""
        raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from None
    with suppress(OSError):  # some network file systems have no such thing for folders
        to_disk(path.parent)


@contextmanager
def one_at_a_time(path: Path, key: str) -> Iterator[None]:
    """Processes with the same key wait for each other; whoever dies lets the next one on.

    path: the lock file that they share, each key a byte of it. Where it cannot be written, or the
    system does not lock, nobody waits: for work that may be done twice, but need not.
    """
    with ExitStack() as stack:
        if fcntl:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("ab"))
                byte = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4])
                fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
        yield


def with_absolute_paths(row: T, but: Collection[str] = ()) -> T:
    """A dataclass whose paths another process or machine finds, except in the fields `but`."""
    places = {
        field.name: path.absolute()
        for field in fields(row)
        if field.name not in but and isinstance(path := getattr(row, field.name), Path)
    }
    return replace(row, **places)


def _linked(temporary: Path, path: Path) -> bool:
    """Give a file a second name that is free; False where the file system has no links.

    Raises FileExistsError.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError from None
        return False
    return True


def to_disk(path: Path) -> None:
    """Have a file's content, or a folder's names, survive a power cut. Raises OSError."""
    if os.name == "nt" and path.is_dir():
        return  # Windows keeps directories itself
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The sum of a file's bytes, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object) -> str:
    """The sum of plain data, the same for equal data in any order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also where it is nested too deeply to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError, also where they are nested too deeply."""
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all. Raises UsageError."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one JSON object as a line. Raises OSError."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[Row]:
    """The objects of a file of JSON lines. Raises OSError, ValueError for a damaged line."""
    lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other line ends
    return [parse_json(line) for line in lines if line]


def whole_rows(path: Path) -> list[Row]:
    """The objects of those lines that are whole, as a killed run may have left half of one."""
    rows = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def shipped(in_package: str, in_checkout: str) -> Path:
    """A file that comes with the package, or lies beside its sources in a checkout."""
    package = Path(__file__).parent
    installed = package / in_package
    return installed if installed.exists() else package.parents[1] / in_checkout


def example(name: str) -> Path:
    """One of the two files of the example: portrait.png or speech.wav."""
    return shipped(f"assets/example/{name}", f"examples/{name}")


def free_name(path: Path) -> Path:
    """The path, or where that is taken `name_2`, `name_3` and so on."""
    numbered = (path.with_stem(f"{path.stem}_{number}") for number in count(2))
    return next(name for name in chain([path], numbered) if not name.exists())


def check_inputs(portrait: Path, audio: Path) -> None:
    """Refuse, before anything is loaded, names that are no files and those in the wrong order.

    Raises InputError, or UsageError where the names are told to be swapped by their endings.
    """
    if portrait.suffix.lower() in (*SOUNDS, *VIDEOS) and audio.suffix.lower() in PICTURES:
        hint = f"the portrait comes first: moda generate {audio} {portrait}"
        raise UsageError(f"{portrait} is no portrait and {audio} no sound", hint=hint)
    for path in (portrait, audio):
        with suppress(OSError):  # a name too long, a folder that may not be entered
            if str(path) != "-" and not path.exists():
                raise no_file(path)


def is_url(path: Path) -> bool:
    """Whether a path is an address; pathlib takes one of its slashes away."""
    return bool(re.match(r"[a-z][a-z0-9+.-]+:/", str(path)))


def no_file(path: Path) -> InputError:
    """Why there is nothing at a path that was named as an input, and what may have been meant."""
    if is_url(path):
        address = re.sub(r":/+", "://", str(path), count=1)
        hint = f"fetch it first, as with: curl -LO {address}"
        return InputError(f"{address} is an address, not a file", hint=hint)
    if not path.suffix and " " in path.name:
        hint = "a text-to-speech program makes sound of it: espeak-ng -w speech.wav 'Hello there'"
        return InputError(f"there is no file {path}; it reads like text", hint=hint)
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside) or "check the path"
    return InputError(f"there is no file {path}", hint=hint)
