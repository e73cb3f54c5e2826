import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from media_files import decode_frames, decode_sound, lag, make, probe
from moda_cli.errors import DeviceError, InputError, UsageError
from moda_cli.media import CONTAINERS, check_output, read_audio, write_video
from moda_cli.media.formats import check_encoder
from moda_cli.media.provenance import NOTICE, read_record

FRAMES, FPS = 30, 25
VIDEOS = [suffix for suffix in CONTAINERS if suffix not in (".gif", ".png")]


def chirp(rate: int, seconds: float = 1.2) -> np.ndarray:
    """A rising tone with clicks: its correlation has one sharp peak."""
    time = np.arange(round(rate * seconds)) / rate
    tone = 0.4 * np.sin(2 * np.pi * (200 * time + 900 * time**2))
    tone[:: rate // 7] = 0.8
    return tone.astype(np.float32)


def frames(count: int = FRAMES) -> Iterator[np.ndarray]:
    """A bright bar that walks to the right, in one buffer that is used again."""
    frame = np.zeros((48, 64, 3), np.uint8)
    for index in range(count):
        frame[:] = (200, 60, 30)
        frame[:, 2 * index : 2 * index + 4] = (20, 220, 240)
        yield frame


# Sound in


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("a.wav", 16000, 1), ("b.wav", 48000, 2), ("c.flac", 44100, 2), ("d.ogg", 48000, 2),
     ("e.mp3", 44100, 2), ("f.m4a", 48000, 2), ("g.opus", 48000, 1), ("h.mka", 22050, 1),
     ("i.mp4", 44100, 2), ("j.wav", 8000, 6), ("k.aiff", 96000, 1)],
)  # fmt: skip
def test_every_kind_of_sound_is_heard_in_place(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    sound = chirp(rate)
    soundfile.write(tmp_path / "source.wav", np.stack([sound] * channels, 1), rate, subtype="FLOAT")
    path = tmp_path / name
    picture = ["-f", "lavfi", "-i", "testsrc=s=64x48:d=1.2"] if name.endswith("mp4") else []
    make(*picture, "-i", tmp_path / "source.wav", path)
    wave = read_audio(path)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    expected = chirp(16000)
    codec_frame = 16000 * 2304 / rate
    assert -1 <= len(wave) - len(expected) <= codec_frame
    assert abs(lag(wave, expected)) <= 1
    if name.endswith((".wav", ".flac")):
        assert len(wave) == -(-len(sound) * 16000 // rate)


def test_16_khz_mono_is_taken_as_it_is(tmp_path: Path) -> None:
    sound = chirp(16000)
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), sound)


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack((chirp(16000), np.zeros(19200, np.float32)), axis=1)
    soundfile.write(tmp_path / "a.wav", both, 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), both[:, 0] / 2, atol=1e-7)


def test_resampling_is_librosas(tmp_path: Path) -> None:
    librosa = pytest.importorskip("librosa")
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (150_001, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
    expected, _ = librosa.load(tmp_path / "a.wav", sr=16000)
    wave = read_audio(tmp_path / "a.wav")
    assert len(wave) == len(expected)
    np.testing.assert_allclose(wave, expected, atol=1e-4)  # soxr's float32 passes differ by block


def test_loud_samples_are_clipped_and_silence_is_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 3 * chirp(16000), 16000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "loud.wav")).max() == 1
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    assert not read_audio(tmp_path / "silent.wav").any()


@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_sound_on_standard_input(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(16000), 16000)
    make("-i", tmp_path / "a.wav", tmp_path / f"b.{kind}")
    script = "import sys; from pathlib import Path; from moda_cli.media import read_audio as r; "
    script += "sys.stdout.buffer.write(r(Path('-')).tobytes())"
    data = (tmp_path / f"b.{kind}").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=True
    )
    heard = np.frombuffer(done.stdout, np.float32)
    assert abs(lag(heard, chirp(16000))) <= 1


