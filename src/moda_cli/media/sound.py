"""Sound in any format to 16 kHz: whole, kept in a file, or while it is still arriving."""

import os
import queue
import re
import select
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.errors import InputError, UsageError, is_disk_full
from moda_cli.media.ffmpeg import (
    BOTH_TRACKS,
    check_not_stopped,
    ends_early,
    ffmpeg,
    file_input,
    first_error,
)
from moda_cli.media.waves import Wave

Block = tuple[int, NDArray[np.float32]]  # sample rate, samples (n, channels)

SOUND_HINT = "use WAV, FLAC, MP3, M4A, OGG, or a video with sound"
EARLY_HINT = "it was cut short: copy or export it again"

# what libsndfile reads without guessing: WAV, FLAC, Ogg, AIFF, CAF, AU
SOUNDFILE_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")
# how other encoded sound begins: MP3, AAC, Matroska, ASF, WavPack, APE, FLV, AMR, MPEG
ENCODED_MAGIC = (
    *SOUNDFILE_MAGIC, b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1",
    b"\xff\xf9", b"\x1aE\xdf\xa3", b"0&\xb2u", b"wvpk", b"MAC ", b"FLV", b"#!AMR", b"\0\0\1\xba",
)  # fmt: skip
# WAVE's format tag and bits -> samples that are taken while they arrive
WAV_TYPES = {(1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}
UNKNOWN_SIZE = 0x7FFF0000  # programs that write to a pipe put 0, or a number above this
# libsndfile's log of a WAV, AIFF or AU file that holds fewer bytes than its header says
SHORTER = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be ([1-9]\d*)\)", re.M)
SAMPLE_BYTES = 4  # of a wave
BLOCK = 1 << 16  # samples
POLL_S = 0.2  # how long a read that nobody waits for any more goes on


def read_audio(path: Path) -> Wave:
    """The sound in a file, or on standard input for `-`: channels averaged, 16 kHz, (N,) float32.

    N is ceil(n 16000 / rate), as in the MoDA release. Raises InputError for what holds no sound,
    less than one video frame of it, or values that are not finite.
    """
    samples = bytearray()  # grows in place: an hour of sound is 230 MB
    for block in sound_blocks(path):
        samples += block.tobytes()
    return np.frombuffer(samples, np.float32)


