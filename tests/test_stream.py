"""Frames while the sound is still arriving, and the stream that carries them."""

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from by_rule import SMALL, mmdit_by_rule
from face_by_rule import save_landmarks
from liveportrait_by_rule import by_rule, facing_state
from media_files import decode_sound, ffmpeg, lag
from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.errors import InputError, UsageError
from moda_cli.face.extractors import AppearanceExtractor, Extractors, MotionExtractor
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.generator.hearing import HearsSpeech
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.sampler import Velocity, Windows, sample_windows
from moda_cli.generator.takes import live_take, released_take, sample
from moda_cli.media import read_audio
from moda_cli.media.provenance import NOTICE, read_record
from moda_cli.media.sound import sound_blocks
from moda_cli.media.waves import reader
from moda_cli.motion import LIP_KEYPOINTS, Source, load_motion
from moda_cli.pipeline import Pipeline
from moda_cli.speech.logmel import LogMel, log_mel, window_features
from moda_cli.speech.released import LiveSpeech, SpeechFeatures
from moda_cli.studio import RigStudio
from moda_cli.weights.renames.liveportrait import MOTION, liveportrait_state
from moda_cli.weights.state import load_strict
from official import SMALL as SIZES
from official import save_portrait
from released_clip import golden, source, stats  # noqa: F401  (fixtures)
from speech_by_rule import speech_encoder_by_rule

EXAMPLES = Path(__file__).parents[1] / "examples"
WINDOW = 81 * 640  # samples that the first window waits for
LIPS = [3 * keypoint + axis for keypoint in LIP_KEYPOINTS for axis in range(3)]


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    """4.42 s of speech: 110 frames and part of another, two windows."""
    whole = read_audio(EXAMPLES / "speech.wav")[16000 : 16000 + 110 * 640 + 333]
    return (np.rint(whole * 32767) / 32768).astype(np.float32)


def pcm(wave: np.ndarray) -> bytes:
    return (wave * 32768).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, wave: np.ndarray) -> ClipConfig:
    folder = tmp_path_factory.mktemp("stream")
    soundfile.write(folder / "speech.wav", wave, 16000, subtype="PCM_16")
    clip = ClipConfig(EXAMPLES / "portrait.png", folder / "speech.wav", Path("-"))
    sampler = SamplerConfig(steps=3)
    return replace(clip, emotion="0:happy,2:sad", sampler=sampler, render=RenderConfig(size=64))


@pytest.fixture(scope="module")
def mini() -> Pipeline:
    return Pipeline.load("mini", "cpu")


@pytest.fixture(scope="module")
def pictures(mini: Pipeline, clip: ClipConfig) -> np.ndarray:
    """The frames of the clip's file output."""
    folder = clip.audio.parent / "frames"
    mini.generate(replace(clip, output=folder / "%04d.png"))
    return np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(folder.iterdir())])


