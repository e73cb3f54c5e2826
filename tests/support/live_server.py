"""`moda serve` as its users have it: a process of its own."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from input_cases import EXAMPLES
from served_process import served_process


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
    arguments = ["serve", str(EXAMPLES / "portrait.png"), "--size", "64", *options]
    log = folder / "log"
    with served_process(arguments, folder, ends_s=30, code=code) as (server, address):
        yield LiveServer(address, server, log)
    assert "Traceback" not in log.read_text()
