"""Sound of any kind as a model hears it: whole, kept in a file, or while it is still arriving.

One decoded sound is the source of both: of the 16 kHz wave that the motion follows, and of the
track that is written beside the pictures (`played`). They begin at the same sample.
"""

import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.errors import InputError, UsageError, is_disk_full
from moda_cli.media.standard_input import NAME, arriving_blocks
from moda_cli.media.tracks import BLOCK, Block, track_blocks
from moda_cli.media.waves import Wave

log = logging.getLogger(__name__)

SAMPLE_BYTES = 4  # of a wave
CANCELLING = 0.05  # of a channel's power: less in the mean, -13 dB, and the channels cancel
DOUBT = 1e-2  # power that the mean is given beforehand: a hundred samples at -40 dB decide nothing


def read_audio(path: Path) -> Wave:
    """The sound in a file, or on standard input for `-`: channels averaged, 16 kHz, (N,) float32.

    N is ceil(n 16000 / rate), as in the MoDA release. Where the channels cancel each other, one of
    them is taken, with a warning. Raises InputError for what holds no sound, less than one video
    frame of it, or values that are not finite.
    """
    samples = bytearray()  # grows in place: an hour of sound is 230 MB
    for block in sound_blocks(path):
        samples += block.tobytes()
    return np.frombuffer(samples, np.float32)


def sound_blocks(path: Path, stop: threading.Event | None = None) -> Iterator[Wave]:
    """What `read_audio` returns, block by block.

    Standard input may hold any format; WAV of 16 or 32 bits, and raw 16-bit little-endian mono at
    16 kHz, are taken as they arrive. It is at its end once `stop` is set.
    """
    return heard(played(path, stop), _name(path))


def played(
    path: Path, stop: threading.Event | None = None, *, again: bool = False
) -> Iterator[Block]:
    """The same sound as a viewer hears it: (rate, samples (n, 1 or 2) in [-1, 1]), block by block.

    Of a file it is the same each time; `again`, nothing is warned of. Raises InputError as
    `read_audio`.
    """
    name, piped = _name(path), str(path) == "-"
    for rate, block in arriving_blocks(stop) if piped else track_blocks(path, name, again=again):
        if not np.isfinite(block).all():
            raise InputError(f"{name} holds samples that are not numbers", hint="export it again")
        yield rate, block.clip(-1, 1)


def heard(blocks: Iterable[Block], name: str) -> Iterator[Wave]:
    """Sound as a model hears it, one channel at 16 kHz, from what is played."""
    import soxr

    mix, resampler, rate, count, made = _Mix(), None, SAMPLE_RATE, 0, 0
    for rate, block in blocks:
        mono = mix.add(block)
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
    if mix.alone is not None:
        told = "the channels of %s cancel each other: only channel %d is heard, both are played"
        log.warning(told, name, mix.alone + 1)
    if resampler is not None and rate != SAMPLE_RATE:
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)[: length - made]
        yield np.pad(rest.clip(-1, 1), (0, length - made - len(rest)))


class _Mix:
    """The mean of the channels, or one of them where they cancel each other.

    Judged at each sample by the power so far, so that it does not matter how sound is cut.
    """

    def __init__(self) -> None:
        self.alone: int | None = None  # the channel that is taken where the mean is too weak
        self._mean_power: float = DOUBT
        self._powers: NDArray[np.float64] = np.zeros(1)

    def add(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """One channel (n,) of samples (n, channels)."""
        mean: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
        if block.shape[1] == 1 or not len(block):
            return mean
        of_mean = self._mean_power + np.cumsum(np.square(mean), dtype=np.float64)
        each = self._powers + np.cumsum(np.square(block), axis=0, dtype=np.float64)
        self._mean_power, self._powers = float(of_mean[-1]), each[-1]
        is_weak = of_mean < CANCELLING * each.max(axis=1)
        if is_weak.any():
            if self.alone is None:
                self.alone = int(each[is_weak.argmax()].argmax())
            mean = np.where(is_weak, block[:, self.alone], mean)
        return mean


class StoredWave:
    """A 16 kHz wave (N,) in a file, read by slices, also by several threads.

    track() yields the sound that it was made from, from its beginning, as a viewer hears it.
    """

    def __init__(self, file: IO[bytes], track: Callable[[], Iterator[Block]]) -> None:
        self._file, self._lock = file, threading.Lock()
        self._length = file.seek(0, os.SEEK_END) // SAMPLE_BYTES
        self.track = track

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: slice, /) -> Wave:
        start, stop, _ = key.indices(len(self))
        with self._lock:
            self._file.seek(SAMPLE_BYTES * start)
            return np.fromfile(self._file, np.float32, max(stop - start, 0))


