"""Standard streams that are closed, full or no longer read: a plain line and an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moda_cli.media import write_video
from moda_cli.media.pictures import read_image

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")


def moda(arguments: str, redirected: str = "") -> subprocess.CompletedProcess[str]:
    """The command, run by a shell that redirects its streams."""
    command = f"exec {sys.executable} -m moda_cli {arguments} {redirected}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "redirected", "code", "message"),
    [
        ("--version", ">&-", 2, "standard output is closed"),
        ("--version", ">/dev/full", 2, "cannot write the output: No space left on device"),
        ("download --list", ">/dev/full", 2, "cannot write the output: No space left on device"),
        ("--help", "1</dev/null", 2, "cannot write the output: Bad file descriptor"),
        (f"generate {EXAMPLES}/portrait.png - -o no.mp4", "<&-", 3, "standard input is empty"),
    ],
)
def test_streams_that_cannot_be_used(
    arguments: str, redirected: str, code: int, message: str
) -> None:
    done = moda(arguments, redirected)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("model ")]
    assert (done.returncode, lines[0]) == (code, f"error: {message}")
    assert len(lines) <= 2
    assert not Path("no.mp4").exists()


def test_without_stderr_the_code_tells_and_nothing_lands_in_a_file(tmp_path: Path) -> None:
    done = moda(f"generate {tmp_path}/a.png {tmp_path}/a.wav -o {tmp_path}/a.mp4", "2>&- <&-")
    assert (done.returncode, done.stdout) == (3, "")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone_ends_the_command_quietly(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    still = [read_image(EXAMPLES / "portrait.png")] * 5
    write_video(still, tmp_path / "made" / "a.mp4", 25)
    environment = {**os.environ, "MODA_CACHE": str(tmp_path / "cache")}
    for arguments in (["--help"], ["eval", "made"]):  # echoed, and drawn by rich
        readable, writable = os.pipe()
        os.close(readable)
        command = [sys.executable, "-m", "moda_cli", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=writable, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        os.close(writable)
        assert done.returncode == 141, done.stderr
        rows = [line for line in done.stderr.splitlines() if not line.startswith("left out: ")]
        assert rows == []
