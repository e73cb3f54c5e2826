"""Videos in: headers, frames at a constant rate, upright pictures, faults."""

import os
import re
import subprocess
from itertools import islice
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from moda_cli.errors import InputError
from moda_cli.media import (
    decode,
    probe_video,
    read_stamped,
    read_to_and_fro,
    read_video,
    usual_fps,
    write_video,
)
from moda_cli.media.ffmpeg import Reading

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


@pytest.mark.parametrize(("count", "fps"), [(1, 25), (2, 25), (11, 29.97), (11, 25)])
def test_frames_go_to_the_end_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, fps: float
) -> None:
    """Four are held at a time, so that parts of the video are jumped to."""
    monkeypatch.setattr(decode, "HELD_BYTES", 0)
    path = tmp_path / "ramp.mp4"
    write_video(ramp(count), path, fps, crf=5)
    rate = usual_fps(path)
    assert rate == pytest.approx(fps, abs=1e-3)
    period = max(2 * count - 2, 1)
    wanted = [min(k % period, period - k % period) for k in range(3 * count + 5)]
    shown = list(islice(read_to_and_fro(path, rate), len(wanted)))
    assert [number for number, _ in shown] == wanted
    assert [round(float(frame.mean() - 20) / 4) for _, frame in shown] == wanted


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


def test_frames_come_with_the_moments_they_are_shown_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rate, and whatever the folder for scratch files is called."""
    odd = tmp_path / "it's, [o]dd:ly; named"
    odd.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    steady, thinned, fast = (tmp_path / name for name in ("30.mkv", "vfr.mkv", "60.mp4"))
    write_video(ramp(45), steady, 30, crf=5)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(steady)]
    command += ["-vf", "select='not(mod(n,4))+gt(n,20)'", "-fps_mode", "vfr", str(thinned)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    for path, numbers in ((steady, range(45)), (thinned, [0, 4, 8, 12, 16, 20, *range(21, 45)])):
        frames, seconds = zip(*read_stamped(path), strict=True)
        levels = np.array([frame.mean() for frame in frames])
        assert np.allclose(levels, [20 + 4 * number for number in numbers], atol=2.5)
        assert np.allclose(seconds, np.array(numbers) / 30, atol=2e-3)
    write_video(ramp(50), fast, 60, crf=5)
    seconds = [at for _, at in read_stamped(fast)]
    assert np.allclose(seconds, np.arange(25) / 30, atol=1e-3)  # every second one
    (tmp_path / "none.mp4").write_bytes(b"\0" * 2000)
    with pytest.raises(InputError, match=r"none\.mp4"):
        list(read_stamped(tmp_path / "none.mp4"))


def test_a_log_read_while_it_is_written_keeps_its_lines() -> None:
    source = ["-f", "lavfi", "-i", "testsrc2=s=16x16:r=25:d=60", "-vf", "showinfo"]
    command = ["-loglevel", "info", *source, "-f", "framecrc", "pipe:1"]
    with Reading(command, "a test picture") as run:
        seen = ""
        while run.line():
            assert run.log().startswith(seen)
            seen = run.log()
        assert run.end() == 0
        numbers = [int(row) for row in re.findall(r"showinfo.* n: *(\d+) ", run.log())]
    assert numbers == list(range(1500))
