"""The page as its users have it: a server process of its own."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from input_cases import speech, wav
from served_process import served_process


@dataclass(frozen=True)
class Served:
    """A page that is served."""

    address: str
    folder: Path  # that holds all its server keeps
    began: float  # the monotonic time at which its server was started


@contextmanager
def page_server(folder: Path, *options: str) -> Iterator[Served]:
    """`moda ui` as a process of its own, ended with Ctrl-C."""
    began = time.monotonic()
    environment = {**os.environ, "TMPDIR": str(folder)}
    environment.pop("GRADIO_TEMP_DIR", None)
    arguments = ["ui", "--model", "mini", *options]
    with served_process(arguments, folder, ends_s=20, environment=environment) as (_, address):
        yield Served(address, folder, began)


def short_speech(path: Path, seconds: float = 1.2) -> Path:
    """A file that sounds like speech."""
    path.write_bytes(wav(speech(seconds)))
    return path
