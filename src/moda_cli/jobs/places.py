"""Where a job's files are: on this machine's file systems, or behind an URL that fsspec knows."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from moda_cli.config import ClipConfig
from moda_cli.errors import InputError, ModaError, UsageError
from moda_cli.files import sha256_of
from moda_cli.jobs.clip_list import URL, Job
from moda_cli.media import final_path


def sum_of(place: str) -> str | None:
    """sha256 of a file, or of what an URL's store says of its version; None if it is not there."""
    if not URL.match(place):
        try:
            return sha256_of(Path(place))
        except OSError:
            return None
    with _store(place) as (store, path):
        if not store.exists(path):
            return None
        return hashlib.sha256(str(store.ukey(path)).encode()).hexdigest()


def size_of(job: Job) -> tuple[bool, int | None]:
    """Whether a job's output is there, and its bytes if it is one file."""
    if "output" in job.urls:
        with _store(job.urls["output"]) as (store, path):
            return (True, store.size(path)) if store.exists(path) else (False, None)
    place = final_path(job.clip.output)
    return place.exists(), place.stat().st_size if place.is_file() else None


@contextmanager
def local_files(job: Job) -> Iterator[ClipConfig]:
    """The job's clip with its files on this machine; an output with an URL is sent off at the end.

    Raises InputError or UsageError for what cannot be fetched or sent.
    """
    if not job.urls:
        yield job.clip
        return
    with tempfile.TemporaryDirectory() as name:
        files = {}
        for field, url in job.urls.items():
            files[field] = Path(name) / field / getattr(job.clip, field).name
            files[field].parent.mkdir()
            if field != "output":
                _copy(url, "rb", files[field], InputError)
        yield replace(job.clip, **files)
        if "output" in files:
            _copy(job.urls["output"], "wb", files["output"], UsageError)


def _copy(url: str, mode: str, file: Path, error: type[ModaError]) -> None:
    with _store(url) as (store, path):
        try:
            with store.open(path, mode) as there, file.open("rb" if mode == "wb" else "wb") as here:
                source, target = (here, there) if mode == "wb" else (there, here)
                shutil.copyfileobj(source, target)
        except FileNotFoundError:
            raise error(f"there is no file {url}", hint="check the address") from None
        except OSError as fault:
            raise error(f"cannot {'write' if mode == 'wb' else 'read'} {url}: {fault}") from None


@contextmanager
def _store(url: str) -> Iterator[tuple[Any, str]]:
    """The file system behind an URL and the path in it. Raises UsageError without its package."""
    import fsspec

    try:
        yield fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot reach {url}: {error}", hint="see fsspec's protocols") from None
