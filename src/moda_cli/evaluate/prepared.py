"""Clips as every metric sees them: square frames at 25 fps and a 16 kHz wave, prepared alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli import media
from moda_cli.config import FPS, SAMPLES_PER_FRAME
from moda_cli.errors import InputError
from moda_cli.evaluate.cache import Cache, content_key
from moda_cli.evaluate.protocol import PREPARATION, SIDE, Fit, Protocol
from moda_cli.files import sha256_of
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave

RATE_TOLERANCE = 0.01  # frames per second
ENDS_EARLY_S = 0.5  # a file cut short; sound may outlast the picture by less
HELD_FRAMES = 500  # 20 s, 0.4 GB: a longer clip is decoded for each metric


@dataclass(frozen=True, slots=True)
class ClipWindow:
    """A part of a clip, in frames at 25 fps. The whole of it unless said otherwise."""

    first: int = 0
    frames: int | None = None


WHOLE = ClipWindow()


def fitted(frame: Picture, fit: Fit) -> Picture:
    """A frame as a SIDE x SIDE square."""
    height, width = frame.shape[:2]
    if fit == "centre":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        frame = frame[top : top + side, left : left + side]
        height = width = side
    if (height, width) == (SIDE, SIDE):
        return np.array(frame)  # the decoder's are read-only
    method = cv2.INTER_AREA if min(height, width) > SIDE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (SIDE, SIDE), interpolation=method), np.uint8)


class PreparedClip:
    """A video file, or a window of one. Iterating decodes anew unless the frames are held."""

    def __init__(self, path: Path, fit: Fit, window: ClipWindow = WHOLE) -> None:
        """Raises InputError for a file that is no video."""
        self.path, self.fit, self.window = path, fit, window
        self.info = media.probe_video(path)
        self.frames: int | None = window.frames  # cut here; None: not counted yet
        self._held: list[Picture] | None = None

    @cached_property
    def sha256(self) -> str:
        return sha256_of(self.path)

    @property
    def key(self) -> str:
        """What the frames and the sound of this clip follow from."""
        return content_key(
            file=self.sha256,
            first=self.window.first,
            frames=self.frames,
            fit=self.fit,
            side=SIDE,
            preparation=PREPARATION,
        )

    def count(self, cache: Cache) -> int:
        """Its frames at 25 fps. Raises InputError for a file that cannot be decoded to its end."""
        key = content_key(count=self.sha256, fps=FPS)

        def decode() -> dict[str, NDArray[np.int64]]:
            return {"frames": np.array(sum(1 for _ in media.read_video(self.path)))}

        frames = int(cache.keep(key, decode)["frames"])
        if frames < FPS * (self.info.duration_s - ENDS_EARLY_S):
            raise InputError(
                f"the clip ends after {frames / FPS:.1f} of {self.info.duration_s:.1f} s",
                hint="it was cut short: make or copy it again",
            )
        return frames

    def __iter__(self) -> Iterator[Picture]:
        if self._held is not None:
            return iter(self._held[: self.frames])
        return self._decoded()

    def _decoded(self) -> Iterator[Picture]:
        first = self.window.first
        stop = None if self.frames is None else first + self.frames
        # from its start: a clip of another rate is resampled differently after a seek
        for frame in islice(media.read_video(self.path), first, stop):
            yield fitted(frame, self.fit)

    def hold(self) -> None:
        """Decode now and keep the frames, for metrics to come, unless there are many."""
        if self._held is None and (self.frames or 0) <= HELD_FRAMES:
            self._held = list(self._decoded())

    def release(self) -> None:
        self._held = None

    def wave(self) -> Wave:
        """Its sound (N,), 640 samples per frame at most. Raises InputError without sound."""
        if not self.info.has_sound:
            raise InputError("the clip has no sound", hint="write the sound into the video")
        first = self.window.first * SAMPLES_PER_FRAME
        wave = media.read_video_sound(self.path)[first:]
        return wave if self.frames is None else wave[: self.frames * SAMPLES_PER_FRAME]


def open_generated(path: Path, protocol: Protocol) -> PreparedClip:
    """A generated clip. Raises InputError for no video and for another rate than 25 fps."""
    clip = PreparedClip(path, protocol.fit)
    if not protocol.resample and abs(clip.info.fps - FPS) > RATE_TOLERANCE:
        raise InputError(
            f"the clip runs at {clip.info.fps:g} fps, not {FPS}",
            hint="generate at 25 fps, or pass --resample",
        )
    return clip


def open_reference(
    path: Path, window: ClipWindow, protocol: Protocol, cache: Cache
) -> PreparedClip:
    """A real clip cut, fitted and, unless the protocol leaves it as saved, encoded like ours.

    Raises InputError for no video and for one shorter than its window.
    """
    source = PreparedClip(path, protocol.fit, window)
    available = source.count(cache) - window.first
    wanted = window.frames or available
    if available < wanted:
        raise InputError(
            f"the clip ends {wanted - available} frames before its window does",
            hint="take the clip as the data set's annotations cut it",
        )
    source.frames = wanted
    if not protocol.encode_reference:
        return source

    def encode(path: Path) -> None:
        sound = source.wave() if source.info.has_sound else None
        media.write_video(iter(source), path, FPS, audio=sound, codec="h264", crf=20)

    key = content_key(clip=source.key, encoder="h264", crf=20, marked=False)  # it is real
    encoded = PreparedClip(cache.keep_file(key, ".mp4", encode), protocol.fit)
    encoded.frames = wanted
    return encoded