class StoredWave:
    """A 16 kHz wave (N,) in a file, read by slices, also by several threads."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._lock = file, threading.Lock()
        self._length = file.seek(0, os.SEEK_END) // SAMPLE_BYTES

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: slice, /) -> Wave:
        start, stop, _ = key.indices(len(self))
        with self._lock:
            self._file.seek(SAMPLE_BYTES * start)
            return np.fromfile(self._file, np.float32, max(stop - start, 0))

    def blocks(self) -> Iterator[Wave]:
        """All of it, in order."""
        return (self[start : start + BLOCK] for start in range(0, len(self), BLOCK))


@contextmanager
def stored_wave(path: Path) -> Iterator[StoredWave]:
    """What `read_audio` returns, in a temporary file, so that hours of it take no memory.

    Raises UsageError where there is no room for it.
    """
    try:
        with ExitStack() as opened:
            file = opened.enter_context(tempfile.TemporaryFile())  # nameless: gone if we are killed
            for block in sound_blocks(path):
                file.write(block.tobytes())
            file.flush()
            opened.pop_all()
    except OSError as error:
        if not is_disk_full(error):
            raise
        full = f"cannot write to {tempfile.gettempdir()}: {error.strerror}"
        raise UsageError(full, hint="free some space, or set TMPDIR to another folder") from None
    with file:
        yield StoredWave(file)


class LiveSound:
    """16 kHz sound that is read once, from its beginning, perhaps while it is still arriving.

    When its context is left, whoever still waits for more gets an InterruptedError.
    """

    def __init__(self, source: Path | Iterable[Wave]) -> None:
        self._stop = threading.Event()
        blocks = sound_blocks(source, self._stop) if isinstance(source, Path) else source
        self._blocks = iter(blocks)
        self._ahead: Wave = np.zeros(0, np.float32)
        self._copies: queue.SimpleQueue[Wave | None] | None = None

    def __enter__(self) -> "LiveSound":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._copy(None)

    def read(self, count: int) -> Wave:
        """The next samples (count,); fewer only at the end. Waits for them."""
        parts, missing = [self._ahead], count - len(self._ahead)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            self._copy(block)
            parts.append(block)
            missing -= len(block)
        if self._stop.is_set():
            raise InterruptedError("nobody needs this sound any more")
        if missing > 0:
            self._copy(None)
        wave = np.concatenate(parts)
        self._ahead = wave[count:]
        return wave[:count]

    def copies(self) -> Iterator[Wave]:
        """What is read from now on, as it is read: the sound track of a video made from it."""
        copies = self._copies = queue.SimpleQueue()

        def taken() -> Iterator[Wave]:
            while (block := copies.get()) is not None:
                yield block

        return taken()

    def _copy(self, block: Wave | None) -> None:
        if self._copies:
            self._copies.put(block)


def sound_blocks(path: Path, stop: threading.Event | None = None) -> Iterator[Wave]:
    """What `read_audio` returns, block by block.

    Standard input may hold any format; WAV of 16 or 32 bits, and raw 16-bit little-endian mono at
    16 kHz, are taken as they arrive. It is at its end once `stop` is set.
    """
    import soxr

    name = "standard input" if str(path) == "-" else str(path)
    blocks = _stdin_blocks(stop, name) if str(path) == "-" else _file_blocks(path, name)
    resampler, rate, count, made = None, SAMPLE_RATE, 0, 0
    for rate, block in blocks:
        if not np.isfinite(block).all():
            raise InputError(f"{name} holds samples that are not numbers", hint="export it again")
        mono = block.mean(axis=1, dtype=np.float32)
        count += len(mono)
        if resampler is None:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        wave = mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono)
        made += len(wave)
        yield wave.clip(-1, 1)
    length = -(-count * SAMPLE_RATE // rate)
    if length < SAMPLES_PER_FRAME:
        hint = "at least 40 ms of sound is needed"
        raise InputError(f"{name} lasts {1000 * count // rate} ms", hint=hint)
    if resampler is not None and rate != SAMPLE_RATE:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)[: length - made]
        yield np.pad(rest.clip(-1, 1), (0, length - made - len(rest)))


class _Pipe:
    """Bytes of standard input as they arrive; at its end once `stop` is set."""

    def __init__(self, stop: threading.Event | None) -> None:
        self._fd, self._stop, self._ahead = sys.stdin.fileno(), stop, b""

    def some(self) -> bytes:
        """What comes next; nothing at the end."""
        data, self._ahead = self._ahead, b""
        while not data:
            if self._stop and self._stop.is_set():
                return b""
            if select.select([self._fd], [], [], POLL_S)[0]:
                return os.read(self._fd, 1 << 16)
        return data

    def take(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end."""
        data = bytearray()
        while len(data) < count and (more := self.some()):
            data += more
        self._ahead = bytes(data[count:])
        return bytes(data[:count])

    def put_back(self, data: bytes) -> None:
        self._ahead = data + self._ahead


def _stdin_blocks(stop: threading.Event | None, name: str) -> Iterator[Block]:
    pipe = _Pipe(stop)
    head = pipe.take(64)
    pipe.put_back(head)
    if not head:
        raise InputError(f"{name} is empty", hint=SOUND_HINT)
    if head[:4] in (b"RIFF", b"RF64") and (found := _wav_header(pipe)):
        yield from _pcm_blocks(pipe, *found)
    elif head.startswith(ENCODED_MAGIC) or head[4:8] == b"ftyp":
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "sound"  # decoders seek
            with copy.open("wb") as file:
                while data := pipe.some():
                    file.write(data)
            yield from _file_blocks(copy, name)
    elif all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        raise InputError(f"cannot read {name} as sound: it is text", hint=SOUND_HINT)
    else:
        yield from _pcm_blocks(pipe, SAMPLE_RATE, "<i2", 1, sys.maxsize)


