"""Sound on standard input: samples while they arrive, anything else once it has ended."""

import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.errors import InputError
from moda_cli.media.ffmpeg import ffmpeg, is_text
from moda_cli.media.tracks import (
    EARLY_HINT,
    SOUND_HINT,
    SOUNDFILE_MAGIC,
    UNKNOWN_SIZE,
    Block,
    track_blocks,
)

NAME = "standard input"
RAW_HINT = "raw samples must be 16-bit little-endian, mono, 16 kHz; WAV tells its own form"
POLL_S = 0.2  # how long a read that nobody waits for any more goes on
HEAD = 1 << 15  # bytes by which raw samples are told: a second of them, less than a window needs
PROBE_S = 20

# how encoded sound begins: libsndfile's, FLAC, ID3, Ogg, Matroska, ASF, WavPack, APE, FLV, AMR, PS
ENCODED_MAGIC = (
    *SOUNDFILE_MAGIC, b"fLaC", b"ID3", b"OggS", b"\x1aE\xdf\xa3", b"0&\xb2u", b"wvpk", b"MAC ",
    b"FLV\1", b"#!AMR", b"\0\0\1\xba", b"\0\0\1\xb3", b"riff",
)  # fmt: skip
MP4_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot")
TS_PACKETS = ((0, 188), (4, 192))  # where the sync byte of MPEG-TS stands, and how far apart
# pictures, archives, documents and programs; some of them look like samples
OTHER_MAGIC = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"PK\3\4", b"\x1f\x8b\x08", b"BZh",
    b"7z\xbc\xaf", b"\xfd7zXZ", b"Rar!", b"(\xb5/\xfd", b"%PDF", b"\x7fELF", b"\x93NUMPY",
)  # fmt: skip
# WAVE's format tag and bits -> samples that are taken while they arrive
WAV_TYPES = {(1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}


class _Pipe:
    """Bytes of standard input as they arrive; at its end once `stop` is set."""

    def __init__(self, stop: threading.Event | None) -> None:
        self._fd, self._stop, self._ahead = sys.stdin.fileno(), stop, b""

    def is_stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def some(self) -> bytes:
        """What comes next; nothing at the end."""
        data, self._ahead = self._ahead, b""
        while not data:
            if self.is_stopped():
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


def arriving_blocks(stop: threading.Event | None = None) -> Iterator[Block]:
    """The sound on standard input, block by block; at its end once `stop` is set.

    WAV of 16 or 32 bits and at most two channels, and raw 16-bit little-endian mono at 16 kHz, are
    taken as they arrive. Raises InputError for what is no sound.
    """
    pipe = _Pipe(stop)
    head = pipe.take(12)
    pipe.put_back(head)
    if not head:
        raise InputError(f"{NAME} is empty", hint=SOUND_HINT)
    if head[:4] in (b"RIFF", b"RF64") and (found := _wav_header(pipe)):
        yield from _pcm_blocks(pipe, *found)
        return
    head = pipe.take(HEAD)
    pipe.put_back(head)
    if _is_raw(head):
        yield from _pcm_blocks(pipe, SAMPLE_RATE, "<i2", 1, sys.maxsize)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sound"  # decoders seek
        with copy.open("wb") as file:
            while data := pipe.some():
                file.write(data)
        yield from track_blocks(copy, NAME)


def _is_raw(head: bytes) -> bool:
    """Whether bytes are raw samples, not the start of a file.

    Raises InputError for what is neither.
    """
    if head.startswith(ENCODED_MAGIC) or head[4:8] in MP4_BOXES or _is_transport_stream(head):
        return False
    if is_text(head[:64]):
        raise InputError(f"cannot read {NAME} as sound: it is text", hint=SOUND_HINT)
    is_bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
    if head.startswith(OTHER_MAGIC) or is_bitmap or head[257:262] == b"ustar":
        reason = "it is a picture, an archive or a document"
        raise InputError(f"cannot read {NAME} as sound: {reason}", hint=SOUND_HINT)
    like_samples, synchronised = _like_samples(head), head[:2] == b"\x0bw" or _is_mpeg(head)
    if (synchronised or not like_samples) and _is_decodable(head):
        return False
    if not like_samples:
        raise InputError(f"cannot read {NAME} as sound: it is no known format", hint=RAW_HINT)
    return True


def _is_transport_stream(head: bytes) -> bool:
    return any(
        head[start : start + 3 * length + 1 : length] == b"GGGG" for start, length in TS_PACKETS
    )


def _is_mpeg(head: bytes) -> bool:
    """Whether the first bits are those of an MP3 or AAC frame, as one sample in 500 is, too."""
    return head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0 and head[1] < 0xFE


def _like_samples(head: bytes) -> bool:
    """Whether bytes could be 16-bit sound: anything but noise near full scale.

    So look compressed bytes, and samples of another width or byte order.
    """
    samples = np.frombuffer(head[: len(head) // 2 * 2], "<i2") / 32768
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    step = float(np.mean(np.square(np.diff(samples)))) if len(samples) > 1 else 0.0
    return power < 0.1 or step < power  # of noise without memory the step is twice the power


def _is_decodable(head: bytes) -> bool:
    """Whether ffmpeg finds sound in the start of a file."""
    command = [*ffmpeg(), "-i", "pipe:0", "-map", "0:a:0", "-f", "null", "-"]
    tried = subprocess.run(command, input=head, capture_output=True, check=False, timeout=PROBE_S)
    return tried.returncode == 0


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
            if (tag, bits) not in WAV_TYPES or channels not in (1, 2) or not rate:
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
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is told of later
            samples = block.astype(np.float32) / np.float32(full_scale)
        yield rate, samples
        rest = rest[whole:]
    missing_s = size / (dtype.itemsize * channels * rate)
    if size < UNKNOWN_SIZE and missing_s >= 1 / FPS and not pipe.is_stopped():
        raise InputError(f"{NAME} ends early: {missing_s:.1f} s are missing", hint=EARLY_HINT)
