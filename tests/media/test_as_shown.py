"""What is read of a video is what a player shows and plays, at the same moment.

The player is ffmpeg itself: one process that decodes both tracks on one clock.
"""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from media_files import ffmpeg, make
from moda_cli.errors import InputError
from moda_cli.media import ffmpeg as media_ffmpeg
from moda_cli.media import probe_video, read_video, read_video_sound

RATE = 16_000
LUMA = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}
PATCHES = np.array([[200, 60, 40], [50, 160, 70], [40, 70, 190], [225, 170, 140]]) / 255
EXACT = ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int"]
X265 = ["libx265", "-preset", "ultrafast", "-x265-params", "lossless=1:log-level=error"]
LOSSLESS = ["libx264", "-preset", "ultrafast", "-qp", "0"]
VP9 = ["libvpx-vp9", "-lossless", "1", "-deadline", "realtime", "-cpu-used", "8"]
FFV1 = ["ffv1"]
MPEG2 = ["mpeg2video", "-q:v", "1"]
# by container: the picture's encoder for each depth, the sound's
FILES: dict[str, tuple[dict[int, list[str]], str]] = {
    "mp4": ({8: LOSSLESS, 10: LOSSLESS, 12: X265}, "aac"),
    "mov": ({8: LOSSLESS, 10: ["prores_ks", "-q:v", "2"], 12: X265}, "pcm_s16le"),
    "mkv": ({8: FFV1, 10: FFV1, 12: FFV1}, "flac"),
    "webm": ({8: VP9, 10: VP9, 12: VP9}, "libopus"),
    "ts": ({8: LOSSLESS, 10: LOSSLESS, 12: X265}, "mp2"),
    "mpg": ({8: MPEG2}, "mp2"),
    "avi": ({8: ["mpeg4", "-q:v", "1"], 10: FFV1, 12: FFV1}, "mp3"),
}


