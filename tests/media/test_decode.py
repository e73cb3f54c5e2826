"""Videos in: headers, frames at a constant rate, upright pictures, faults."""

import os
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from moda_cli.errors import InputError
from moda_cli.media import probe_video, read_video, write_video

HEIGHT, WIDTH = 48, 64


def ramp(count: int) -> list[np.ndarray]:
    """Frames whose grey level tells their number."""
    return [np.full((HEIGHT, WIDTH, 3), 20 + 4 * index, np.uint8) for index in range(count)]


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ramp.mp4"
    write_video(ramp(50), path, 25, crf=5)
    info = probe_video(path)
    assert (info.fps, info.has_sound) == (25, False)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
    levels = [frame.mean() for frame in read_video(path)]
    assert np.allclose(levels, [20 + 4 * index for index in range(50)], atol=2)


@pytest.mark.parametrize("fps", [24, 30, 50])
def test_other_rates_are_resampled_to_25(tmp_path: Path, fps: int) -> None:
    path = tmp_path / "ramp.mkv"
    write_video(ramp(fps), path, fps, crf=5)
    levels = np.array([frame.mean() for frame in read_video(path)])
    assert abs(len(levels) - 25) <= 1
    shown_at = (levels - 20) / 4 / fps  # seconds at which the source shows this picture
    assert np.abs(shown_at - np.arange(len(levels)) / 25).max() <= 1 / fps + 0.005


def test_a_part_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "ramp.mp4"
    write_video(ramp(50), path, 25, crf=5)
    levels = [frame.mean() for frame in read_video(path, start_s=0.4, duration_s=0.8)]
    assert np.allclose(levels, [20 + 4 * index for index in range(10, 30)], atol=2)


def test_a_turned_video_comes_upright(tmp_path: Path) -> None:
    flat, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    write_video(ramp(5), flat, 25)
    turn = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", flat]
    subprocess.run([*turn, "-c", "copy", turned], check=True)
    assert next(read_video(turned)).shape == (WIDTH, HEIGHT, 3)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.mp4", tmp_path / "cut.mp4"
    text.write_text("not a video")
    write_video(ramp(50), cut, 25)
    cut.write_bytes(cut.read_bytes()[:400])
    for path in (text, cut, tmp_path / "absent.mp4"):
        with pytest.raises(InputError, match=path.name):
            list(read_video(path))
        with pytest.raises(InputError, match=path.name):
            probe_video(path)


def test_a_header_is_read_without_a_fork_through_python(tmp_path: Path) -> None:
    """Ctrl-C in one of Python's fork hooks is lost: the run would go on."""
    path = tmp_path / "ramp.mp4"
    write_video(ramp(5), path, 25)
    forks: list[int] = []
    os.register_at_fork(before=lambda: forks.append(1))
    assert probe_video(path).fps == 25
    assert not forks


def test_stopping_early_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "ramp.mp4"
    write_video(ramp(50), path, 25)
    frames = read_video(path)
    next(frames)
    frames.close()
    listed = subprocess.run(["pgrep", "-f", str(path)], capture_output=True, text=True)
    assert listed.stdout == ""