def blocks(wave: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (wave[start : start + size] for start in range(0, len(wave), size))


# The parts: each gives, of sound that arrives, what it gives of the whole


@given(st.integers(640, 250 * 640), st.sampled_from([80, 7]))
def test_log_mel_of_arriving_sound_is_that_of_the_whole(num_samples: int, length: int) -> None:
    sound = np.random.default_rng(num_samples).normal(0, 0.1, num_samples).astype(np.float32)
    whole, live = log_mel(sound), LogMel(reader(sound))
    for start in range(0, len(whole), length - 3):
        heard = live.window(start, length)
        assert torch.equal(heard, window_features(whole, start, length))
    assert live.frames(start + length) == min(start + length, len(whole))


@given(st.integers(1, 300))
def test_windows_ask_for_no_more_than_a_frame_beyond_them(frames: int) -> None:
    asked, made = [0], 0

    def frames_to(stop: int) -> int:
        asked.append(stop)
        assert stop <= made + (80 if made == 0 else 17 + 64) + 1
        return min(stop, frames)

    def sample(num_frames: object) -> Iterator[Tensor]:
        noise = torch.Generator().manual_seed(0)
        draw = lambda _: torch.randn((1, 80, 70), generator=noise)  # noqa: E731
        clip = Windows(num_frames, torch.zeros(1, 1, 70))

        def velocity_of(_: Sequence[int]) -> Velocity:
            start, prev = clip.start, clip.prev
            return lambda z, sigma: torch.sin(z + start) + prev

        for ((_, piece, _),) in sample_windows(velocity_of, [clip], [1.0, 0.5, 0.0], draw):
            yield piece

    pieces = []
    for piece in sample(frames_to):
        pieces.append(piece)
        made += piece.shape[1]
    assert torch.equal(torch.cat(pieces, dim=1), torch.cat(list(sample(frames)), dim=1))
    assert made == frames


@pytest.fixture(scope="module")
def encoder():
    return speech_encoder_by_rule("hubert_small.json")


def test_live_speech_features_of_one_window_are_the_released_ones(encoder, wave) -> None:
    short = wave[: 30 * 640 + 100]
    live, whole = LiveSpeech(encoder, reader(short)), SpeechFeatures(encoder, short)
    torch.testing.assert_close(live.window(0, 80), whole.window(0, 80), atol=1e-5, rtol=1e-5)
    assert live.frames(80) == 31
    assert not live.window(0, 90)[80:].any()


def test_live_speech_hears_the_past_only(encoder, wave) -> None:
    silent = wave.copy()
    silent[WINDOW:] = 0
    first, other = (LiveSpeech(encoder, reader(sound)) for sound in (wave, silent))
    assert torch.equal(first.window(0, 80), other.window(0, 80))
    assert not torch.allclose(first.window(64, 80), other.window(64, 80), atol=1e-2)


def test_live_speech_keeps_its_level_over_the_last_minute(encoder) -> None:
    """Far beyond 60 s a window is what it would be if the sound had begun 60 s before its end."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 70 * 16000).astype(np.float32)
    sound[: 5 * 16000] *= 8
    live = LiveSpeech(encoder, reader(sound))
    for start in range(0, 1664, 64):
        heard = live.window(start, 80)
    end = (1600 + 80) * 640
    later = LiveSpeech(encoder, reader(sound[end - 60 * 16000 : end + 640]))
    expected = later.window(1500 - 80, 80)
    torch.testing.assert_close(heard, expected, atol=1e-3, rtol=1e-3)  # but for one first sample
    assert len(live._tail._kept) < 66 * 16000


# Motion of the official model


def test_the_causal_form_is_the_released_one_but_for_its_lip_reference(
    encoder, stats, source: Source, wave
) -> None:  # fmt: skip
    model = MotionGenerator(mmdit_by_rule(SMALL, "motion_generator_small.json"), stats)
    config, timeline = SamplerConfig(steps=2, guidance=1.2, seed=5), parse_emotion("happy")

    def live(sound: np.ndarray) -> Tensor:
        features = LiveSpeech(encoder, reader(sound))
        return torch.cat(list(sample(model, live_take(model, features, timeline, config, source))))

    short = wave[: 30 * 640 + 100]
    causal = live(short)
    whole = released_take(model, SpeechFeatures(encoder, short), timeline, config, source)
    (released,) = sample(model, whole)
    assert causal.shape == (31, 70)
    others = [channel for channel in range(70) if channel not in LIPS]
    # the pose of the last frame is smoothed with silence in one, without a neighbour in the other
    torch.testing.assert_close(causal[:-1, others], released[:-1, others], atol=1e-4, rtol=1e-4)
    z, z_released = (model.stats.normalise(motion)[:, LIPS] for motion in (causal, released))
    assert (z - z_released).square().mean() < 0.05 * z_released.square().mean()
    changed = wave.copy()
    changed[WINDOW:] = 0
    first, other = live(wave), live(changed)
    assert first.shape == (111, 70)
    assert torch.equal(first[:63], other[:63])
    assert not torch.allclose(first[80:], other[80:])


def test_the_official_model_streams_frames_of_any_length(tmp_path, encoder, stats, wave) -> None:
    save_landmarks(tmp_path / "landmark.onnx")
    save_portrait(tmp_path / "portrait.png")
    motion = MotionExtractor(**SIZES["motion_extractor"])
    load_strict(motion, liveportrait_state(facing_state(motion), MOTION), "by rule")
    pipeline = Pipeline(
        MotionGenerator(mmdit_by_rule(SMALL, "motion_generator_small.json"), stats),
        "moda",
        HearsSpeech(encoder),
        RigStudio(
            LandmarkNetwork(tmp_path / "landmark.onnx"),
            Extractors(
                by_rule(AppearanceExtractor(**SIZES["appearance_extractor"])), motion.eval()
            ),
        ),
    )
    clip = ClipConfig(tmp_path / "portrait.png", Path("-"), Path("-"))
    clip = replace(clip, sampler=SamplerConfig(steps=2), render=RenderConfig(size=64))
    frames = list(pipeline.stream(clip, blocks(wave, 5000)))
    assert len(frames) == 111
    assert np.stack(frames).std(axis=0).max() > 1


# Frames of the bundled model


def test_mini_streams_the_frames_of_its_file(
    mini: Pipeline, clip: ClipConfig, wave: np.ndarray, pictures: np.ndarray
) -> None:
    np.testing.assert_array_equal(np.stack(list(mini.stream(clip, blocks(wave, 777)))), pictures)
    np.testing.assert_array_equal(np.stack(list(mini.stream(clip))), pictures)
    assert len(pictures) == 111


def test_frames_come_before_the_sound_ends(
    mini: Pipeline, clip: ClipConfig, wave: np.ndarray, pictures: np.ndarray
) -> None:
    """A window's frames are there with a frame of sound beyond it, and leaving early is clean."""
    sent: list[int] = []

    def arriving() -> Iterator[np.ndarray]:
        sent.append(WINDOW)
        yield wave[:WINDOW]
        sent.append(len(wave))
        yield wave[WINDOW:]

    frames = mini.stream(clip, arriving())
    first = [next(frames) for _ in range(20)]
    np.testing.assert_array_equal(np.stack(first), pictures[:20])
    frames.close()

    never = threading.Event()

    def endless() -> Iterator[np.ndarray]:
        yield wave[:WINDOW]
        never.wait(20)  # the second window never has its sound
        yield wave[WINDOW:]

    frames = mini.stream(clip, endless())
    np.testing.assert_array_equal(np.stack([next(frames) for _ in range(63)]), pictures[:63])
    never.set()
    assert len(list(frames)) == 48


@pytest.mark.parametrize(("fps", "count"), [(25, 76), (30, 92), (60, 183), (12.5, 38)])
def test_as_many_frames_as_cover_the_sound(
    mini: Pipeline, clip: ClipConfig, tmp_path: Path, fps: float, count: int
) -> None:
    """3.035 s: the last frame begins before the sound ends, and ends after it."""
    sound = np.tile(soundfile.read(clip.audio, dtype="float32")[0], 2)[: round(3.035 * 16000)]
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype="PCM_16")
    change = {"audio": tmp_path / "a.wav", "render": replace(clip.render, fps=fps)}
    saved = tmp_path / "m.safetensors"
    clip = replace(clip, **change, output=tmp_path / "a.mp4", save_motion=saved)
    assert mini.generate(clip).frames == count
    assert len(shown(tmp_path / "a.mp4")) == count
    assert load_motion(saved).motion.shape == (76, 70)


