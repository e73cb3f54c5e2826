"""`moda generate --check`: ten files that were spoilt on purpose, and ten that are right."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from typer.testing import CliRunner

from media_files import make
from moda_cli.cli import app
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.evaluate.check import check_clip, lateness, longest_run, sound_fault
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media import read_audio, read_video, write_video
from moda_cli.media.waves import Wave
from moda_cli.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS, FPS, SIZE = 3, 25, 192
MIN_SYNC = 0.2
Frames = list[NDArray[np.uint8]]


class Made(NamedTuple):
    """A clip, the speech it was made from, its frames."""

    path: Path
    speech: Wave
    frames: Frames


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("check")
    path, sound = folder / "made.mp4", folder / "speech.wav"
    speech = read_audio(EXAMPLES / "speech.wav")[: SECONDS * 16_000]
    soundfile.write(sound, speech, 16_000, subtype="FLOAT")
    clip = ClipConfig(EXAMPLES / "portrait.png", sound, path, render=RenderConfig(size=SIZE))
    Pipeline.load("mini", "cpu").generate(clip)
    return Made(path, speech, list(read_video(path)))


def other_person() -> Wave:
    """Vowels at another pitch with other pauses."""
    time = np.arange(SECONDS * 16_000) / 16_000
    buzz = sum(np.sin(2 * np.pi * 210 * k * time) / k for k in range(1, 12))
    return np.asarray(0.1 * buzz * (np.sin(2 * np.pi * 1.7 * time) > -0.3), np.float32)


def painted(made: Made, sigma: float) -> Frames:
    """The first frame's mouth over the mouth of every frame, out of focus by `sigma`."""
    face = choose_face(find_faces(made.frames[0]), "largest")
    (x, y), iod = face.mouth, face.iod
    patch = slice(int(y - 0.3 * iod), int(y + 0.6 * iod)), slice(int(x - iod / 2), int(x + iod / 2))
    paint = cv2.GaussianBlur(made.frames[0], (0, 0), sigma)[patch]
    frames = [frame.copy() for frame in made.frames]
    for frame in frames:
        frame[patch] = paint
    return frames


def moved_sound(made: Made, out: Path, *, by: str, audio: str = "copy") -> None:
    make("-i", made.path, "-itsoffset", by, "-i", made.path, "-map", "0:v", "-map", "1:a",
         "-c:v", "copy", "-c:a", audio, out)  # fmt: skip


