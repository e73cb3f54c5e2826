"""A command that serves until Ctrl-C, as a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served_process(
    arguments: list[str],
    folder: Path,
    *,
    ends_s: float,
    code: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`moda` in `folder`, and the address it prints; its other words go to `folder/log`.

    Ctrl-C ends it within `ends_s`, with `code`.
    """
    command, log = [sys.executable, "-m", "moda_cli", *arguments], folder / "log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address.startswith("http"), log.read_text()
            yield server, address
        finally:
            server.send_signal(signal.SIGINT)
            try:
                ended = server.wait(ends_s)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
    assert ended == code, log.read_text()