@pytest.mark.parametrize(("fps", "count"), [(30, 91), (60, 181)])
def test_a_stream_of_any_rate_ends_with_its_sound(
    mini: Pipeline, clip: ClipConfig, wave: np.ndarray, tmp_path: Path, fps: float, count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of the 76 frames of motion that cover 3.005 s, the last is not drawn to its end."""
    wave = wave[: round(3.005 * 16000)]
    clip = replace(clip, render=replace(clip.render, fps=fps))
    assert len(list(mini.stream(clip, blocks(wave, 5000)))) == count
    path = tmp_path / "live.mp4"
    path.write_bytes(stream_through(mini, clip, [pcm(wave)], monkeypatch))
    assert len(shown(path)) == count


# The stream itself


def stream_through(
    mini: Pipeline,
    clip: ClipConfig,
    sent: Iterable[bytes],
    monkeypatch: pytest.MonkeyPatch,
    arrived: threading.Event | None = None,
) -> bytes:
    """Standard output of a clip whose sound comes on standard input, both real pipes."""
    readable, sound = os.pipe()
    video, writable = os.pipe()
    got: list[bytes] = []

    def feed() -> None:
        with open(sound, "wb", buffering=0) as pipe:
            for piece in sent:
                pipe.write(piece)

    def watch() -> None:
        with open(video, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 16):
                got.append(data)
                if arrived:
                    arrived.set()

    threads = [threading.Thread(target=feed), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    with open(readable) as stdin, open(writable, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        mini.generate(replace(clip, audio=Path("-")))
    for thread in threads:
        thread.join()
    return b"".join(got)


def shown(path: Path, side: int = 64) -> np.ndarray:
    done = ffmpeg(
        "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"
    )
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, side, side, 3)


def test_a_stream_begins_before_its_sound_ends_and_is_whole(
    mini, clip, wave, pictures, tmp_path, monkeypatch
) -> None:
    arrived, waited = threading.Event(), list[bool]()

    def sent() -> Iterator[bytes]:
        data = pcm(wave)
        yield data[: 2 * WINDOW + 1]  # an odd byte: half of a sample
        waited.append(arrived.wait(30))
        yield data[2 * WINDOW + 1 :]

    path = tmp_path / "live.mp4"
    path.write_bytes(stream_through(mini, clip, sent(), monkeypatch, arrived))
    assert waited == [True]
    data = path.read_bytes()
    assert data.count(b"moof") > 4
    assert data.index(b"moov") < data.index(b"moof")
    report = ffmpeg("-v", "info", "-i", path, "-f", "null", "-").stderr.decode()
    assert NOTICE in report
    said = read_record(path)
    assert (said["model"], said["seed"]) == ("mini", 42)
    assert said["inputs"]["audio"] == {"name": "-", "sha256": None}
    frames = shown(path)
    assert len(frames) == 111
    error = (frames.astype(float) - pictures).reshape(111, -1)
    assert 10 * np.log10(255**2 / np.square(error).mean(axis=1)).min() > 32  # each in its place
    heard = decode_sound(path, 16000)
    assert abs(lag(heard, wave)) <= 1
    assert -1 <= len(heard) - len(wave) <= 2048


def wav_header(kind: int, bits: int, size: int, *, extra: bytes = b"") -> bytes:
    form = struct.pack("<HHIIHH", kind, 1, 16000, 16000 * bits // 8, bits // 8, bits)
    return (
        b"RIFF" + struct.pack("<I", size) + b"WAVE" + extra
        + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    )  # fmt: skip


def test_pcm_wav_and_file_give_one_stream(mini, clip, wave, tmp_path, monkeypatch) -> None:
    raw = stream_through(mini, clip, [pcm(wave)], monkeypatch)
    wav = stream_through(mini, clip, [wav_header(1, 16, 0xFFFFFFFF), pcm(wave)], monkeypatch)
    assert raw == wav
    with open(tmp_path / "file.mp4", "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        mini.generate(clip)
    (tmp_path / "raw.mp4").write_bytes(raw)
    np.testing.assert_array_equal(shown(tmp_path / "file.mp4"), shown(tmp_path / "raw.mp4"))


def piped(sent: Iterable[bytes], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The sound of standard input."""
    readable, writable = os.pipe()

    def feed() -> None:
        with open(writable, "wb", buffering=0) as pipe:
            for piece in sent:
                pipe.write(piece)

    thread = threading.Thread(target=feed)
    thread.start()
    with open(readable) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        try:
            return np.concatenate(list(sound_blocks(Path("-"))))
        finally:
            thread.join()


def test_sound_that_is_taken_as_it_arrives(wave, tmp_path, monkeypatch) -> None:
    samples, listed = pcm(wave), b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF, len(samples)):
        header = wav_header(1, 16, size, extra=listed)
        cut = [header[i : i + 5] for i in range(0, len(header), 5)]
        after = [listed] if size == len(samples) else []
        np.testing.assert_array_equal(piped([*cut, samples, *after], monkeypatch), wave)
    floats = wav_header(3, 32, 0) + wave.tobytes()
    np.testing.assert_array_equal(piped([floats], monkeypatch), wave)
    np.testing.assert_array_equal(piped([samples, b"\1"], monkeypatch), wave)
    for subtype, form in (("PCM_24", "WAV"), ("PCM_16", "WAVEX"), ("PCM_16", "FLAC")):
        path = tmp_path / f"{subtype}.{form}"
        soundfile.write(path, wave, 16000, subtype=subtype, format=form)
        np.testing.assert_allclose(piped([path.read_bytes()], monkeypatch), wave, atol=1e-6)
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack((wave, 0 * wave), 1), 44100, subtype="PCM_16")
    heard = piped(blocks_of(stereo.read_bytes(), 999), monkeypatch)
    np.testing.assert_allclose(heard, read_audio(stereo), atol=1e-4)
    assert len(heard) == -(-len(wave) * 16000 // 44100)


def blocks_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("sent", "words"),
    [(b"", "is empty"), (b"words, not sound\n" * 40, "is text"), (b"\0" * 1278, "lasts 39 ms"),
     (wav_header(1, 16, 0), "lasts 0 ms"),
     (wav_header(3, 32, 0) + np.full(999, np.nan, "<f4").tobytes(), "not numbers")],
)  # fmt: skip
def test_unusable_sound_on_standard_input(sent: bytes, words: str, monkeypatch) -> None:
    with pytest.raises(InputError, match=f"standard input .*{words}"):
        piped([sent], monkeypatch)