class _Copy:
    """Blocks that come once, kept in a file while they are used."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._form = file, (SAMPLE_RATE, 1)  # rate and channels

    def keep(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        for rate, block in blocks:
            self._form = rate, block.shape[1]
            self._file.write(block.tobytes())
            yield rate, block

    def blocks(self) -> Iterator[Block]:
        """All that was kept."""
        rate, channels = self._form
        self._file.seek(0)
        while len(samples := np.fromfile(self._file, np.float32, channels * BLOCK)):
            yield rate, samples.reshape(-1, channels)


@contextmanager
def stored_wave(path: Path) -> Iterator[StoredWave]:
    """What `read_audio` returns, in a temporary file, so that hours of it take no memory.

    Raises UsageError where there is no room for it.
    """
    try:
        with ExitStack() as opened:
            file = opened.enter_context(tempfile.TemporaryFile())  # nameless: gone if we are killed
            blocks, track = played(path), lambda: played(path, again=True)
            if str(path) == "-":
                copy = _Copy(opened.enter_context(tempfile.TemporaryFile()))
                blocks, track = copy.keep(blocks), copy.blocks
            for block in heard(blocks, _name(path)):
                file.write(block.tobytes())
            file.flush()
            kept = opened.pop_all()
    except OSError as error:
        if not is_disk_full(error):
            raise
        full = f"cannot write to {tempfile.gettempdir()}: {error.strerror}"
        raise UsageError(full, hint="free some space, or set TMPDIR to another folder") from None
    with kept:
        yield StoredWave(file, track)


class LiveSound:
    """16 kHz sound that is read once, from its beginning, perhaps while it is still arriving.

    When its context is left, whoever still waits for more gets an InterruptedError.
    length: how many samples it had, once its end was read.
    """

    def __init__(self, source: Path | Iterable[Wave]) -> None:
        self.length: int | None = None
        self._arrived = 0  # samples
        self._stop = threading.Event()
        self._source = source
        self._copies: queue.SimpleQueue[Block | None] | None = None
        self._blocks: Iterator[Wave] = (
            heard(self._copied(played(source, self._stop)), _name(source))
            if isinstance(source, Path)
            else iter(source)
        )
        self._ahead: Wave = np.zeros(0, np.float32)

    def __enter__(self) -> "LiveSound":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._copies:
            self._copies.put(None)

    def read(self, count: int) -> Wave:
        """The next samples (count,); fewer only at the end. Waits for them."""
        parts, missing = [self._ahead], count - len(self._ahead)
        while missing > 0 and self.length is None:
            if (block := next(self._blocks, None)) is None:
                self.length = self._arrived
            else:
                parts.append(block)
                self._arrived += len(block)
                missing -= len(block)
        if self._stop.is_set():
            raise InterruptedError("nobody needs this sound any more")
        wave = np.concatenate(parts)
        self._ahead = wave[count:]
        return wave[:count]

    def track(self) -> Iterator[Block]:
        """The same sound as a viewer hears it.

        Of a file from its beginning; else what is read from now on, as it is read.
        """
        if isinstance(self._source, Path) and str(self._source) != "-":
            return played(self._source, again=True)
        copies = self._copies = queue.SimpleQueue()

        def taken() -> Iterator[Block]:
            while (block := copies.get()) is not None:
                yield block

        return taken()

    def _copied(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if self._copies:
                self._copies.put(block)
            yield block
        if self._copies:
            self._copies.put(None)


def _name(path: Path) -> str:
    return NAME if str(path) == "-" else str(path)
