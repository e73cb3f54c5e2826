"""The journal of a batch: what was started and what came of it, beside the outputs.

One JSON object a line, on the disk before the work it announces begins; the last line may be torn
by a crash and is then ignored. Each shard of a batch appends to a journal of its own and reads all.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from moda_cli.config import INPUT_FILES
from moda_cli.control.timeline_file import named_motion
from moda_cli.errors import FREE_SPACE, UsageError
from moda_cli.files import Row, leftovers, sha256_of_json, to_disk, whole_rows
from moda_cli.jobs.clip_list import Job, Shard
from moda_cli.jobs.options import flat_options
from moda_cli.media import final_path

NAME = ".moda-journal"

Verdict = Literal["run", "again", "done", "failed", "conflict"]


def job_inputs(job: Job) -> dict[str, str]:
    """Path or URL of each file a job reads, by field; those that its timeline names among them."""
    named = {name: getattr(job.clip, name) for name in INPUT_FILES}
    if job.clip.timeline:
        motions = named_motion(job.clip.timeline)
        named |= {f"timeline_motion_{k}": path for k, path in enumerate(motions, start=1)}
    return {key: job.urls.get(key, str(path)) for key, path in named.items() if path is not None}


def job_key(job: Job, sums: Mapping[str, str | None], model: str) -> str:
    """sha256 of what decides the clip: its inputs' sums, its options and the model's hash."""
    options = {key: v for key, v in flat_options(job.clip).items() if key not in INPUT_FILES}
    return sha256_of_json([dict(sums), options, model])


class Journal:
    """The journals in a folder, by output, and the one this shard appends to."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        """Raises UsageError where another run holds the journal or it cannot be written."""
        from filelock import FileLock, Timeout

        self.folder = folder
        suffix = "" if shard.count == 1 else f".{shard}"
        self.path = folder / f"{NAME}{suffix}.jsonl"
        self.report = folder / f"report{suffix}.jsonl"
        self._guard = folder / f"{NAME}{suffix}.lock"
        self._file: IO[bytes] | None = None
        try:
            self._made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._guard)
            self._lock.acquire(timeout=0)
        except Timeout:
            hint = "wait for it or end it; --shard gives each run its own share"
            raise UsageError(f"another run is making clips in {folder}", hint=hint) from None
        except OSError as error:
            raise _unwritable(folder, error) from None
        rows = [row for path in folder.glob(f"{NAME}*.jsonl") for row in read_journal(path)]
        self.last = {row["output"]: row for row in sorted(rows, key=lambda row: row["at"])}
        self._at = max((row["at"] for row in rows), default=0.0)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk: `_append` has said so
                self._file.close()
        self._lock.release()
        if self._made and self._file is None and not self.report.exists():
            self._guard.unlink(missing_ok=True)  # refused: nothing is left behind
            self.folder.rmdir()

    def name(self, job: Job) -> str:
        """How the journal calls a job's output: relative to the folder where it is inside."""
        if "output" in job.urls:
            return job.urls["output"]
        path, folder = Path(os.path.abspath(job.output)), Path(os.path.abspath(self.folder))
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    def verdict(self, job: Job, key: str, exists: bool, size: int | None) -> Verdict:
        """What to do about a job whose output is there or not, `size` bytes long if a file.

        `again` is a run that may replace the output: it is the job's own, from a run cut short.
        """
        entry = self.last.get(self.name(job), {})
        if entry.get("key") != key:
            return "conflict" if exists else "run"
        if entry["state"] == "failed":
            return "failed"
        if entry["state"] == "done" and exists and entry.get("bytes") in (size, None):
            return "done"
        return "again" if exists else "run"

    def started(self, job: Job, key: str) -> None:
        self.write({"state": "started", "output": self.name(job), "key": key})

    def write(self, row: Row) -> None:
        """Append a row and see it onto the disk. Raises UsageError where that fails."""
        self._at = max(self._at, time.time())  # the last line is the last word, if the clock jumps
        row = {**row, "at": self._at}
        self._append(json.dumps(row, default=str).encode() + b"\n")
        self.last[row["output"]] = row

    def _append(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = self.path.open("ab+")
                if self._file.tell():
                    self._file.seek(-1, os.SEEK_END)
                    data = data if self._file.read() == b"\n" else b"\n" + data  # after a torn line
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self.path, error) from None


def read_journal(path: Path) -> list[Row]:
    """The whole rows of a journal; what others wrote into it counts for nothing."""
    kinds: dict[str, Any] = {"output": str, "key": str, "state": str, "at": (int, float)}
    return [
        row
        for row in whole_rows(path)
        if all(isinstance(row.get(name), kind) for name, kind in kinds.items())
    ]


def remove_partial(output: Path) -> None:
    """Delete what a killed process left beside an output under a temporary name."""
    place = final_path(output)
    for folder in (place.parent, place):  # pictures of a folder that is there are made in it
        for path in leftovers(folder / place.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def onto_disk(output: Path) -> None:
    """Have a finished file and its name survive a power cut."""
    place = final_path(output)
    for path in (*([place] if place.is_file() else place.iterdir()), place.parent):
        to_disk(path)


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {path}: {error.strerror}", hint=FREE_SPACE)
