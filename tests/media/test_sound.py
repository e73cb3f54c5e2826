"""What a model hears is what a viewer hears, on one clock, whatever the file."""

import logging
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_files import lag, make, probe
from moda_cli.errors import InputError
from moda_cli.media import read_audio, standard_input, write_video
from moda_cli.media.encode import frame_rate
from moda_cli.media.sound import heard, played, sound_blocks, stored_wave

PICTURE = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=3"]


def voice(rate: int, seconds: float = 1.6, seed: int = 0) -> np.ndarray:
    """Noise below 3 kHz that comes and goes: its correlation has one sharp peak. (N,) float32."""
    count = round(rate * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    spectrum[np.fft.rfftfreq(count, 1 / rate) > 3000] = 0
    sound = np.fft.irfft(spectrum, count) * (1.2 + np.sin(np.arange(count) * 20 / rate))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def shown_sound(path: Path) -> np.ndarray:
    """The mean of a video's channels at 16 kHz, by ffmpeg's own hand."""
    make(
        "-i", path, "-map", "0:a", "-ar", 16000, "-c:a", "pcm_f32le", path.with_suffix(".heard.wav")
    )
    return soundfile.read(path.with_suffix(".heard.wav"), dtype="float32", always_2d=True)[0].mean(
        1
    )


def still(count: int = 5) -> Iterator[np.ndarray]:
    return (np.full((48, 64, 3), 99, np.uint8) for _ in range(count))


def error(made: np.ndarray, wanted: np.ndarray) -> float:
    """Power of the difference, sample by sample, over that of what is wanted."""
    count = min(len(made), len(wanted))
    return float(np.square(made[:count] - wanted[:count]).sum() / np.square(wanted).sum())


def onset(wave: np.ndarray) -> float:
    return float(np.flatnonzero(np.abs(wave) > 0.02)[0] / 16000)


# One clock


@dataclass(frozen=True)
class Recording:
    """How a file is made; `late`, `hole` and `joined` where its container can."""

    suffix: str
    rate: int
    channels: int
    late: float
    hole: bool
    joined: bool


# suffix -> the encoder, whether it keeps time stamps, whether files can be laid end to end
KINDS = {
    ".wav": ("pcm_s16le", False, False), ".flac": ("flac", False, False),
    ".mp3": ("libmp3lame", False, True), ".aac": ("aac", False, True),
    ".ogg": ("libvorbis", False, True), ".m4a": ("aac", False, False),
    ".caf": ("pcm_s16be", False, False), ".ac3": ("ac3", False, True),
    ".mp4": ("aac", True, False), ".mov": ("pcm_s16le", True, False),
    ".mkv": ("libopus", True, False), ".webm": ("libopus", True, False),
    ".ts": ("mp2", True, True), ".mpg": ("mp2", True, False), ".flv": ("libmp3lame", True, False),
}  # fmt: skip
TAKES = {  # rates, and channels at most
    "libmp3lame": ((16000, 22050, 44100, 48000), 2), "mp2": ((32000, 44100, 48000), 2),
    "libopus": ((16000, 48000), 2), "ac3": ((32000, 44100, 48000), 6),
    "libvorbis": ((16000, 44100, 48000), 6), "aac": ((16000, 22050, 44100, 48000), 6),
}  # fmt: skip
PLAIN = ((8000, 11025, 16000, 44100, 48000, 96000), 6)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    suffix = draw(st.sampled_from(sorted(KINDS)))
    encoder, has_stamps, can_join = KINDS[suffix]
    rates, most = TAKES.get(encoder, PLAIN)
    if suffix == ".flv":
        rates = (22050, 44100)
    return Recording(
        suffix,
        draw(st.sampled_from(rates)),
        draw(st.sampled_from([n for n in (1, 2, 6) if n <= most])),
        draw(st.sampled_from([0.0, 0.04, 0.3, 0.94])) if has_stamps else 0.0,
        has_stamps and encoder != "pcm_s16le" and draw(st.booleans()),
        can_join and draw(st.booleans()),
    )


def record(folder: Path, made: Recording) -> tuple[Path, np.ndarray]:
    """The file, and its sound at its rate as it should be heard (N,)."""
    sound = voice(made.rate)
    if made.hole:
        sound[int(0.5 * made.rate) : int(0.9 * made.rate)] = 0
    sides = [sound, 0.6 * sound, 0.8 * sound, 0 * sound, sound, sound][: made.channels]
    soundfile.write(folder / "voice.wav", np.stack(sides, 1), made.rate, subtype="FLOAT")
    path = folder / f"a{made.suffix}"
    encoder, has_stamps, _ = KINDS[made.suffix]
    late = [*PICTURE, "-itsoffset", made.late] if has_stamps else []
    maps = ["-map", "0:v", "-map", "1:a"] if has_stamps else []
    hole = ["-af", "aselect='lt(t,0.5)+gte(t,0.9)'"] if made.hole else []
    layout = ["-ac", made.channels] if made.channels == 6 else []
    make(*late, "-i", folder / "voice.wav", *maps, *hole, *layout, "-c:a", encoder, path)
    sound = np.pad(sound, (round(made.late * made.rate), 0))
    if made.joined:
        path.write_bytes(2 * path.read_bytes())
        rest = 3 * made.rate - len(sound) if has_stamps else 0  # of the first picture
        sound = np.concatenate((np.pad(sound, (0, rest)), sound))
    return path, sound


@settings(
    max_examples=12, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(recordings(), st.sampled_from([".mp4", ".mov", ".mkv", ".webm"]))
def test_the_finished_file_sounds_like_what_was_heard(
    tmp_path: Path, made: Recording, suffix: str
) -> None:
    path, sound = record(tmp_path, made)
    wave = read_audio(path)
    write_video(still(), tmp_path / f"out{suffix}", 25, audio=path)
    shown = shown_sound(tmp_path / f"out{suffix}")
    assert -16 <= len(shown) - len(wave) <= 2304
    assert error(shown, wave) < 0.02, made
    # and it is what was recorded, when it was recorded, but for the delay of old codecs
    time = np.arange(len(sound) * 16000 // made.rate) * made.rate / 16000
    expected = np.interp(time, np.arange(len(sound)), sound).astype(np.float32)
    once = len(expected) // (1 + made.joined)
    assert abs(lag(wave[:once], expected[:once])) <= 16000 * 2400 / made.rate, made
    assert abs(len(wave) - len(expected)) <= 16000 * 4 * 2304 / made.rate, made


def test_silence_before_a_late_track_is_heard_and_played(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", voice(44100), 44100)
    make(*PICTURE, tmp_path / "a.mp4")
    make("-i", tmp_path / "a.mp4", "-itsoffset", 1, "-i", tmp_path / "b.wav", "-map", "0:v",
         "-map", "1:a", "-c:v", "copy", "-c:a", "aac", tmp_path / "late.mp4")  # fmt: skip
    write_video(still(), tmp_path / "out.mp4", 25, audio=tmp_path / "late.mp4")
    wave, shown = read_audio(tmp_path / "late.mp4"), shown_sound(tmp_path / "out.mp4")
    assert onset(wave) == pytest.approx(1, abs=0.05)
    assert abs(lag(shown, wave)) <= 1
    assert error(shown, wave) < 0.02


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".mkv", ".flv"])
def test_sound_keeps_its_place_beside_the_picture(tmp_path: Path, suffix: str) -> None:
    soundfile.write(tmp_path / "b.wav", voice(44100), 44100)
    make(*PICTURE, "-itsoffset", 0.4, "-i", tmp_path / "b.wav", tmp_path / f"a{suffix}")
    assert onset(read_audio(tmp_path / f"a{suffix}")) == pytest.approx(0.4, abs=0.03)


def test_joined_files_of_other_rates_have_no_hole(tmp_path: Path) -> None:
    for name, rate, channels in (("a.ts", 44100, 2), ("b.ts", 22050, 1)):
        sound = np.stack([voice(rate)] * channels, 1)
        soundfile.write(tmp_path / "b.wav", sound, rate)
        make("-i", tmp_path / "b.wav", tmp_path / name)
    both = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(both)
    assert len(read_audio(tmp_path / "joined.ts")) / 16000 == pytest.approx(3.2, abs=0.15)


def test_a_hole_of_hours_is_a_broken_clock(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", voice(44100), 44100)
    jump = ["-af", "asetpts='PTS+gt(T,0.8)*36000/TB'"]
    make("-i", tmp_path / "b.wav", *jump, "-c:a", "libopus", tmp_path / "a.mkv")
    with pytest.raises(InputError, match=r"the time stamps of .*a\.mkv jump"):
        read_audio(tmp_path / "a.mkv")


# As it was recorded


@pytest.mark.parametrize(
    ("rate", "channels", "suffix", "shown"),
    [(44100, 2, ".mp4", "44100 Hz, stereo"), (16000, 1, ".mkv", "16000 Hz, mono"),
     (8000, 1, ".mp4", "48000 Hz, mono"), (96000, 2, ".mov", "48000 Hz, stereo"),
     (37000, 1, ".mp4", "48000 Hz, mono"), (48000, 6, ".mp4", "48000 Hz, stereo"),
     (16000, 12, ".mp4", "16000 Hz, mono"), (22050, 1, ".webm", "48000 Hz, mono")],
)  # fmt: skip
def test_channels_and_rate_are_kept_as_far_as_players_go(
    tmp_path: Path, rate: int, channels: int, suffix: str, shown: str
) -> None:
    sound = np.stack([voice(rate)] * channels, 1)
    soundfile.write(tmp_path / "a.wav", sound, rate)
    write_video(still(), tmp_path / f"out{suffix}", 25, audio=tmp_path / "a.wav")
    assert shown in probe(tmp_path / f"out{suffix}")
    assert error(shown_sound(tmp_path / f"out{suffix}"), read_audio(tmp_path / "a.wav")) < 0.02


def test_channels_that_cancel_are_heard_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = voice(16000)
    for name, other in (("inverted", -sound), ("one", 0 * sound), ("other", voice(16000, seed=1))):
        soundfile.write(tmp_path / f"{name}.wav", np.stack((sound, other), 1), 16000, "FLOAT")
    wave = read_audio(tmp_path / "inverted.wav")
    assert error(wave, sound) < 5e-3  # a hundred samples at first
    assert "inverted.wav cancel each other: only channel 1 is heard" in caplog.text
    caplog.clear()
    np.testing.assert_allclose(read_audio(tmp_path / "one.wav"), sound / 2, atol=1e-6)
    read_audio(tmp_path / "other.wav")
    assert not caplog.text
    write_video(still(), tmp_path / "out.mkv", 25, audio=tmp_path / "inverted.wav")
    assert "stereo" in probe(tmp_path / "out.mkv")


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=5), st.integers(0, 3))
def test_the_mix_is_the_same_however_sound_is_cut(sizes: list[int], seed: int) -> None:
    sound = voice(16000, 1.5, seed)
    both = np.stack((sound, np.where(np.arange(len(sound)) < 6000, 0.3, -1) * sound), 1)
    both = both.astype(np.float32)
    cuts = [part for part in np.split(both, np.cumsum(sizes)) if len(part)]
    whole = np.concatenate(list(heard([(16000, both)], "a")))
    pieces = np.concatenate(list(heard([(16000, part) for part in cuts], "a")))
    np.testing.assert_array_equal(pieces, whole)


# More or less than was promised


@pytest.mark.parametrize("name", ["a.mp3", "a.mka", "a.flac", "a.wv", "a.flv"])
def test_a_tail_cut_off_a_file_that_tells_its_length_is_refused(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "whole.wav", voice(16000, 6), 16000)
    make(
        "-i", tmp_path / "whole.wav", *(["-ar", 44100] if name == "a.flv" else []), tmp_path / name
    )
    assert len(read_audio(tmp_path / name)) / 16000 == pytest.approx(6, abs=0.15)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(InputError, match=rf"{name} ends early: \d\.\d of 6\.\d s"):
        read_audio(tmp_path / name)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.caf", "a.ac3", "a.avi"])
def test_a_tail_cut_off_any_other_is_said(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "whole.wav", voice(48000, 6), 48000)
    make("-i", tmp_path / "whole.wav", tmp_path / name)
    read_audio(tmp_path / name)
    assert not caplog.text
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 6 // 10 + 1])
    assert len(read_audio(tmp_path / name)) < 5 * 16000
    assert f"{name} " in caplog.text
    assert "cut short" in caplog.text


def test_a_wav_that_goes_on_after_its_end_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(16000), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(2 * data)
    assert len(read_audio(tmp_path / "a.wav")) == 1.6 * 16000
    assert f"a.wav goes on for {len(data)} bytes after its end" in caplog.text


# Standard input


def piped(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    (tmp_path / "stdin").write_bytes(data)
    with (tmp_path / "stdin").open() as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        return np.concatenate(list(sound_blocks(Path("-"))))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("mp3", ["-ar", 8000, "-write_xing", 0, "-id3v2_version", 0]), ("ac3", ["-ar", 48000]),
     ("ts", []), ("mov", []), ("aac", ["-ar", 8000]), ("m4a", []), ("flac", []), ("opus", [])],
)  # fmt: skip
def test_encoded_sound_on_standard_input_is_no_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, options: list[object]
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(16000, 3), 16000)
    make("-i", tmp_path / "a.wav", *options, tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    if suffix == "mov":  # as old cameras write it: no ftyp box before the others
        data = data[:4] + b"free" + data[8:]
    wave = piped(data, tmp_path, monkeypatch)
    (tmp_path / f"file.{suffix}").write_bytes(data)
    np.testing.assert_array_equal(wave, read_audio(tmp_path / f"file.{suffix}"))
    assert len(wave) / 16000 == pytest.approx(3, abs=0.3)


def png(side: int = 200) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    rows = np.random.default_rng(0).integers(0, 255, (side, 3 * side + 1), np.uint8)
    rows[:, 0] = 0
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows.tobytes()))


