"""One writer for a folder at a time."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moda_cli.errors import UsageError

log = logging.getLogger(__name__)

LOCK, OWNER = ".lock", ".owner"  # the latter says who holds the former


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The folder, made where it is not there, is this process's to write until the block ends.

    The lock of a process that died is free: the system holds it, not a file's being there. Raises
    UsageError with the number of the process that has the folder, or where it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock, made = FileLock(folder / LOCK), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(folder) from None
    except NotImplementedError:  # such as Lustre mounted without flock
        log.warning("%s: its file system has no locks; let one process at a time write it", folder)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        with suppress(OSError):  # of a full disk, which what is written next will tell
            (folder / OWNER).write_text(f"{os.getpid()} {platform.node()}")
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        if made and {path.name for path in folder.iterdir()} <= {LOCK}:
            (folder / LOCK).unlink(missing_ok=True)  # nothing was written: nothing is left behind
            folder.rmdir()
        lock.release()


def _taken(folder: Path) -> UsageError:
    try:
        number, node = (folder / OWNER).read_text().split(maxsplit=1)
    except (OSError, ValueError):
        who = "another process"
    else:
        who = f"process {number}" + (f" on {node}" if node != platform.node() else "")
    return UsageError(f"{folder} is being written by {who}", hint="wait for it or end it")
