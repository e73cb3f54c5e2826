"""How ffmpeg is found, given files, read from and understood when it fails."""

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from moda_cli.errors import InputError, ModaError, UsageError
from moda_cli.files import check_is_file

STOPPED = 255  # its exit code after a signal, and where the system forbids a file
TEXT = bytes({*range(32, 127), *b"\t\r\n"})
STALL_S = 60.0  # without a byte: some files make a decoder wait for ever
SPARSEST_BPS = 100  # of a file: fewer bits a second, and a picture or silence would last for hours
STALL_HINT = "play it to its end, or convert it: ffmpeg -i FILE -c:v libx264 -c:a aac NEW.mp4"

# Beside what is decoded, both tracks are read: to ffmpeg an MPEG stream begins with the first stamp
# of the tracks in use, so that alone each would count from its own.
BOTH_TRACKS = ["-map", "0:V:0?", "-map", "0:a:0?", "-c", "copy", "-f", "null", "-"]


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


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are all printable, as no recording's are."""
    return not head.strip(TEXT)


def check_is_media(path: Path, name: str = "") -> None:
    """Raises InputError for what is no file, and for text: ffmpeg takes it for a playlist.

    A playlist would have it read other files, whoever wrote it.
    """
    check_is_file(path, name)
    name = name or str(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    if head and is_text(head.removeprefix(b"\xef\xbb\xbf")):
        hint = "give the recording itself; lists of files go to --jobs"
        raise InputError(f"{name} is text, not a recording", hint=hint)


def _check_not_stopped(code: int, name: str, said: str) -> None:
    """Raises ModaError where a signal ended it: no fault of the file's, not to be remembered."""
    if code < 0 or (code == STOPPED and (not said or "Immediate exit" in said)):
        raise ModaError(f"ffmpeg was stopped while it read {name}")


def promised_s(header: str, path: Path, name: str) -> float:
    """How long a file lasts by the header that ffmpeg prints of it; 0 where that is not said.

    Raises InputError where it is so long that the time stamps must be wrong.
    """
    clock = re.search(r"Duration: (\d+):(\d+):([\d.]+)", header)
    hours, minutes, seconds = map(float, clock.groups()) if clock else (0.0, 0.0, 0.0)
    duration_s = (60 * hours + minutes) * 60 + seconds
    size = path.stat().st_size
    if 8 * size < SPARSEST_BPS * duration_s:
        why = f"{size} bytes are to last {hours:.0f} h {minutes:.0f} min"
        raise InputError(f"the time stamps of {name} jump: {why}", hint=STALL_HINT)
    return duration_s


def first_error(log: str) -> str:
    """The line of ffmpeg's log that names the cause; the later ones follow from it."""
    lines = (line.strip() for line in log.splitlines())
    errors = [line for line in lines if line and not line.startswith(("Svt[", "x265 ["))]
    return re.sub(r"^(\[[^]]*\] ?)+", "", errors[0]) if errors else "ffmpeg failed"


def read_log(log: IO[bytes]) -> str:
    """What a process that was given this file has written into it so far.

    Its place in the file is the process's too: moved, the next line would be written over another.
    """
    number = log.fileno()
    return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")


class Reading:
    """What one run of ffmpeg writes to its standard output.

    No wait is longer than STALL_S. The process ends with the context, whatever was read of it.
    """

    def __init__(self, arguments: Sequence[str], name: str) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the context
        self._process = subprocess.Popen(
            [*ffmpeg(), "-nostdin", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._pipe.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
            self._process.wait(STALL_S)
        self._log.close()

    def read(self, count: int) -> bytearray:
        """The next bytes, fewer only at the end. Raises InputError where they do not come."""
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            if not select.select([self._pipe], [], [], STALL_S)[0]:
                raise self._stalled()
            got = self._pipe.readinto(rest)  # type: ignore[attr-defined]
            if not got:
                return data[: count - len(rest)]
            rest = rest[got:]
        return data

    def line(self) -> bytes:
        """The next line without its end."""
        line = bytearray()
        while (byte := self.read(1)) and byte != b"\n":
            line += byte
        return bytes(line)

    def end(self) -> int:
        """Its exit code. Raises InputError where it does not end, ModaError if it was stopped."""
        try:
            code = self._process.wait(STALL_S)
        except subprocess.TimeoutExpired:
            raise self._stalled() from None
        _check_not_stopped(code, self._name, self.log())
        return code

    def log(self) -> str:
        """What it has said so far."""
        return read_log(self._log)

    def _stalled(self) -> InputError:
        why = f"nothing came of it for {STALL_S:g} s"
        return InputError(f"{self._name} stalls: {why}", hint=STALL_HINT)