def cut_off(made: Made, out: Path) -> None:
    """As a full disk leaves it."""
    data = made.path.read_bytes()
    out.write_bytes(data[: len(data) * 2 // 3])


def written(frames: Iterable[NDArray[np.uint8]], out: Path, sound: Wave, fps: float = FPS) -> None:
    write_video(iter(frames), out, fps, audio=sound)


Spoil = Callable[[Made, Path], None]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "sound late": (lambda m, out: moved_sound(m, out, by="0.16"), "the sound is 0.16 s late"),
    "sound early": (
        lambda m, out: written(m.frames, out, np.append(m.speech[2560:], np.zeros(2560, "f4"))),
        "the sound is 0.16 s early",
    ),
    "mute": (lambda m, out: make("-i", m.path, "-c", "copy", "-an", out), "no sound track"),
    "cut off": (cut_off, "ends early"),
    "ends early": (
        lambda m, out: make("-i", m.path, "-t", "1.6", "-c", "copy", out), "75 were drawn",
    ),
    "frozen": (
        lambda m, out: written([m.frames[10]] * 75, out, m.speech), "the mouth never moves",
    ),
    "freezes": (
        lambda m, out: written([*m.frames[:40], *[m.frames[40]] * 35], out, m.speech),
        "stands still from 1.",
    ),
    "doubled": (
        lambda m, out: written([m.frames[k - k % 2] for k in range(75)], out, m.speech),
        "of the frames show the one before",
    ),
    "dropped": (
        lambda m, out: make("-i", m.path, "-vf", "select=not(eq(mod(n\\,9)\\,5))", "-fps_mode",
                            "vfr", "-c:a", "copy", out),
        "frames are missing",
    ),
    "wrong rate": (
        lambda m, out: written(m.frames, out, m.speech, 30), "plays 30 frames a second, 25 were",
    ),
    "another voice": (
        lambda m, out: written(m.frames, out, other_person()), "is not the speech that was given",
    ),
    "painted over": (lambda m, out: written(painted(m, 9), out, m.speech), "the mouth never moves"),
    "painted shut": (
        lambda m, out: written(painted(m, 0.1), out, m.speech), "the mouth never moves",
    ),
    "black": (
        lambda m, out: written([np.zeros_like(f) for f in m.frames], out, m.speech),
        "the picture is black from 0.00 to 3.00 s",
    ),
    "face leaves": (
        lambda m, out: written([np.roll(f, max(0, k - 50) * 16, 0) if k < 60 else m.frames[0] * 0
                                + 90 for k, f in enumerate(m.frames)], out, m.speech),
        "there is no face from 2.",
    ),
    "silence": (
        lambda m, out: written(m.frames, out, np.zeros_like(m.speech)), "sound track is silent",
    ),
    "a hole": (
        lambda m, out: written(
            m.frames, out, np.where((np.arange(48_000) - 20_000) // 6400 == 0, 0, m.speech)
        ),
        "silence from 1.",
    ),
    "late mouth": (
        lambda m, out: written([*[m.frames[0]] * 5, *m.frames[:-5]], out, m.speech),
        "the mouth is 5 frames late",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_found(made: Made, name: str, tmp_path: Path) -> None:
    spoil, why = SPOILT[name]
    out = tmp_path / "spoilt.mp4"
    spoil(made, out)
    check = check_clip(out, made.speech, 75, FPS, MIN_SYNC)
    assert check.verdict == "failed"
    assert why in check.reason


@pytest.mark.parametrize(
    "name", ["as.mp4", "as.mov", "as.mkv", "as.webm", "as.gif", "mute.mp4", "remuxed.ts"]
)
def test_a_right_file_passes(made: Made, name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    if name == "remuxed.ts":
        make("-i", made.path, "-c", "copy", out)
    else:
        sound = None if name == "mute.mp4" else made.speech
        write_video(iter(made.frames), out, FPS, audio=sound)
    sounds = out.suffix != ".gif" and out.stem != "mute"
    check = check_clip(out, made.speech, 75, FPS, MIN_SYNC, sounds=sounds)
    assert (check.verdict, check.measures is not None) == ("passed", True), check.reason
    assert "correlate by 0." in check.reason


@pytest.mark.parametrize(
    ("fps", "gain", "rate"), [(30.0, 1.0, 16_000), (23.976, 0.05, 44_100), (12.0, 0.5, 8_000)]
)
def test_other_rates_and_levels_pass(
    made: Made, fps: float, gain: float, rate: int, tmp_path: Path
) -> None:
    import soxr

    sound, out = tmp_path / "speech.wav", tmp_path / "a.mp4"
    soundfile.write(sound, gain * soxr.resample(made.speech, 16_000, rate), rate)
    render = RenderConfig(size=SIZE, fps=fps)
    result = Pipeline.load("mini", "cpu").generate(
        ClipConfig(EXAMPLES / "portrait.png", sound, out, render=render)
    )
    check = check_clip(out, read_audio(sound), result.frames, fps, MIN_SYNC)
    assert check.verdict == "passed", check.reason


def test_nothing_said_is_a_verdict_of_its_own(made: Made, tmp_path: Path) -> None:
    quiet, out = np.zeros_like(made.speech), tmp_path / "quiet.mp4"
    written([made.frames[0]] * 75, out, quiet)
    check = check_clip(out, quiet, 75, FPS, MIN_SYNC)
    assert (check.verdict, "nothing is said" in check.reason) == ("silent", True)
    check = check_clip(made.path, quiet, 75, FPS, MIN_SYNC)
    assert (check.verdict, "where the speech is silent" in check.reason) == ("failed", True)


@pytest.mark.parametrize("late", [-2560, -300, 0, 1, 2000])
def test_lateness_is_exact_to_the_sample(made: Made, late: int) -> None:
    heard = np.roll(made.speech, late)
    assert lateness(heard, made.speech) == late
    assert bool(sound_fault(heard, made.speech)) == (abs(late) > 320)


def test_sound_that_drifts_is_found_where_it_has_drifted(made: Made) -> None:
    import soxr

    speech = read_audio(EXAMPLES / "speech.wav")
    speech = np.concatenate((speech, speech[::-1], speech))
    drifting = soxr.resample(speech, 16_000, 16_032)[: len(speech)]
    assert sound_fault(speech, speech) == ""
    assert "late" in sound_fault(drifting, speech) or "not the speech" in sound_fault(
        drifting, speech
    )


def test_the_longest_run() -> None:
    assert longest_run(np.array([0, 1, 1, 0, 1], bool)) == (1, 3)
    assert longest_run(np.zeros(4, bool)) == (0, 0)


def test_the_command_says_one_line_and_ends_by_it(made: Made, tmp_path: Path) -> None:
    sound = tmp_path / "s.wav"
    soundfile.write(sound, made.speech, 16_000)
    command = [
        "generate",
        str(EXAMPLES / "portrait.png"),
        str(sound),
        "-o",
        str(tmp_path / "a.mp4"),
    ]
    command += ["--model", "mini", "--size", str(SIZE), "--check", "-q", "-y"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.stderr
    check = json.loads(done.stdout)["check"]
    assert check["verdict"] == "passed"
    assert done.stderr == f"check: passed: {check['reason']}\n"
    still = CliRunner().invoke(app, [*command, "--expression-scale", "0"])
    assert still.exit_code == 1
    assert still.stderr.startswith("check: failed: the mouth never moves")
    assert (tmp_path / "a.mp4").is_file(), "a failed check keeps the file"
    soundfile.write(sound, np.zeros(16_000), 16_000)
    silent = CliRunner().invoke(app, command)
    assert (silent.exit_code, silent.stderr[:14]) == (0, "check: silent:"), silent.stderr