NOISE = np.random.default_rng(1).integers(0, 256, 99_999, np.uint8).tobytes()
RAW = (voice(16000) * 30000).astype("<i2")


@pytest.mark.parametrize(
    ("data", "words"),
    [(png(), "a picture"), (b"PK\3\4" + NOISE, "an archive"),
     (b"BM\0\0\1\0" + bytes(9999), "a picture"),
     (NOISE, "no known format"), (RAW.byteswap().tobytes(), "no known format"),
     ((RAW / np.float32(32768)).tobytes(), "no known format"), (b"{}" * 99, "it is text")],
    ids=["png", "zip", "bmp", "noise", "swapped", "floats", "text"],
)  # fmt: skip
def test_what_is_no_sound_is_refused_and_never_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    with pytest.raises(InputError, match=f"cannot read standard input as sound: .*{words}"):
        piped(data, tmp_path, monkeypatch)


@pytest.mark.parametrize("level", [32000, 300, 0])
def test_raw_samples_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: float
) -> None:
    samples = (voice(16000) * level).astype("<i2")
    wave = piped(samples.tobytes(), tmp_path, monkeypatch)
    np.testing.assert_array_equal(wave, samples / np.float32(32768))
    synchronised = np.concatenate((np.array([-1025], "<i2"), samples))  # as an MP3 frame begins
    assert len(piped(synchronised.tobytes(), tmp_path, monkeypatch)) == len(synchronised)