def test_what_a_stream_cannot_be_is_refused(mini: Pipeline, clip: ClipConfig) -> None:
    for change in ({"codec": "vp9"}, {"crf": 99}, {"preview": Path("a.png")}, {"plot": Path("a")}):
        with pytest.raises(UsageError):
            mini.generate(replace(clip, **change))
    assert not Path("a").exists()


def test_a_full_disk_behind_the_stream_is_an_error(mini, clip, monkeypatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(UsageError, match="standard output: No space left"):
            mini.generate(clip)


LIVE = """
import sys
from pathlib import Path
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.pipeline import Pipeline
from moda_cli.studio import RigStudio
from moda_cli.generator.hearing import HearsSpeech
clip = ClipConfig(Path(sys.argv[1]), Path("-"), Path("-"), render=RenderConfig(size=64))
Pipeline.load("mini", "cpu").generate(clip)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("ending", ["reader leaves", "ctrl-c"])
def test_leaving_a_live_stream_is_clean(tmp_path: Path, wave: np.ndarray, ending: str) -> None:
    """With a second window a reader's leaving shows; Ctrl-C does not wait for the paused sound."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE, EXAMPLES / "portrait.png"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(pcm(wave)[: 2 * WINDOW])
    process.stdin.flush()
    assert process.stdout.read(100)
    if ending == "ctrl-c":
        process.send_signal(signal.SIGINT)
    else:
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.write(pcm(wave))  # a second window
            process.stdin.flush()
    assert process.wait(20) == (-signal.SIGINT if ending == "ctrl-c" else 0)
    errors = process.stderr.read().decode()
    assert errors == "" if ending != "ctrl-c" else errors.rstrip().endswith("KeyboardInterrupt")
    assert os.listdir(tmp_path) == []
    process.stderr.close()
    with suppress(BrokenPipeError):
        process.stdin.close()
