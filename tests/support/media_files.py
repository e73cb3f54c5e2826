"""Media files made and read back by ffmpeg."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def ffmpeg(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)


def make(*arguments: object) -> None:
    done = ffmpeg(*arguments)
    assert done.returncode == 0, done.stderr.decode()


def probe(path: Path) -> str:
    return ffmpeg("-i", path).stderr.decode()


def decode_frames(path: Path, width: int = 64, height: int = 48) -> np.ndarray:
    done = ffmpeg(
        "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"
    )
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def decode_sound(path: Path, rate: int) -> np.ndarray:
    done = ffmpeg("-i", path, "-map", "0:a", "-ac", 1, "-ar", rate, "-f", "f32le", "-")
    return np.frombuffer(done.stdout, "<f4")


def lag(heard: np.ndarray, sent: np.ndarray) -> int:
    """Samples by which `heard` comes later, from the peak of the cross-correlation."""
    size = 2 * max(len(heard), len(sent))
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sent, size))
    peak = int(np.fft.irfft(product, size).argmax())
    return peak if peak < size // 2 else peak - size
