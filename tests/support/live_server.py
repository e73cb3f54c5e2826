"""`moda serve` as its users have it: a process of its own."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from input_cases import EXAMPLES


@dataclass(frozen=True)
class LiveServer:
    """A face that is served."""

    address: str  # of the page, with the token
    process: subprocess.Popen[str]
    log: Path

    @property
    def url(self) -> str:
        """Without the token."""
        return re.sub(r"\?.*", "", self.address)


@contextmanager
def live_server(folder: Path, *options: str, code: int = 0) -> Iterator[LiveServer]:
    """The example's portrait at 64 pixels, ended with Ctrl-C; it exits with `code`."""
    portrait = str(EXAMPLES / "portrait.png")
    command = [sys.executable, "-m", "moda_cli", "serve", portrait, "--size", "64", *options]
    log = folder / "log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address.startswith("http"), log.read_text()
            yield LiveServer(address, server, log)
        finally:
            server.send_signal(signal.SIGINT)
            try:
                ended = server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
    assert ended == code, log.read_text()
    assert "Traceback" not in log.read_text()