def _wav_header(pipe: _Pipe) -> tuple[int, str, int, int] | None:
    """Rate, sample type, channels and bytes of a WAV file whose samples come next.

    None for one that is not read as it arrives; nothing of it is taken then.
    """
    seen = pipe.take(12)
    form: tuple[int, str, int] | None = None
    while seen[8:12] == b"WAVE":
        chunk = pipe.take(8)
        seen += chunk
        if len(chunk) < 8:
            break
        kind, size = struct.unpack("<4sI", chunk)
        if kind == b"data" and form:
            return *form, size if 0 < size < UNKNOWN_SIZE else sys.maxsize
        body = pipe.take(min(size + size % 2, 1 << 16))
        seen += body
        if len(body) < size or (kind == b"fmt " and size < 16):
            break
        if kind == b"fmt ":
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
            if tag == 0xFFFE and size >= 26:  # extensible: the tag is further on
                (tag,) = struct.unpack_from("<H", body, 24)
            if (tag, bits) not in WAV_TYPES or not channels or not rate:
                break
            form = rate, WAV_TYPES[tag, bits], channels
    pipe.put_back(seen)
    return None


def _pcm_blocks(pipe: _Pipe, rate: int, kind: str, channels: int, size: int) -> Iterator[Block]:
    """At most `size` bytes of samples, as they arrive."""
    dtype, rest = np.dtype(kind), b""
    full_scale = 2 ** (8 * dtype.itemsize - 1) if dtype.kind == "i" else 1
    while size > 0 and (data := pipe.some()):
        rest += data[:size]
        size -= len(data)
        whole = len(rest) - len(rest) % (dtype.itemsize * channels)
        block = np.frombuffer(rest[:whole], dtype).reshape(-1, channels)
        yield rate, block.astype(np.float32) / np.float32(full_scale)
        rest = rest[whole:]


def _file_blocks(path: Path, name: str) -> Iterator[Block]:
    import soundfile

    if not path.is_file():
        raise InputError(f"there is no file {name}", hint="check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{name} is empty", hint=SOUND_HINT)
    try:
        with path.open("rb") as start:
            is_plain = start.read(4) in SOUNDFILE_MAGIC
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    try:
        file = soundfile.SoundFile(path) if is_plain else None
    except soundfile.LibsndfileError:
        file = None
    if file is None or not file.frames:  # of a recorder that was killed the header says none
        yield from _ffmpeg_blocks(path, name)
        return
    with file:
        _check_length(file, name)
        try:
            for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
                yield file.samplerate, block
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


def _ffmpeg_blocks(path: Path, name: str) -> Iterator[Block]:
    """The same from the first sound track of any file that ffmpeg reads."""
    # .au is the one streamable format whose header holds rate and channels but no length
    # sound that starts after the picture keeps its place
    output = ["-map", "0:a:0", "-af", "aresample=async=1:first_pts=0"]
    output += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1", *BOTH_TRACKS]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [*ffmpeg(), *file_input(path), *output],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        header = process.stdout.read(24)
        if len(header) < 24:
            process.wait()
            reason = first_error(log)
            if "matches no streams" in reason or "does not contain any stream" in reason:
                raise InputError(f"{name} has no sound track", hint=SOUND_HINT)
            raise InputError(f"cannot read {name} as sound: {reason}", hint=SOUND_HINT)
        _, offset, _, _, rate, channels = struct.unpack(">6I", header)
        process.stdout.read(offset - len(header))
        count = 0
        while data := process.stdout.read(4 * channels << 16):
            whole = len(data) - len(data) % (4 * channels)
            block = np.frombuffer(data[:whole], ">f4").reshape(-1, channels)
            count += len(block)
            yield rate, block.astype(np.float32)
        code = process.wait()
        check_not_stopped(code, name)
        if code:  # what it could mend leaves it at 0
            where = f"{name} is damaged {count / rate:.1f} s from its start"
            raise InputError(f"{where}: {first_error(log)}", hint="export it again")
        if ends_early(log):
            raise InputError(f"{name} ends early, after {count / rate:.1f} s", hint=EARLY_HINT)