def test_unusable_sound_is_named(tmp_path: Path) -> None:
    for name, content in {"empty.wav": b"", "text.mp3": b"words, not sound\n" * 40}.items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "short.wav", np.zeros(639), 16000)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    nan = np.full(16000, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 16000, subtype="FLOAT")
    make("-f", "lavfi", "-i", "testsrc=s=64x48:d=1", tmp_path / "mute.mp4")
    messages = {
        "missing.wav": "there is no file", "empty.wav": "is empty", "text.mp3": "is text",
        "short.wav": "lasts 39 ms", "nothing.wav": "lasts 0 ms", "nan.wav": "not numbers",
        "mute.mp4": "no sound track",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(InputError, match=message) as raised:
            read_audio(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
    soundfile.write(tmp_path / "enough.wav", np.zeros(640), 16000)
    assert len(read_audio(tmp_path / "enough.wav")) == 640


def test_a_sound_that_breaks_off_is_refused_and_a_torn_tail_is_not(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(16000, 6.0), 16000)
    make("-i", tmp_path / "a.wav", "-movflags", "+faststart", tmp_path / "a.m4a")
    make("-i", tmp_path / "a.wav", tmp_path / "a.mp3")
    whole = (tmp_path / "a.m4a").read_bytes()
    path = tmp_path / "b.m4a"
    path.write_bytes(whole[: len(whole) // 4] + bytes(len(whole) - len(whole) // 4))
    with pytest.raises(InputError, match=r"b\.m4a is damaged \d\.\d s from its start"):
        read_audio(path)
    path = tmp_path / "b.mp3"
    path.write_bytes((tmp_path / "a.mp3").read_bytes()[:-50] + b"\xa5" * 300)
    assert len(read_audio(path)) / 16000 == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.m4a"])
def test_sound_that_ends_early_is_refused(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "whole.wav", np.tile(chirp(16000), 5), 16000)
    make("-i", tmp_path / "whole.wav", "-movflags", "faststart", tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=f"{name} ends early.* 3.0 (of 6.0 )?s"):
        read_audio(tmp_path / name)


def test_wav_of_unknown_length_is_taken_as_it_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", chirp(16000), 16000)
    data = bytearray((tmp_path / "whole.wav").read_bytes())
    at = data.index(b"data") + 4
    samples = (len(data) - at - 4) // 2
    for size in (0, 0x7FFFFFFF, 0x80000000 - 36, 0xFFFFFFFF, 2 * samples + 100):
        data[at : at + 4] = size.to_bytes(4, "little")
        (tmp_path / "piped.wav").write_bytes(data)
        assert len(read_audio(tmp_path / "piped.wav")) == samples, hex(size)


def test_a_playlist_fetches_nothing(tmp_path: Path) -> None:
    text = "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/sound.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.m3u8").write_text(text)
    with pytest.raises(InputError, match="is text"):
        read_audio(tmp_path / "a.m3u8")


# Video out


@pytest.mark.parametrize("suffix", VIDEOS)
def test_containers_hold_every_frame_sound_and_the_notice(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(44100), 44100)
    path = tmp_path / f"out{suffix}"
    seen: list[int] = []
    count = write_video(
        frames(), path, FPS, audio=tmp_path / "a.wav", said={"seed": 7}, on_frame=seen.append
    )
    assert count == FRAMES
    assert seen == list(range(1, FRAMES + 1))
    report = probe(path)
    assert "64x48" in report
    assert "25 fps" in report
    assert "bt709" in report
    assert "Audio:" in report
    assert re.search(r"(?i)title\s+: " + re.escape(NOTICE), report)
    assert read_record(path) == {"notice": NOTICE, "seed": 7}
    shown = decode_frames(path)
    assert len(shown) == FRAMES
    for sent, got in zip(frames(), shown, strict=True):  # in order, in colour, no buffer reused
        assert np.abs(sent[20, ::8].astype(int) - got[20, ::8]).mean() < 14
    assert np.abs(shown[0][20, 40].astype(int) - (200, 60, 30)).max() <= 6


@pytest.mark.parametrize("suffix", VIDEOS)
@pytest.mark.parametrize("source", ["a.wav", "a.mp3", "a.m4a", "a.mkv", "wave"])
def test_sound_starts_with_the_first_frame(tmp_path: Path, suffix: str, source: str) -> None:
    rate = 16000 if source == "wave" else 44100
    sound = chirp(rate)
    soundfile.write(tmp_path / "a.wav", sound, rate)
    audio: Path | np.ndarray = sound if source == "wave" else tmp_path / source
    if source not in ("wave", "a.wav"):
        late = ["-itsoffset", "0.5"] if source == "a.mkv" else []  # sound that starts late
        make(*late, "-i", tmp_path / "a.wav", audio)
    path = tmp_path / f"out{suffix}"
    write_video(frames(), path, FPS, audio=audio)
    heard = decode_sound(path, rate)
    assert abs(lag(heard, sound)) <= (0 if source in ("wave", "a.wav") else 1)
    assert -1 <= len(heard) - len(sound) <= 2304
    if source != "wave":  # the motion hears what the viewer hears
        assert abs(lag(read_audio(audio), decode_sound(path, 16000))) <= 1


def test_sound_outlasting_the_frames_is_kept(tmp_path: Path) -> None:
    sound = chirp(16000, 3.0)
    write_video(frames(10), tmp_path / "a.mp4", FPS, audio=sound)
    assert len(decode_sound(tmp_path / "a.mp4", 16000)) >= len(sound)
    assert len(decode_frames(tmp_path / "a.mp4")) == 10


def test_chapters_and_tags_of_the_sound_stay_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(16000), 16000)
    tags = ";FFMETADATA1\ntitle=private\n[CHAPTER]\nTIMEBASE=1/10\nSTART=0\nEND=5\ntitle=secret\n"
    (tmp_path / "tags").write_text(tags)
    make("-i", tmp_path / "a.wav", "-i", tmp_path / "tags", "-map_metadata", 1, tmp_path / "a.m4a")
    write_video(frames(), tmp_path / "out.mp4", FPS, audio=tmp_path / "a.m4a")
    report = probe(tmp_path / "out.mp4")
    assert "private" not in report
    assert "secret" not in report


@pytest.mark.parametrize(
    ("suffix", "codec", "shown"),
    [
        (".mp4", "hevc", "hevc"),
        (".mp4", "av1", "av1"),
        (".mkv", "vp9", "vp9"),
        (".webm", "av1", "av1"),
        pytest.param(".mp4", "h264_nvenc", "h264", marks=pytest.mark.gpu),
        pytest.param(".mov", "hevc_nvenc", "hevc", marks=pytest.mark.gpu),
    ],
)
def test_codecs(tmp_path: Path, suffix: str, codec: str, shown: str) -> None:
    path = tmp_path / f"a{suffix}"
    tall = [np.full((192, 256, 3), 20 * index, np.uint8) for index in range(5)]
    write_video(tall, path, 29.97, codec=codec)
    assert f"Video: {shown}" in probe(path)
    assert "29.97 fps" in probe(path)
    assert "Audio" not in probe(path)


@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_an_encoder_of_a_gpu_that_is_not_there_is_said_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_encoder.cache_clear()
    drawn = frames()
    with pytest.raises(DeviceError, match=f"{codec} cannot start: .*") as caught:
        write_video(drawn, tmp_path / "a.mp4", FPS, codec=codec, crf=30)
    assert "Option" not in str(caught.value)  # ffmpeg knew what it was asked for
    assert len(list(drawn)) == FRAMES
    assert not any(tmp_path.iterdir())


def test_crf_is_obeyed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
    sizes = []
    for crf in (10, 40):
        write_video(noise, tmp_path / "a.mp4", FPS, crf=crf)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_gif(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    assert write_video(frames(), path, FPS, audio=chirp(16000), said={"seed": 7}) == FRAMES
    picture = Image.open(path)
    assert picture.n_frames == FRAMES
    assert picture.info["duration"] == 40
    assert picture.info["loop"] == 0
    picture.seek(FRAMES - 1)
    assert np.abs(np.array(picture.convert("RGB"))[20, 40].astype(int) - (200, 60, 30)).max() <= 10
    assert read_record(path) == {"notice": NOTICE, "seed": 7}


def test_numbered_pictures_replace_an_older_run(tmp_path: Path) -> None:
    pattern = tmp_path / "shots" / "%04d.png"
    assert write_video(frames(12), pattern, FPS) == 12
    (pattern.parent / "notes.txt").write_text("mine")
    assert write_video(frames(5), pattern, FPS, said={}) == 5
    names = [*(f"{index:04d}.png" for index in range(5)), "notes.txt"]
    assert sorted(os.listdir(pattern.parent)) == names
    for index, frame in enumerate(frames(5)):
        shot = Image.open(pattern.parent / f"{index:04d}.png")
        np.testing.assert_array_equal(np.array(shot), frame)
        assert NOTICE in shot.text["Comment"]
    assert os.listdir(tmp_path) == ["shots"]


@pytest.mark.parametrize("suffix", [*VIDEOS, ".gif"])
def test_same_frames_same_bytes(tmp_path: Path, suffix: str) -> None:
    sums = set()
    for _ in range(2):
        write_video(frames(), tmp_path / f"a{suffix}", FPS, audio=chirp(16000))
        sums.add(hashlib.sha256((tmp_path / f"a{suffix}").read_bytes()).hexdigest())
    assert len(sums) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "shots/%d.png"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("done", [0, 3, 80])
def test_a_failed_render_leaves_what_was_there(
    tmp_path: Path, name: str, error: type[BaseException], done: int
) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from frames(done)
        raise error("stop")

    path = tmp_path / name
    if path.suffix != ".png":
        path.write_bytes(b"old")
    with pytest.raises(error, match="stop"):
        write_video(broken(), path, FPS, audio=chirp(16000))
    if path.suffix == ".png":
        assert os.listdir(tmp_path) == []
    else:
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_leaves_no_file_and_no_encoder(tmp_path: Path) -> None:
    script = """
import itertools, sys, time
from pathlib import Path
import numpy as np
from moda_cli.media import write_video

def frames():
    for count in itertools.count():
        if count == 40:
            print("rendering", flush=True)
        time.sleep(0.002)
        yield np.zeros((256, 256, 3), np.uint8)

write_video(frames(), Path("a.mp4"), 25, audio=np.zeros(16000, np.float32))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"rendering\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)  # ends only when the encoder has closed its pipes
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert os.listdir(tmp_path) == []


def test_a_failed_encoder_is_reported_and_stops_the_render(tmp_path: Path) -> None:
    drawn: list[int] = []
    wide = repeat(np.zeros((2, 20_000, 3), np.uint8), 5000)  # more than x264 takes
    with pytest.raises(UsageError, match=r"cannot write .*out.mp4: .+"):
        write_video(
            wide, tmp_path / "out.mp4", FPS, audio=chirp(16000), codec="h264",
            on_frame=drawn.append,
        )  # fmt: skip
    assert len(drawn) < 5000
    assert os.listdir(tmp_path) == []


def test_sound_that_fails_while_it_is_written_fails_the_video(tmp_path: Path) -> None:
    def breaks() -> Iterator[tuple[int, np.ndarray]]:
        yield 16000, chirp(16000)[:, None]
        raise InputError("the sound is damaged")

    with pytest.raises(InputError, match="is damaged"):
        write_video(frames(), tmp_path / "out.mp4", FPS, audio=breaks())
    (tmp_path / "a.wav").write_bytes(b"this is no sound")
    with pytest.raises(InputError, match="is text"):
        write_video(frames(), tmp_path / "out.mp4", FPS, audio=tmp_path / "a.wav")
    assert os.listdir(tmp_path) == ["a.wav"]


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    refused = [
        (tmp_path / "a.avi", None, None), (tmp_path / "a", None, None),
        (tmp_path / "a.png", None, None), (tmp_path / "%d%d.png", None, None),
        (tmp_path / "a.webm", "h264", None), (tmp_path / "a.mp4", "mpeg9", None),
        (tmp_path / "a.mp4", None, 52), (tmp_path / "a.gif", None, 20),
        (tmp_path / "no" / "a.mp4", None, None), (tmp_path / "no" / "no" / "%d.png", None, None),
        (tmp_path / "folder.mp4", None, None), (tmp_path / "a.mp4", "h264_nvenc", 0),
        (tmp_path / "a.webm", "h264_nvenc", None),
    ]  # fmt: skip
    for path, codec, crf in refused:
        with pytest.raises(UsageError):
            check_output(path, codec, crf)
        with pytest.raises(UsageError):
            write_video(iter(()), path, FPS, codec=codec, crf=crf)
    check_output(tmp_path / "A.MP4", "h264", 51)
    check_output(tmp_path / "new" / "%06d.png")
    assert os.listdir(tmp_path) == ["folder.mp4"]


def test_bad_frames_are_a_programming_error(tmp_path: Path) -> None:
    good = np.zeros((48, 64, 3), np.uint8)
    for bad in ([], [good[:47]], [good, good[:40]], [good.astype(np.float32)], [good[..., 0]]):
        with pytest.raises(ValueError, match="frame"):
            write_video(bad, tmp_path / "a.mp4", FPS)
    assert os.listdir(tmp_path) == []


def test_names_with_spaces_quotes_and_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("-it's a: sound 声.wav", chirp(16000), 16000)
    path = Path('-a "clip" 顔.mp4')
    write_video(frames(), path, FPS, audio=Path("-it's a: sound 声.wav"))
    assert len(decode_frames(Path.cwd() / path)) == FRAMES
