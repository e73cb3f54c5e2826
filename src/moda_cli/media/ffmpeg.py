"""How ffmpeg is found, given files and understood when it fails."""

import re
from pathlib import Path
from typing import IO

from moda_cli.errors import ModaError, UsageError

STOPPED = 255  # its exit code after a signal


def ffmpeg() -> list[str]:
    """The command and the options of every run. Raises UsageError where there is no ffmpeg."""
    import imageio_ffmpeg

    try:
        return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"]
    except RuntimeError:
        hint = "install ffmpeg, or set IMAGEIO_FFMPEG_EXE to its path"
        raise UsageError("ffmpeg was not found", hint=hint) from None


def file_input(path: Path) -> list[str]:
    """A file named by the user: never an URL, nor a playlist that fetches one."""
    return ["-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]


def check_not_stopped(code: int, name: str) -> None:
    """Raises ModaError where a signal ended it: no fault of the file's, not to be remembered."""
    if code < 0 or code == STOPPED:
        raise ModaError(f"ffmpeg was stopped while it read {name}")


def ends_early(log: IO[bytes]) -> bool:
    """Whether ffmpeg's log says that an MP4 file holds less than its header promises."""
    log.seek(0)
    return b": partial file" in log.read()


def first_error(log: IO[bytes]) -> str:
    """The line of ffmpeg's log that names the cause; the later ones follow from it."""
    log.seek(0)
    lines = (line.strip() for line in log.read().decode(errors="replace").splitlines())
    errors = [line for line in lines if line and not line.startswith(("Svt[", "x265 ["))]
    return re.sub(r"^(\[[^]]*\] ?)+", "", errors[0]) if errors else "ffmpeg failed"
