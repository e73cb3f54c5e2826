"""The command as users run it: real files in, real files out, every error with its exit code."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner, Result

from moda_cli.cli import app
from moda_cli.cli.app import ErrorBoundary
from moda_cli.media import read_audio
from moda_cli.motion import POSE, load_motion, save_motion

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"


def decoded(path: Path) -> np.ndarray:
    """Frames (T, H, W, 3) of a video."""
    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    width, height = next(reader)["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.6 s of the example's speech: 40 frames."""
    path = tmp_path_factory.mktemp("speech") / "short.wav"
    wave = read_audio(EXAMPLES / "speech.wav")[16000 : 16000 + 25600]
    soundfile.write(path, wave, 16000)
    return path


def moda(*args: object) -> Result:
    return CliRunner().invoke(app, ["generate", *map(str, args)])


def refused(result: Result, code: int, *words: str) -> None:
    """One or two plain lines on stderr, nothing on stdout, the documented exit code."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    lines = [line for line in lines if not line.startswith("model ")]
    assert 1 <= len(lines) <= 2, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_the_installed_command_makes_a_video(tmp_path: Path, speech: Path) -> None:
    command = [sys.executable, "-m", "moda_cli", "generate", PORTRAIT, speech, "--emotion", "happy",
               "-o", "out.mp4", "--json", "--plot", "plot.png", "--preview", "sheet.png",
               "--save-motion", "motion.safetensors", "--show-landmarks", "face.png"]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    assert (report["frames"], report["fps"], report["model"]) == (40, 25, "mini")
    frames = decoded(tmp_path / "out.mp4")
    assert frames.shape == (40, 512, 512, 3)
    source = cv2.imread(str(PORTRAIT))[..., ::-1].astype(int)
    assert abs(frames[0] - source).mean() < 2  # the first frame is the portrait
    assert abs(frames[20] - frames[0].astype(int))[200:400, 150:350].mean() > 1  # the face moves
    assert abs(frames[20] - frames[0].astype(int))[:20].mean() < 1  # the background does not
    sound = read_audio(tmp_path / "out.mp4")
    assert abs(len(sound) - 25600) <= 2048
    assert load_motion(tmp_path / "motion.safetensors").motion.shape == (40, 70)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"out.mp4", "plot.png", "sheet.png", "motion.safetensors", "face.png"}


def test_saved_motion_renders_to_the_same_frames(tmp_path: Path, speech: Path) -> None:
    first, again, other = (tmp_path / f"{name}.mkv" for name in ("first", "again", "other"))
    saved = tmp_path / "m.safetensors"
    assert moda(PORTRAIT, speech, "-o", first, "--save-motion", saved).exit_code == 0
    assert moda(PORTRAIT, speech, "-o", again, "--motion", saved).exit_code == 0
    assert moda(PORTRAIT, speech, "-o", other, "--seed", 7).exit_code == 0
    assert np.array_equal(decoded(first), decoded(again))
    assert not np.array_equal(decoded(first), decoded(other))


def test_motion_of_another_length_than_the_sound_is_said(tmp_path: Path, speech: Path) -> None:
    saved, output = tmp_path / "m.safetensors", tmp_path / "o.mp4"
    assert moda(PORTRAIT, speech, "-o", output, "--save-motion", saved).exit_code == 0
    whole = load_motion(saved)
    for frames, said in ((38, False), (20, True)):
        save_motion(saved, replace(whole, motion=whole.motion[:frames]), {})
        result = moda(PORTRAIT, speech, "-o", output, "-y", "--motion", saved)
        assert result.exit_code == 0
        assert ("m.safetensors lasts 0.80 s, the sound 1.60 s" in result.stderr) == said


def test_same_seed_same_bytes(tmp_path: Path, speech: Path) -> None:
    outputs = [tmp_path / f"{k}.mp4" for k in range(2)]
    for output in outputs:
        assert moda(PORTRAIT, speech, "-o", output, "--seed", 3).exit_code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_head_motion_and_blink_switch_off(tmp_path: Path, speech: Path) -> None:
    saved = tmp_path / "m.safetensors"
    result = moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--save-motion", saved,
                  "--head-motion", 0, "--no-blink")  # fmt: skip
    assert result.exit_code == 0
    recording = load_motion(saved)
    motion, neutral = recording.motion, recording.neutral
    assert (motion[:, POSE] == neutral[POSE]).all()
    from moda_cli.motion import ARTICULATORS, decode

    lids = decode(motion[:, :63] - neutral[:63])[:, ARTICULATORS.index("lid_a")]
    assert lids.abs().max() < 1e-2


@pytest.mark.parametrize(
    ("suffix", "options", "shape"),
    [
        ("mp4", ["--crop", "--size", 256], (40, 256, 256, 3)),
        ("mkv", ["--fps", 30, "--size", 300], (48, 300, 300, 3)),
        ("webm", ["--no-audio", "--fps", 10], (16, 512, 512, 3)),
        ("gif", ["--size", 128], (40, 128, 128, 3)),
    ],
)
def test_shapes_rates_and_containers(
    tmp_path: Path, speech: Path, suffix: str, options: list[object], shape: tuple[int, ...]
) -> None:
    output = tmp_path / f"out.{suffix}"
    result = moda(PORTRAIT, speech, "-o", output, "-q", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert decoded(output).shape == shape


def test_a_folder_and_numbered_pictures(tmp_path: Path, speech: Path) -> None:
    assert moda(PORTRAIT, speech, "-o", tmp_path / "new", "--size", 128).exit_code == 0
    assert (tmp_path / "new" / "portrait_short.mp4").is_file()
    refused(moda(PORTRAIT, tmp_path / "absent.wav", "-o", tmp_path / "other"), 3, "absent.wav")
    assert not (tmp_path / "other").exists()
    assert moda(PORTRAIT, speech, "-o", tmp_path / "f" / "%06d.png", "--size", 128).exit_code == 0
    assert len(list((tmp_path / "f").glob("*.png"))) == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--emotion", "joy"], ["joy", "happy"]),
        (["--emotion", "2:happy,1:sad"], ["ascend"]),
        (["--steps", 0], ["--steps"]),
        (["--steps", 1001], ["--steps"]),
        (["--fps", 0], ["--fps"]),
        (["--fps", 121], ["--fps"]),
        (["--size", 63], ["--size"]),
        (["--size", 257], ["257"]),
        (["--guidance", 2, "--audio-scale", 1], ["--guidance"]),
        (["--head-motion", -1], ["--head-motion"]),
        (["--seed", -1], ["--seed"]),
        (["--face", "middle"], ["middle"]),
        (["--face-points", "1,2 3"], ["1,2 3"]),
        (["--background", "mauve-ish"], ["mauve-ish"]),
        (["--codec", "vp9"], ["vp9"]),
        (["--crf", 99], ["crf"]),
        (["--plot", "no/such/folder/p.png"], ["p.png"]),
        (["--plot", "curves.txt"], ["curves.txt", ".png"]),
        (["--preview", "sheet"], ["sheet", ".png"]),
        (["--crf", 52], ["52", "h264"]),
        (["--no-such-option"], ["--no-such-option"]),
    ],
)
def test_wrong_options_exit_2(
    tmp_path: Path, speech: Path, options: list[object], words: list[str]
) -> None:
    refused(moda(PORTRAIT, speech, "-o", tmp_path / "out.mp4", *options), 2, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["out.xyz", "no/such/folder/out.mp4", "one.png", "-"])
def test_unwritable_outputs_exit_2(tmp_path: Path, speech: Path, output: str) -> None:
    target = output if output == "-" else tmp_path / output
    refused(moda(PORTRAIT, speech, "-o", target), 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["-o", "o.avi"], ["-o", "o.mp4", "--emotion", "joy"]])
def test_mistakes_are_told_before_weights_are_fetched(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    refused(moda(PORTRAIT, speech, "--model", "moda", *options), 2, options[-1])


def test_nothing_is_overwritten_unasked(tmp_path: Path, speech: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    refused(moda(PORTRAIT, speech, "-o", output), 2, "out.mp4", "-y")
    assert output.read_bytes() == b"precious"
    assert moda(PORTRAIT, speech, "-o", output, "-y", "--size", 64).exit_code == 0
    assert len(decoded(output)) == 40
    refused(moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--plot", tmp_path / "o.mp4"), 2)


def test_inputs_are_never_overwritten(tmp_path: Path, speech: Path) -> None:
    portrait = tmp_path / "p.png"
    portrait.write_bytes(PORTRAIT.read_bytes())
    refused(moda(portrait, speech, "-o", tmp_path / "o.mp4", "--preview", portrait, "-y"), 2)
    assert portrait.read_bytes() == PORTRAIT.read_bytes()


def write_bad_inputs(folder: Path) -> None:
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "blank.png"), np.full((400, 400, 3), 200, np.uint8))
    small = cv2.resize(cv2.imread(str(PORTRAIT)), (80, 80), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "small.png"), small)
    (folder / "text.wav").write_text("no sound")
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "instant.wav", np.zeros(100), 16000)
    (folder / "bad.safetensors").write_text("no motion")


@pytest.mark.parametrize(
    ("portrait", "audio", "options"),
    [
        ("absent.png", "", []),
        ("text.png", "", []),
        ("empty.png", "", []),
        ("blank.png", "", []),
        ("small.png", "", []),
        (".", "", []),
        ("", "absent.wav", []),
        ("", "text.wav", []),
        ("", "empty.wav", []),
        ("", "instant.wav", []),
        ("", "", ["--motion", "bad.safetensors"]),
        ("", "", ["--motion", "absent.safetensors"]),
        ("", "", ["--face", "2"]),
        ("", "", ["--face-points", "900,10 950,10 920,60"]),
        ("", "", ["--face-points", "200,300 300,300 250,320"]),
    ],
)
def test_unusable_inputs_exit_3_and_are_named(
    tmp_path: Path, speech: Path, portrait: str, audio: str, options: list[str]
) -> None:
    write_bad_inputs(tmp_path)
    before = sorted(tmp_path.iterdir())
    options = [str(tmp_path / o) if o.endswith(".safetensors") else o for o in options]
    face = tmp_path / portrait if portrait else PORTRAIT
    sound = tmp_path / audio if audio else speech
    result = moda(face, sound, "-o", tmp_path / "out.mp4", *options)
    named = [str(tmp_path / name) for name in (portrait, audio) if name not in ("", ".")]
    refused(result, 3, *named)
    assert sorted(tmp_path.iterdir()) == before


def test_a_refused_face_still_gets_the_overlay_that_was_asked_for(
    tmp_path: Path, speech: Path
) -> None:
    write_bad_inputs(tmp_path)
    overlay = tmp_path / "overlay.png"
    result = moda(tmp_path / "small.png", speech, "-o", tmp_path / "o.mp4",
                  "--show-landmarks", overlay)  # fmt: skip
    refused(result, 3)
    assert overlay.is_file()
    assert not (tmp_path / "o.mp4").exists()


def test_face_points_override_the_search(tmp_path: Path, speech: Path) -> None:
    points = json.loads((EXAMPLES / "portrait.json").read_text())
    given = " ".join(f"{x},{y}" for x, y in [*points["pupils"], points["mouth"]])
    result = moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--face-points", given)
    assert result.exit_code == 0
    assert len(decoded(tmp_path / "o.mp4")) == 40


def test_missing_models_and_devices(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
    refused(moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--model", tmp_path), 4, "model")
    refused(moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--model", "moda"), 4, "moda download")
    refused(moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--device", "cuda:99"), 5, "cpu")
    refused(moda(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--device", "toaster"), 5, "toaster")
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_sound_from_stdin(tmp_path: Path, speech: Path) -> None:
    command = [sys.executable, "-m", "moda_cli", "generate", str(PORTRAIT), "-", "-o", "o.mp4"]
    done = subprocess.run(
        command, cwd=tmp_path, input=speech.read_bytes(), capture_output=True, check=True
    )
    assert done.stdout == b"o.mp4\n"
    assert len(read_audio(tmp_path / "o.mp4")) >= 25600


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("extract", "generate", "train", "eval", "download"):
        assert command in result.stdout
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert CliRunner().invoke(app, []).stdout == result.stdout
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("moda ")


class Interrupting:
    """Ctrl-C comes while it is finalised, where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("delay_s", [0.0, 0.1])
def test_an_interrupt_in_a_finaliser_is_not_lost(
    delay_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = typer.Typer(cls=ErrorBoundary)
    commands.callback()(lambda: None)
    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        """A busy machine: the main thread is long in the hook that hears of what was dropped."""
        start(thread)
        time.sleep(delay_s)

    @commands.command()
    def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_slowly)
            Interrupting()
        time.sleep(30)

    began = time.monotonic()
    result = CliRunner().invoke(commands, ["work"])
    assert time.monotonic() - began < 20  # a main thread that waits is woken
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"
