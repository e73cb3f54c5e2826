"""The sound of a file as its viewer hears it: own rate, one or two channels, on the file's clock.

What a model hears and what is written into a video are both made from these blocks.
"""

import logging
import re
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS
from moda_cli.errors import InputError
from moda_cli.media.ffmpeg import (
    BOTH_TRACKS,
    Reading,
    check_is_media,
    file_input,
    first_error,
    promised_s,
)

log = logging.getLogger(__name__)

Warn = Callable[..., None]
Block = tuple[int, NDArray[np.float32]]  # sample rate, samples (n, 1 or 2)

SOUND_HINT = "use WAV, FLAC, MP3, M4A, OGG, or a video with sound"
EARLY_HINT = "it was cut short: copy or export it again"

# what libsndfile reads without guessing: WAV, AIFF, CAF, AU
SOUNDFILE_MAGIC = (b"RIFF", b"RF64", b"FORM", b"caff", b".snd")
UNKNOWN_SIZE = 0x7FFF0000  # programs that write to a pipe put 0, or a number above this
# libsndfile's log of a WAV, AIFF or AU file that holds fewer bytes than its header says
SHORTER = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be ([1-9]\d*)\)", re.M)
BLOCK = 1 << 16  # samples
SURROUND = 8  # channels at most whose places are known
TAIL_S = 0.2  # a header may promise this much more than there is: codecs pad, clocks round
# Two channels at most, which cannot clip where there were more.
MIX = "aresample=rematrix_maxval=1{},aformat=channel_layouts=mono|stereo"
# Holes are silence and overlaps are cut. Stamps that are off by less are a container's rounding.
# Not first_pts=0: where the rate changes, in joined files, ffmpeg begins anew and would fill again.
CLOCK = ":async=1:min_hard_comp=0.02"
# formats of frames without stamps, which ffmpeg makes up: those of joined files are wrong
NO_CLOCK = re.compile(r"Input #0, (aac|ac3|aiff|amr|ape|au|caf|dts|eac3|flac|mp3|tta|w64|wav|wv)\b")
# a line of ffmpeg's log at `level+info`, but for what the copy of both tracks complains of
ERROR = re.compile(r"^(?!.* to muxer).*\[(?:error|fatal|panic)\] .*$", re.M)
TRAILING = 1 << 14  # bytes after a WAV file's end that may be a tag
OGG_PAGE = 1 << 16  # bytes at most
OGG_END = 4  # the flag of a stream's last page


def track_blocks(path: Path, name: str, *, again: bool = False) -> Iterator[Block]:
    """The first sound track of a file, called `name` in messages, block by block.

    Sound that starts late follows silence. Raises InputError for what holds no sound, is damaged or
    ends early; what can be read nevertheless is warned of, unless it is read again.
    """
    warn = log.debug if again else log.warning
    check_is_media(path, name)
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{name} is empty", hint=SOUND_HINT)
    try:
        with path.open("rb") as file:
            head = file.read(12)
            file.seek(max(size - OGG_PAGE, 0))
            last_page = file.read().rpartition(b"OggS")[2]
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    magic, form = head[:4], head[8:12]
    if magic == b"OggS" and len(last_page) > 1 and not last_page[1] & OGG_END:
        warn("%s has no end mark: it was cut short, or its recorder was stopped", name)
    end = 8 + int.from_bytes(head[4:8], "little")
    if (magic, form) == (b"RIFF", b"WAVE") and end < min(UNKNOWN_SIZE, size - TRAILING):
        warn("%s goes on for %d bytes after its end: they are not heard", name, size - end)
    blocks = _plain_blocks if magic in SOUNDFILE_MAGIC else _ffmpeg_blocks
    yield from blocks(path, name, warn)


