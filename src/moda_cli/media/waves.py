"""The one form of sound inside the tool."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import SAMPLES_PER_FRAME

Wave = NDArray[np.float32]  # (N,) mono, 16 kHz, in [-1, 1]
Read = Callable[[int], Wave]  # the next samples of a sound; fewer than asked for only at its end
TAKEN_BACK = 50  # frames of a sound that is pushed: so many can be taken back


def num_frames(num_samples: int) -> int:
    """Video frames a 16 kHz wave lasts; a trailing part of a frame is dropped, as released."""
    return num_samples // SAMPLES_PER_FRAME


def frames_to_cover(num_samples: int) -> int:
    """Video frames that cover a 16 kHz wave; the last may outlast it."""
    return -(-num_samples // SAMPLES_PER_FRAME)


class Samples(Protocol):
    """A 16 kHz wave (N,) that is read by slices: an array, or a file of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> Wave: ...


def reader(wave: Samples) -> Read:
    """Reads a wave from its beginning."""
    done = 0

    def read(count: int) -> Wave:
        nonlocal done
        done += count
        return wave[done - count : done]

    return read


class Tail:
    """The last samples of a sound, which is read as far as it is asked for."""

    def __init__(self, read: Read, keep: int) -> None:
        self._read, self._keep = read, keep  # samples kept of what was read before
        self._kept: Wave = np.zeros(0, np.float32)
        self._ended = False
        self.count = 0  # samples read

    def frames(self, stop: int) -> int:
        """How many of the first `stop` frames there are; waits for them."""
        missing = stop * SAMPLES_PER_FRAME - self.count
        if missing > 0 and not self._ended:
            new = self._read(missing)
            self._ended = len(new) < missing
            self.count += len(new)
            self._kept = np.concatenate((self._kept[-self._keep :], new))
        return min(stop, frames_to_cover(self.count))

    def samples(self, start: int, stop: int) -> Wave:
        """Samples [start, stop), none older than those kept; zeros before and after the sound."""
        base = self.count - len(self._kept)
        known = self._kept[max(start - base, 0) : max(stop - base, 0)]
        before = max(-start, 0)
        return np.pad(known, (before, stop - start - before - len(known)))
