"""Files that appear whole or not at all, their sums, and JSON lines."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moda_cli.errors import FREE_SPACE, ModaError, UsageError, is_disk_full

Row = dict[str, Any]  # one JSON object of a file of lines


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder, which no other run chooses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, moved onto it when the block ends well and removed otherwise.

    Raises UsageError where nothing can be written.
    """
    temporary = temporary_beside(path)
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
    except OSError as error:
        hint = "choose a folder that exists and is yours to write"
        raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from None
    try:
        yield temporary
        try:
            temporary.chmod(mode)  # safetensors' own files are the user's alone
            temporary.replace(path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
    except Exception as error:  # SafetensorError is none of the operating system's
        if isinstance(error, ModaError) or not is_disk_full(error):
            raise
        raise UsageError(f"cannot write {path}: {error}", hint=FREE_SPACE) from None
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The sum of a file's bytes, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: object) -> str:
    """The sum of plain data, the same for equal data in any order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
    return [json.loads(line) for line in lines if line]


def whole_rows(path: Path) -> list[Row]:
    """The objects of those lines that are whole, as a killed run may have left half of one."""
    rows = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
