"""Frames of a video file, one by one."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from moda_cli.config import FPS
from moda_cli.errors import InputError
from moda_cli.media.ffmpeg import check_not_stopped, ffmpeg, file_input, first_error
from moda_cli.media.pictures import Picture

VIDEO_HINT = "use a video that ffmpeg reads: MP4, MOV, MKV, WebM, AVI"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video's header says."""

    fps: float
    duration_s: float
    has_sound: bool


def probe_video(path: Path) -> VideoInfo:
    """The header of a video. Raises InputError for a file without moving pictures."""
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="check the path")
    # not imageio_ffmpeg.read_frames: it forks through Python, where Ctrl-C may get lost
    command = [*ffmpeg(), "-loglevel", "info", *file_input(path)]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    check_not_stopped(told.returncode, str(path))
    header = told.stderr.decode(errors="replace")
    video = re.search(r"^ *Stream #.*: Video: .* \d+x\d+.*", header, re.MULTILINE)
    if not video:
        raise InputError(f"cannot read {path} as a video", hint=VIDEO_HINT)
    rate = re.search(r" ([\d.]+) fps", video[0])
    clock = re.search(r"Duration: (\d+):(\d+):([\d.]+)", header)
    hours, minutes, seconds = map(float, clock.groups()) if clock else (0.0, 0.0, 0.0)
    duration_s = (60 * hours + minutes) * 60 + seconds
    has_sound = re.search(r"^ *Stream #.*: Audio: ", header, re.MULTILINE) is not None
    return VideoInfo(float(rate[1]) if rate else 0.0, duration_s, has_sound)


def read_video(
    path: Path, fps: float = FPS, *, start_s: float = 0.0, duration_s: float | None = None
) -> Iterator[Picture]:
    """Yield frames, uint8 (H, W, 3) RGB, upright, resampled to a constant rate.

    Raises InputError for a file that cannot be decoded to its end.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="check the path")
    seek = ["-ss", f"{start_s:.6f}"] if start_s else []
    limit = [] if duration_s is None else ["-t", f"{duration_s:.6f}"]
    output = ["-map", "0:v:0", "-vf", f"fps={fps}", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*ffmpeg(), *seek, *file_input(path), *limit, *output],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdout is not None
        count = 0
        try:
            while (frame := _read_ppm(process.stdout)) is not None:
                count += 1
                yield frame
            code = process.wait()
            check_not_stopped(code, str(path))
            if code != 0 or count == 0:
                reason = first_error(log)
                raise InputError(f"cannot read {path} as a video: {reason}", hint=VIDEO_HINT)
        finally:
            with suppress(OSError):
                process.stdout.close()
            process.kill()
            process.wait()


def _read_ppm(pipe: IO[bytes]) -> Picture | None:
    """The next picture of a stream of binary PPM files, None at its end."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = map(int, pipe.readline().split())
    pipe.readline()  # the largest value, 255
    data = pipe.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