def ycc(rgb: NDArray[np.float64], matrix: str) -> NDArray[np.float64]:
    """Y in [0, 1], Cb and Cr in [-0.5, 0.5] of R'G'B' (..., 3) in [0, 1]."""
    red, blue = LUMA[matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    cb, cr = (rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)
    return np.stack((luma, cb, cr), axis=-1)


def samples(rgb: NDArray[np.float64], matrix: str, full: bool, bits: int) -> bytes:
    """A 4:4:4 picture's planes."""
    values = ycc(rgb, matrix)
    scale = 2 ** (bits - 8)
    if full:
        levels = values * (2**bits - 1) + np.array([0, 128, 128]) * scale
    else:
        levels = (values * [219, 224, 224] + [16, 128, 128]) * scale
    whole = np.rint(levels).clip(0, 2**bits - 1).astype(np.uint8 if bits == 8 else "<u2")
    return np.moveaxis(whole, -1, 0).tobytes()


def painted(level: float, width: int, height: int) -> NDArray[np.float64]:
    """Four stripes of colour, below them grey of this level."""
    picture = np.full((height, width, 3), level)
    for k, colour in enumerate(PATCHES):
        picture[: height // 2, k * width // 4 : (k + 1) * width // 4] = colour
    return picture


def level_of(number: int) -> float:
    """The grey of a frame, unlike those near it."""
    return (40 + 53 * number % 171) / 255


@dataclass(frozen=True)
class Video:
    """How a file of two seconds is made."""

    suffix: str = "mp4"
    bits: int = 8
    matrix: str = "bt709"
    full: bool = False
    width: int = 64
    height: int = 48
    aspect: str = "1"  # of a pixel
    rate: str = "25"
    keep: str = "1"  # which frames, as ffmpeg's expression: a variable rate
    late: float = 0.0  # the sound after the picture, seconds
    turned: int = 0  # degrees
    chroma: str = "444"
    tags: str = ""

    def write(self, folder: Path) -> Path:
        codecs, sound = FILES[self.suffix]
        path, frames = folder / f"made.{self.suffix}", folder / "frames.yuv"
        top, _, bottom = self.rate.partition("/")
        count = round(2 * float(top) / float(bottom or 1))
        pictures = (painted(level_of(k), self.width, self.height) for k in range(count))
        frames.write_bytes(
            b"".join(samples(p, self.matrix, self.full, self.bits) for p in pictures)
        )
        soundfile.write(folder / "sound.wav", noise(), 48_000)
        kind = "" if self.bits == 8 else f"{self.bits}le"
        ahead = [["-itsoffset", max(0.0, side)] for side in (-self.late, self.late)]
        tags = self.tags or f"colorspace={self.matrix}:color_primaries=bt709:color_trc=bt709"
        filters = f"select='{self.keep}',setsar={self.aspect},"
        filters += f"setparams=range={'pc' if self.full else 'tv'}:{tags}"
        make(
            *ahead[0], "-f", "rawvideo", "-pix_fmt", f"yuv444p{kind}", "-r", self.rate,
            "-s", f"{self.width}x{self.height}", "-i", frames, *ahead[1], "-i",
            folder / "sound.wav", "-map", "0:v", "-map", "1:a", "-vf", filters, "-fps_mode",
            "cfr" if self.suffix == "avi" or self.keep == "1" else "vfr", "-pix_fmt",
            f"yuv{self.chroma}p{kind}", "-c:v", *codecs[self.bits], "-c:a", sound, path,
        )  # fmt: skip
        if self.turned:
            flat = path.rename(folder / f"flat.{self.suffix}")
            make("-display_rotation", self.turned, "-i", flat, "-c", "copy", path)
        return path


def noise() -> NDArray[np.float32]:
    """Sound of which every part is unlike every other, 1.6 s at 48 kHz."""
    rng = np.random.default_rng(0)
    return np.repeat(rng.uniform(-0.3, 0.3, 76_800 // 16), 16).astype(np.float32)


@dataclass(frozen=True)
class Played:
    """What one process of ffmpeg makes of both tracks."""

    stamps: NDArray[np.float64]  # of each picture, seconds
    frames: NDArray[np.uint8]  # all pictures, upright, as saved
    wave: NDArray[np.float32]  # from the file's first stamp on

    @property
    def first_s(self) -> float:
        return float(self.stamps[0])


def play(path: Path, folder: Path) -> Played:
    told = ffmpeg(
        "-i", path, "-map", "0:v:0", "-vf", "showinfo", *EXACT, "-fps_mode", "passthrough",
        "-pix_fmt", "rgb24", "-f", "rawvideo", folder / "played.rgb", "-map", "0:a:0", "-af",
        "aresample=48000:async=1:first_pts=0", "-c:a", "pcm_f32le", folder / "played.wav",
    ).stderr.decode()  # fmt: skip
    found = re.findall(r"n: *\d+ .* pts_time:(\S+) .* s:(\d+)x(\d+)", told)
    height, width = int(found[0][2]), int(found[0][1])
    frames = np.fromfile(folder / "played.rgb", np.uint8).reshape(-1, height, width, 3)
    wave, _ = soundfile.read(folder / "played.wav", dtype="float32")
    return Played(np.array([float(row[0]) for row in found]), frames, wave)


def lag_s(heard: NDArray[np.float32], played: NDArray[np.float32]) -> float:
    """Seconds by which 16 kHz sound comes after the same at 48 kHz."""
    theirs = played[: len(played) // 3 * 3].reshape(-1, 3).mean(axis=1)
    size = 2 * max(len(heard), len(theirs))
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(theirs, size))
    peak = int(np.fft.irfft(product, size).argmax())
    return (peak if peak < size // 2 else peak - size) / RATE


def assert_as_played(path: Path, folder: Path) -> list[NDArray[np.uint8]]:
    """The frames of a video, which show at each moment what the player shows, and so its sound."""
    played, frames = play(path, folder), list(read_video(path))
    times = 25 * (played.stamps - played.first_s)
    assert abs(len(frames) - times[-1] - 1) <= 26 / 25 + times[-1] - times[-2]
    for k, frame in enumerate(frames):
        # the picture in the middle of the frame's time; one whose stamp is just there may be either
        shown = {int(np.searchsorted(times, k + 0.5 + e)) - 1 for e in (-0.03, 0.03)}
        grey = frame[-frame.shape[0] // 5 :].mean()
        theirs = [played.frames[n][-played.frames.shape[1] // 5 :].mean() for n in shown]
        assert min(abs(grey - level) for level in theirs) < 4, (k, shown, grey, theirs)
    wave = read_video_sound(path)
    assert abs(lag_s(wave, played.wave) + played.first_s) < 0.002
    return frames


@st.composite
def videos(draw: st.DrawFn) -> Video:
    suffix = draw(st.sampled_from(sorted(FILES)))
    bits = draw(st.sampled_from(sorted(FILES[suffix][0])))
    is_mpeg = suffix == "mpg" or (suffix == "avi" and bits == 8)  # which knows no tags
    tagged = not is_mpeg and suffix != "avi"
    codec = FILES[suffix][0][bits][0]
    chroma = "420" if is_mpeg else "422" if codec == "prores_ks" else "444"
    can_be_odd = chroma == "444"
    return Video(
        suffix,
        bits,
        draw(st.sampled_from(sorted(LUMA))) if tagged else "smpte170m",
        draw(st.booleans()) if tagged and codec in ("libx264", "libx265") else False,
        64 + 16 * draw(st.integers(0, 2)) + (draw(st.integers(0, 1)) if can_be_odd else 0),
        48 + 16 * draw(st.integers(0, 2)) + (draw(st.integers(0, 1)) if can_be_odd else 0),
        draw(st.sampled_from(["1", "4/3", "8/9"])) if suffix not in ("avi", "mpg") else "1",
        draw(st.sampled_from(["25", "24000/1001", "30", "50", "60"])),
        "1" if suffix == "mpg" else draw(st.sampled_from(["1", "1", "mod(n*n\\,3)"])),
        draw(st.sampled_from([-0.7, -0.4, 0.0, 0.4, 0.94])) if suffix != "avi" else 0.0,
        draw(st.sampled_from([0, 0, 90, 180, 270])) if suffix in ("mp4", "mov") else 0,
        chroma,
    )


@settings(max_examples=60, deadline=None)
@given(video=videos())
def test_videos_are_read_as_they_are_played(video: Video) -> None:
    with TemporaryDirectory() as name:
        path = video.write(Path(name))
        frames = assert_as_played(path, Path(name))
        part = read_video(path, start_s=0.6, duration_s=0.4)
        for whole, again in zip(frames[15:25], part, strict=True):
            assert np.abs(whole.astype(int) - again).mean() < 1
        frame = np.rot90(frames[10], -video.turned // 90).astype(int)
        top, _, bottom = video.aspect.partition("/")
        aspect = video.width / video.height * int(top) / int(bottom or 1)
        height, width = frame.shape[:2]
        assert abs(width / height / aspect - 1) < 0.02
        assert width >= video.width
        assert height >= video.height
        for k, colour in enumerate(PATCHES):
            patch = frame[height // 8 : height // 4, (4 * k + 1) * width // 16 :][:, : width // 8]
            limit = 3 if video.chroma == "444" else 12  # a lossy codec
            assert np.abs(np.median(patch, axis=(0, 1)) - 255 * colour).max() <= limit


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mp4", "mkv", "webm"])
def test_sound_that_starts_after_the_picture_is_placed_so(tmp_path: Path, suffix: str) -> None:
    chroma = "420" if suffix == "mpg" else "444"
    path = Video(suffix, late=0.4, chroma=chroma).write(tmp_path)
    wave = read_video_sound(path)
    assert abs(lag_s(wave, noise()) - 0.4) < 0.03  # a codec's delay that its container cannot say
    assert np.abs(wave[: int(0.34 * RATE)]).max() < 0.02


def in_a_process(code: str, *arguments: object) -> str:
    """What it prints; it must end in a minute."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("bits", [10, 12])
def test_a_video_of_more_than_8_bits_is_read_to_its_end(tmp_path: Path, bits: int) -> None:
    path = Video("mkv", bits).write(tmp_path)
    code = "import sys; from pathlib import Path; from moda_cli.media import read_video as r; "
    code += "print(*{(f.shape, f.dtype.name) for f in r(Path(sys.argv[1]))})"
    assert in_a_process(code, path) == "((48, 64, 3), 'uint8')"


def pq(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The signal of light: SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The signal of light, of grey, on a screen of 1000 nits: ARIB STD-B67."""
    scene = (nits / 1000) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    upper = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


@pytest.mark.parametrize(("name", "curve"), [("smpte2084", pq), ("arib-std-b67", hlg)])
def test_hdr_is_shown_as_on_a_screen_without_it(tmp_path: Path, name: str, curve: object) -> None:
    """Light below graphics white keeps its level; highlights are compressed, none is lost."""
    nits = np.array([1.0, 10, 40, 80, 203, 600, 1000])
    row = np.repeat(curve(nits), 16)  # type: ignore[operator]
    picture = np.broadcast_to(row[None, :, None], (32, len(row), 3)).astype(float)
    raw, path = tmp_path / "hdr.yuv", tmp_path / "hdr.mp4"
    raw.write_bytes(5 * samples(picture, "bt2020nc", False, 10))
    tags = f"range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc={name}"
    make(
        "-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-r", 25, "-s", f"{len(row)}x32", "-i", raw,
        "-vf", f"setparams={tags}", "-c:v", *X265, path,
    )  # fmt: skip
    levels = next(read_video(path))[16, 8::16].astype(int)
    assert (np.ptp(levels, axis=1) <= 2).all()  # grey stays grey
    kept = 255 * (nits[:4] / 203) ** (1 / 2.4)  # BT.1886
    assert np.abs(levels[:4, 0] - kept).max() <= 3
    assert 215 <= levels[4, 0] <= 240
    assert levels[4, 0] < levels[5, 0] < levels[6, 0]


def test_a_wide_gamut_is_brought_into_the_screens(tmp_path: Path) -> None:
    """A skin tone of Rec. 2020 primaries; taken as BT.709 it would come out pale."""
    to_wide = np.array(  # linear BT.709 to BT.2020, ITU-R BT.2087
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    skin = np.array([225, 150, 120]) / 255
    signal = (to_wide @ skin**2.4) ** (1 / 2.4)
    picture, raw = np.broadcast_to(signal, (32, 32, 3)), tmp_path / "wide.yuv"
    raw.write_bytes(3 * samples(picture, "bt2020nc", False, 10))
    path = tmp_path / "wide.mkv"
    tags = "range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc=bt2020-10"
    make(
        "-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-r", 25, "-s", "32x32", "-i", raw,
        "-vf", f"setparams={tags}", "-c:v", "ffv1", path,
    )  # fmt: skip
    assert np.abs(next(read_video(path))[16, 16] - 255 * skin).max() <= 2


@pytest.mark.parametrize(("height", "matrix"), [(576, "smpte170m"), (720, "bt709")])
def test_a_video_that_does_not_name_its_matrix(tmp_path: Path, height: int, matrix: str) -> None:
    """Players take it for BT.709 where it is of high definition."""
    untagged = "colorspace=unknown:color_primaries=unknown:color_trc=unknown"
    video = Video("mkv", 8, matrix, height=height, tags=untagged)
    frame = next(read_video(video.write(tmp_path))).astype(int)
    shown = frame[height // 4, 8::16][:4]
    assert np.abs(shown - 255 * PATCHES).max() <= 2


def test_a_part_shows_what_was_on_at_its_start(tmp_path: Path) -> None:
    """Of two pictures a second: the one that had begun, not the next to come."""
    path = Video("mkv", rate="2").write(tmp_path)
    part = list(read_video(path, start_s=0.7, duration_s=0.4))
    greys = [frame[-4:].mean() / 255 for frame in part]
    assert np.allclose(greys, [level_of(1)] * 8 + [level_of(2)] * 2, atol=0.01)


def test_a_video_that_stalls_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_ffmpeg, "STALL_S", 0.5)
    path = Video("mkv", width=640, height=480, rate="60").write(tmp_path)
    frames = read_video(path)
    next(frames)
    listed = subprocess.run(["pgrep", "-f", str(path)], capture_output=True, text=True, check=True)
    (process,) = map(int, listed.stdout.split())
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(InputError, match=r"made\.mkv stalls"):
        list(frames)
    assert subprocess.run(["pgrep", "-f", str(path)], capture_output=True, text=True).stdout == ""


def test_time_stamps_that_jump_by_hours_are_named(tmp_path: Path) -> None:
    """Else one picture would be held, and looked at, a million times."""
    path = tmp_path / "jump.mkv"
    make(
        "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2", "-vf",
        "setpts='PTS+gt(N\\,25)*36000/TB'", "-fps_mode", "vfr", "-c:v", "libx264", path,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"time stamps of .*jump\.mkv jump: .* 10 h"):
        probe_video(path)


def test_a_picture_that_is_no_moving_one(tmp_path: Path) -> None:
    """The cover of a recording is no video."""
    make("-f", "lavfi", "-i", "color=s=64x64:d=0.04", "-frames:v", 1, tmp_path / "cover.png")
    path = tmp_path / "song.m4a"
    make(
        "-f", "lavfi", "-i", "sine=d=1", "-i", tmp_path / "cover.png", "-map", 0, "-map", 1,
        "-c:v", "copy", "-disposition:v", "attached_pic", path,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"song\.m4a as a video"):
        probe_video(path)


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mp4"])
def test_a_part_far_into_a_video_is_that_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    make(
        "-f", "lavfi", "-i", "testsrc2=s=64x48:r=30:d=30", "-itsoffset", 0.3, "-f", "lavfi", "-i",
        "sine=d=30", "-c:v", "mpeg2video" if suffix == "mpg" else "libx264", "-g", 120,
        "-pix_fmt", "yuv420p", "-c:a", "mp2" if suffix == "mpg" else "aac", path,
    )  # fmt: skip
    whole = list(read_video(path))[505:530]
    part = list(read_video(path, start_s=20.2, duration_s=1))
    assert len(part) == 25
    np.testing.assert_array_equal(part, whole)