def _plain_blocks(path: Path, name: str, warn: Warn) -> Iterator[Block]:
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        file = None
    # of a recorder that was killed the header says no frames; surround is mixed by ffmpeg
    if file is None or not file.frames or 2 < file.channels <= SURROUND:
        yield from _ffmpeg_blocks(path, name, warn)
        return
    with file:
        _check_length(file, name)
        try:
            for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
                two = block.shape[1] <= 2
                yield file.samplerate, block if two else block.mean(axis=1, keepdims=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{name} is damaged: {error}", hint="export it again") from None


def _check_length(file: Any, name: str) -> None:
    """Raises InputError for a file that ends a video frame or more before its header says."""
    if found := SHORTER.search(file.extra_info):
        promised, there = map(int, found.groups())
        length = file.frames * promised / there
        if promised < UNKNOWN_SIZE and length - file.frames >= file.samplerate / FPS:
            seconds = f"{file.frames / file.samplerate:.1f} of {length / file.samplerate:.1f} s"
            raise InputError(f"{name} ends early: {seconds}", hint=EARLY_HINT)


def _ffmpeg_blocks(path: Path, name: str, warn: Warn) -> Iterator[Block]:
    """The same of any file that ffmpeg reads."""
    start_s, clock = _start(path, name)
    # .au is the one streamable format whose header holds rate and channels but no length
    output = ["-map", "0:a:0", "-af", MIX.format(clock), "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    said = ["-loglevel", "level+info", "-nostats"]
    with Reading([*said, *file_input(path), *output, *BOTH_TRACKS], name) as run:
        header = run.read(24)
        if len(header) < 24:
            run.end()
            raise InputError(f"cannot read {name} as sound: {_reason(run)}", hint=SOUND_HINT)
        _, offset, _, _, rate, channels = struct.unpack(">6I", header)
        run.read(offset - len(header))
        early = round(start_s * rate)
        for start in range(0, early, BLOCK):
            yield rate, np.zeros((min(BLOCK, early - start), channels), np.float32)
        count = max(early, 0)
        run.read(4 * channels * max(-early, 0))  # before the file's first stamp
        while data := run.read(4 * channels * BLOCK):
            whole = len(data) - len(data) % (4 * channels)
            block = np.frombuffer(data[:whole], ">f4").reshape(-1, channels)
            count += len(block)
            yield rate, block.astype(np.float32)
        if run.end():  # what it could mend leaves it at 0
            where = f"{name} is damaged {count / rate:.1f} s from its start"
            raise InputError(f"{where}: {_reason(run)}", hint="export it again")
        text = run.log()
        _check_promise(text, promised_s(text, path, name), count / rate, name)
        if ERROR.search(text) or "corrupt" in text:
            reason = _reason(run) if ERROR.search(text) else "a packet is not whole"
            told = "%s is damaged, joined or cut short: %.1f s are heard (%s)"
            warn(told, name, count / rate, reason)


def _start(path: Path, name: str) -> tuple[float, str]:
    """When the first sample of the first sound track is heard, in seconds after the file's start.

    And how the stamps of the later ones are followed. Raises InputError where there is none.
    """
    output = ["-map", "0:a:0", "-frames:a", "1", "-f", "framecrc", "pipe:1"]
    said = ["-loglevel", "level+info", "-nostats"]
    with Reading([*said, *file_input(path), *output, *BOTH_TRACKS], name) as run:
        clock = Fraction(1)
        while (line := run.line().decode()).startswith("#"):
            if line.startswith("#tb 0: "):
                clock = Fraction(line.removeprefix("#tb 0: "))
        header = run.log()
        if line and not NO_CLOCK.search(header):
            promised_s(header, path, name)
            return float(int(line.split(",")[2]) * clock), CLOCK
        if line or run.end() == 0:  # a track, perhaps without a sample
            return 0.0, ""
        reason = _reason(run)
    if "matches no streams" in reason or "does not contain any stream" in reason:
        raise InputError(f"{name} has no sound track", hint=SOUND_HINT)
    raise InputError(f"cannot read {name} as sound: {reason}", hint=SOUND_HINT)


def _reason(run: Reading) -> str:
    """The first error in ffmpeg's log."""
    return first_error("\n".join(ERROR.findall(run.log())))


def _check_promise(text: str, promised: float, seconds: float, name: str) -> None:
    """Raises InputError where ffmpeg's log of a whole file says that it holds less than it says."""
    late = re.search(r"Duration: .* start: ([\d.]+)", text)
    if "Estimating duration" in text:
        promised = 0.0
    elif late and not NO_CLOCK.search(text):
        promised -= float(late[1])  # the first stamp, which is our 0
    # a picture may go on when the sound has ended
    pictures = re.search(r"Stream #0.*: Video: (?!.*\(attached pic\))", text)
    broken = re.search(r"File ended prematurely|corrupt", text)
    missing = promised - seconds > TAIL_S and (broken or not pictures)
    if missing or ": partial file" in text:
        length = f"{seconds:.1f} of {promised:.1f} s" if missing else f"after {seconds:.1f} s"
        raise InputError(f"{name} ends early: {length}", hint=EARLY_HINT)
