"""The page as its users have it: a server process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from input_cases import speech, wav


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
    command = [sys.executable, "-m", "moda_cli", "ui", "--model", "mini", *options]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address.startswith("http"), (folder / "log").read_text()
            yield Served(address, folder, began)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                code = server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
    assert code == 0, (folder / "log").read_text()


def short_speech(path: Path, seconds: float = 1.2) -> Path:
    """A file that sounds like speech."""
    path.write_bytes(wav(speech(seconds)))
    return path
