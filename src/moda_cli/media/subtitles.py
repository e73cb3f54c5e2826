"""Subtitles in SubRip's form: cues read from a file, with every fault named by its line."""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moda_cli.errors import InputError
from moda_cli.files import check_is_file

MAX_BYTES = 10_000_000
CLOCK = r"(\d{1,3}):(\d{1,2}):(\d{1,2})(?:[,.](\d{1,3}))?"
TIMES = re.compile(rf"\s*{CLOCK}\s*-->\s*{CLOCK}(?:\s.*)?")  # players ignore a place after it
TAGS = re.compile(r"</?(?:[ibus]|font)(?:\s[^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
TIMES_HINT = "times are written 00:01:02,500 --> 00:01:04,000"


@dataclass(frozen=True, slots=True)
class Cue:
    """A text that is shown from start_s until just before end_s, seconds."""

    start_s: float
    end_s: float
    text: str  # lines, perhaps with tags such as <i>

    @property
    def plain(self) -> str:
        """The text without tags."""
        return TAGS.sub("", self.text).strip()


def read_srt(path: Path) -> tuple[Cue, ...]:
    """The cues of an SRT file by their start, in UTF-8 or UTF-16.

    Cues without a text are left out. Raises InputError for what is no such file, naming the line.
    """
    check_is_file(path, largest=MAX_BYTES)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        hint = "save it as UTF-8"
        raise InputError(f"{path} line {line} is not in UTF-8", hint=hint) from None
    if text.lstrip().startswith("WEBVTT"):
        hint = f"ffmpeg -i {path} subtitles.srt makes SRT of it"
        raise InputError(f"{path} is WebVTT, not SRT", hint=hint)
    cues = sorted(_cues(text, path), key=lambda cue: cue.start_s)
    if not cues:
        hint = "a cue is a number, its times and its text, then an empty line"
        raise InputError(f"{path} holds no subtitle", hint=hint)
    return tuple(cues)


def _cues(text: str, path: Path) -> Iterator[Cue]:
    for first, lines in _blocks(text):
        at = 0 if TIMES.fullmatch(lines[0]) else 1  # some writers leave the number out
        if at == 1 and not lines[0].strip().isdecimal():
            reason = f"{path} line {first}: {_short(lines[0])} is neither a number nor times"
            raise InputError(reason, hint=TIMES_HINT)
        times = TIMES.fullmatch(lines[at]) if at < len(lines) else None
        if times is None:
            found = _short(lines[at]) if at < len(lines) else "nothing"
            reason = f"{path} line {first + at}: {found} where the times should be"
            raise InputError(reason, hint=TIMES_HINT)
        start_s, end_s = (_seconds(times.groups()[k : k + 4], path, first + at) for k in (0, 4))
        if not end_s > start_s:
            reason = f"{path} line {first + at}: it ends before it starts"
            raise InputError(reason, hint=TIMES_HINT)
        cue = Cue(start_s, end_s, "\n".join(line.strip() for line in lines[at + 1 :]))
        if cue.plain:
            yield cue


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines between empty ones, with the number of the first."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number + 1 - len(block), block


def _seconds(parts: Sequence[str | None], path: Path, line: int) -> float:
    hours, minutes, seconds = (int(part or 0) for part in parts[:3])
    if minutes > 59 or seconds > 59:
        reason = f"{path} line {line}: there is no time {hours}:{minutes:02}:{seconds:02}"
        raise InputError(reason, hint=TIMES_HINT)
    return (60 * hours + minutes) * 60 + seconds + int((parts[3] or "0").ljust(3, "0")) / 1000


def _short(line: str) -> str:
    return repr(line.strip()[:40])


def srt_text(cues: Sequence[Cue]) -> str:
    """An SRT file of the cues."""
    blocks = (
        f"{number}\n{_clock(cue.start_s)} --> {_clock(cue.end_s)}\n{cue.text}\n"
        for number, cue in enumerate(cues, start=1)
    )
    return "\n".join(blocks)


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