def test_a_wav_on_standard_input_that_ends_early_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(16000), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(InputError, match=r"standard input ends early: 0\.8 s are missing"):
        piped(data[: len(data) // 2], tmp_path, monkeypatch)


def test_the_track_of_standard_input_is_kept_while_it_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = np.stack((voice(44100, 3), voice(44100, 3, 1)), 1)
    soundfile.write(tmp_path / "a.wav", both, 44100, subtype="FLOAT")
    with (tmp_path / "a.wav").open() as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with stored_wave(Path("-")) as stored:
            track = list(stored.track())
            np.testing.assert_allclose(stored[:], read_audio(tmp_path / "a.wav"), atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([block for _, block in track]), both)
    assert {rate for rate, _ in track} == {44100}
    again = [block for _, block in played(tmp_path / "a.wav")]
    np.testing.assert_array_equal(np.concatenate(again), both)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(23.976, "24000/1001"), (29.97, "30000/1001"), (59.94, "60000/1001"), (25, "25"), (24, "24"),
     (30, "30"), (12.5, "25/2"), (30000 / 1001, "30000/1001"), (10, "10")],
)  # fmt: skip
def test_rates_are_those_of_broadcast(fps: float, rate: str) -> None:
    assert str(frame_rate(fps)) == rate


def test_sound_is_warned_of_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the file once, in one line."""
    caplog.set_level(logging.WARNING)
    soundfile.write(tmp_path / "a.wav", voice(16000, 6), 16000)
    make("-i", tmp_path / "a.wav", "-ar", 48000, tmp_path / "a.ac3")
    data = (tmp_path / "a.ac3").read_bytes()
    (tmp_path / "a.ac3").write_bytes(data[: len(data) * 6 // 10])
    with stored_wave(tmp_path / "a.ac3") as stored:
        assert sum(len(block) for _, block in stored.track()) == 3 * len(stored)
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("loud", "smooth", "is_sound"),
    [(0.7, False, False), (1.0, False, False), (0.3, False, True), (1.0, True, True)],
)
def test_raw_bytes_are_sound_unless_they_are_loud_noise(
    loud: float, smooth: bool, is_sound: bool
) -> None:
    samples = np.random.default_rng(0).uniform(-loud, loud, 4000)
    if smooth:
        samples = loud * np.sin(np.arange(4000) / 9)
    assert standard_input._like_samples((32767 * samples).astype("<i2").tobytes()) == is_sound
