"""Transparent video, ProRes and covers, as ffmpeg and our own reader see them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from media_files import ffmpeg, probe
from moda_cli.config import FPS, ClipConfig
from moda_cli.errors import UsageError
from moda_cli.media import check_output, probe_video, read_video, write_video

SIZE = 64


def cut_out(count: int = 12) -> Iterator[np.ndarray]:
    """A red disc on nothing, moving right."""
    y, x = np.mgrid[:SIZE, :SIZE]
    for index in range(count):
        frame = np.zeros((SIZE, SIZE, 4), np.uint8)
        frame[..., 0] = 220
        frame[..., 3] = np.where(np.hypot(x - 20 - 2 * index, y - 32) < 12, 255, 0)
        yield frame


def shown_over_blue(path: Path) -> np.ndarray:
    """Frames (T, H, W, 3) as a compositor lays them over blue."""
    decoder = ["-c:v", "libvpx-vp9"] if path.suffix in (".webm", ".mkv") else []
    ground = ["-f", "lavfi", "-i", f"color=blue:s={SIZE}x{SIZE}:r={FPS}:d=1"]
    over = "[0][1]overlay=shortest=1:format=rgb,format=rgb24"
    done = ffmpeg(*ground, *decoder, "-i", path, "-filter_complex", over, "-f", "rawvideo", "-")
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, SIZE, SIZE, 3)


@pytest.mark.parametrize("suffix", [".mov", ".webm", ".mkv", ".gif", ".png"])
def test_alpha_goes_through_whatever_can_hold_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "shots" / "%03d.png" if suffix == ".png" else tmp_path / f"a{suffix}"
    sound = None if suffix in (".gif", ".png") else np.zeros(8000, np.float32)
    assert write_video(cut_out(), path, FPS, audio=sound) == 12
    shown = shown_over_blue(path)
    assert len(shown) >= 12
    for index in (0, 11):
        red, blue = shown[index, 32, 20 + 2 * index], shown[index, 32, 60 - 5 * index]
        assert red[0] > 180, index
        assert red[2] < 60, index
        assert blue[2] > 180, index
        assert blue[0] < 40, index


def test_prores_is_4444_and_bt709(tmp_path: Path) -> None:
    write_video(cut_out(), tmp_path / "a.mov", FPS)
    assert "prores (4444)" in probe(tmp_path / "a.mov")
    assert "yuva444p" in probe(tmp_path / "a.mov")
    opaque = [frame[..., :3] for frame in cut_out()]
    write_video(opaque, tmp_path / "b.mov", FPS, codec="prores", crf=20)
    assert "yuv444p" in probe(tmp_path / "b.mov")
    for sent, got in zip(opaque, read_video(tmp_path / "b.mov"), strict=True):
        assert np.abs(sent.astype(int) - got).max() <= 6


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", None), ("-", None), ("a.mov", "h264"), ("a.webm", "av1")]
)
def test_what_cannot_be_transparent_says_so(name: str, codec: str | None) -> None:
    with pytest.raises(UsageError, match="cannot be transparent") as raised:
        check_output(Path(name), codec, alpha=True)
    assert ".webm (VP9)" in raised.value.hint


@pytest.mark.parametrize("name", ["-", "a.gif", "shots/%03d.png"])
def test_what_holds_no_track_says_so(name: str) -> None:
    with pytest.raises(UsageError, match="as a track") as raised:
        check_output(Path(name), track=True)
    assert "burn" in raised.value.hint


@pytest.mark.parametrize(
    ("given", "meant"),
    [("h265", "hevc"), ("X265", "hevc"), ("x264", "h264"), ("avc", "h264"), ("H264", "h264")],
)
def test_codecs_by_their_other_names(given: str, meant: str) -> None:
    assert ClipConfig(Path(), Path(), Path(), codec=given).codec == meant


def test_the_cover_is_the_first_frame_and_no_reader_takes_it_for_the_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = [np.full((48, 64, 3), 20 * index, np.uint8) for index in range(12)]
    frames[0][:, :32] = (220, 40, 40)
    write_video(iter(frames), path, FPS, audio=np.zeros(8000, np.float32))
    assert probe(path).count("(attached pic)") == 1
    done = ffmpeg("-i", path, "-map", "0:v:1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    cover = np.frombuffer(done.stdout, np.uint8).reshape(-1, 48, 64, 3)
    assert len(cover) == 1
    assert np.abs(cover[0, 24, 8].astype(int) - (220, 40, 40)).max() < 12
    assert (probe_video(path).fps, probe_video(path).has_sound) == (FPS, True)
    levels = [int(frame[24, 48, 0]) for frame in read_video(path)]
    assert np.abs(np.array(levels) - 20 * np.arange(12)).max() <= 4
    usual = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-").stdout
    assert len(usual) == 12 * 48 * 64  # what players choose by themselves
