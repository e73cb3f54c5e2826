"""The Python door: what it takes, what it yields, how it complains, what it loads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import moda_cli as moda
from moda_cli.api import KINDS, spoken
from moda_cli.media.decode import read_video
from moda_cli.media.pictures import read_image

EXAMPLES = Path(__file__).parents[1] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"
SMALL = {"size": 64}


@pytest.fixture(scope="module")
def pipeline() -> moda.Pipeline:
    return moda.Pipeline.load("mini", "cpu")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.8 s of the example's speech at 16 bits: 20 frames."""
    path = tmp_path_factory.mktemp("speech") / "short.wav"
    wave, rate = soundfile.read(EXAMPLES / "speech.wav", dtype="int16")
    soundfile.write(path, wave[16_000:28_800], rate)
    return path


def frames(path: Path) -> np.ndarray:
    return np.stack(list(read_video(path)))


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, moda_cli as moda\n"
        "assert {'generate', 'Pipeline', 'Result'} <= set(dir(moda))\n"
        "print({'torch', 'numpy', 'cv2', 'typer', 'rich'} & set(sys.modules))\n"
        "assert all(getattr(moda, name) for name in moda.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    with pytest.raises(AttributeError, match="frobnicate"):
        moda.frobnicate  # noqa: B018
    assert (Path(moda.__file__).parent / "py.typed").is_file()


def test_files_arrays_and_pil_images_make_the_same_video(
    pipeline: moda.Pipeline, speech: Path, tmp_path: Path
) -> None:
    samples, rate = soundfile.read(speech, dtype="int16")
    made = []
    for number, (portrait, sound) in enumerate(
        [
            (str(PORTRAIT), str(speech)),
            (PORTRAIT, speech),
            (read_image(PORTRAIT), (samples, rate)),
            (Image.open(PORTRAIT), (samples.astype(np.float64) / 32768, rate)),
            (Image.open(PORTRAIT).convert("CMYK").convert("RGB"), (samples[:, None], rate)),
        ]
    ):
        result = pipeline.generate(portrait, sound, tmp_path / f"{number}.mkv", **SMALL)
        assert (result.frames, result.width) == (20, 64)
        made.append(frames(result.output))
    for other in made[1:4]:
        np.testing.assert_array_equal(made[0], other)


def test_a_configuration_is_taken_whole_and_may_name_files_by_text(
    pipeline: moda.Pipeline, speech: Path, tmp_path: Path
) -> None:
    clip = moda.ClipConfig(
        str(PORTRAIT),  # type: ignore[arg-type]
        speech,
        tmp_path / "a.mp4",
        render=moda.RenderConfig(size=64),
    )
    assert clip.portrait == PORTRAIT
    assert pipeline.generate(clip).output == tmp_path / "a.mp4"
    other = pipeline.generate(clip, output=tmp_path / "b.mp4", fps=50)
    assert (other.output, other.frames) == (tmp_path / "b.mp4", 40)
    assert len(list(pipeline.stream(clip))) == 20


def test_the_output_has_the_name_the_command_would_give_it(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [moda.generate(PORTRAIT, speech, model="mini", **SMALL).output for _ in range(2)]
    assert names == [Path("portrait_short.mp4"), Path("portrait_short_2.mp4")]


def test_frames_stream_from_files_arrays_and_blocks(pipeline: moda.Pipeline, speech: Path) -> None:
    samples, rate = soundfile.read(speech, dtype="float32")
    blocks = (samples[start : start + 1000] for start in range(0, len(samples), 1000))
    streamed = [
        np.stack(list(pipeline.stream(PORTRAIT, sound, **SMALL)))
        for sound in (speech, (samples, rate), blocks)
    ]
    assert streamed[0].shape == (20, 64, 64, 3)
    for other in streamed[1:]:
        np.testing.assert_array_equal(streamed[0], other)


def test_frames_come_before_their_sound_has_ended(pipeline: moda.Pipeline) -> None:
    samples, _ = soundfile.read(EXAMPLES / "speech.wav", dtype="float32")
    taken = []

    def microphone() -> object:
        for start in range(0, len(samples), 1600):
            taken.append(start)
            yield samples[start : start + 1600]

    next(pipeline.stream(PORTRAIT, microphone(), **SMALL))  # type: ignore[arg-type]
    assert len(taken) < 60  # of 100


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words", "hint"),
    [
        ((PORTRAIT, "a.wav", "o.mp4"), {}, moda.InputError, "there is no file a.wav", "check"),
        ((PORTRAIT,), {}, moda.UsageError, "audio is missing", "rate in Hz"),
        ((PORTRAIT, np.zeros(9), "o.mp4"), {}, moda.UsageError, "audio is of", "(samples, rate)"),
        ((np.zeros((9, 9, 2), np.uint8), "a.wav"), {}, moda.UsageError, "(9, 9, 2)", "RGB"),
        ((np.zeros((9, 9, 3)), "a.wav"), {}, moda.UsageError, "float64", "uint8"),
        ((3, "a.wav"), {}, moda.UsageError, "portrait is of", "PIL"),
        ((PORTRAIT, "SPEECH"), {"emotoin": "sad"}, moda.UsageError, "emotoin", "mean emotion?"),
        ((PORTRAIT, "SPEECH"), {"fps": 300}, moda.UsageError, "fps 300 is not in 1-120", ""),
        ((PORTRAIT, "SPEECH"), {"emotion": "hapy"}, moda.UsageError, "in emotion 'hapy'", "happy?"),
        ((PORTRAIT, "SPEECH", PORTRAIT), {}, moda.UsageError, "", ""),
        ((PORTRAIT, "SPEECH", __file__ + ".mp4/o.mp4"), {}, moda.UsageError, "cannot write", ""),
    ],
)
def test_complaints_speak_of_arguments(
    pipeline: moda.Pipeline,
    speech: Path,
    arguments: tuple[object, ...],
    options: dict[str, object],
    error: type[moda.ModaError],
    words: str,
    hint: str,
) -> None:
    given = [speech if isinstance(each, str) and each == "SPEECH" else each for each in arguments]
    with pytest.raises(error) as raised:
        pipeline.generate(*given, **options)  # type: ignore[arg-type]
    assert words in str(raised.value)
    assert hint in raised.value.hint
    assert "--" not in f"{raised.value} {raised.value.hint}"


def test_a_stream_complains_before_its_first_frame(pipeline: moda.Pipeline, speech: Path) -> None:
    with pytest.raises(moda.UsageError, match="fps 0"):
        pipeline.stream(PORTRAIT, speech, fps=0)


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("--force takes it", "force=True takes it"),
        ("pass -y to overwrite it", "pass overwrite=True to overwrite it"),
        (
            "give --no-blink, --crop or --no-audio",
            "give blink=False, full_frame=False or sound=False",
        ),
        ("run `moda download --verify` first", "run `moda download --verify` first"),
        ("--face-points 'X,Y' or -o", "face_points 'X,Y' or output"),
        ("a non-face, 3 -y", "a non-face, 3 overwrite=True"),
    ],
)
def test_flags_are_spoken_as_arguments(flags: str, arguments: str) -> None:
    assert spoken(flags) == arguments


def test_every_option_of_the_command_that_shapes_a_clip_is_an_argument() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "moda_cli", "generate", "--print-config"],
        capture_output=True,
        text=True,
        check=True,
    )
    flags = {line.split()[1 if line[0] == "#" else 0] for line in done.stdout.splitlines()[1:]}
    arguments = {name.replace("_", "-") for name in KINDS}
    assert arguments - {"sound"} <= flags | {"sound"}
    assert json.dumps(sorted(arguments - flags)) == '["sound"]'  # whose flag is --audio


def test_motion_is_saved_changed_and_loaded(
    pipeline: moda.Pipeline, speech: Path, tmp_path: Path
) -> None:
    path = str(tmp_path / "m.safetensors")
    pipeline.generate(PORTRAIT, speech, tmp_path / "a.mp4", save_motion=path, **SMALL)
    recording = moda.load_motion(path)
    assert recording.motion.shape == (20, 70)
    half = moda.Recording(recording.motion[:10], recording.neutral)
    moda.save_motion(path, half)
    result = pipeline.generate(PORTRAIT, speech, tmp_path / "b.mp4", motion=path, **SMALL)
    assert result.frames == 10


def test_motion_alone_is_what_a_clip_saves_and_is_drawn_again(
    pipeline: moda.Pipeline, speech: Path, tmp_path: Path
) -> None:
    asked, phases = {"emotion": "happy", "seed": 3}, []
    made = pipeline.motion(PORTRAIT, speech, on_phase=lambda *done: phases.append(done), **asked)
    saved = tmp_path / "saved.safetensors"
    clip = pipeline.generate(
        PORTRAIT, speech, tmp_path / "a.mkv", save_motion=saved, **asked, **SMALL
    )
    assert torch.equal(made.motion, moda.load_motion(saved).motion)
    assert {phase for phase, *_ in phases} == {"finding the face", "sampling"}

    slow = moda.retime(made, 0.5)
    streamed = np.stack(list(pipeline.stream(PORTRAIT, speech, motion=slow, fps=50, **SMALL)))
    assert len(streamed) == 4 * clip.frames
    pipeline.generate(PORTRAIT, speech, tmp_path / "b" / "%04d.png", motion=slow, fps=50, **SMALL)
    written = [read_image(path) for path in sorted((tmp_path / "b").iterdir())]
    np.testing.assert_array_equal(streamed, np.stack(written))

    blocks = iter([np.zeros(1600, np.float32)])
    with pytest.raises(moda.UsageError, match="motion does not follow sound that arrives"):
        list(pipeline.stream(PORTRAIT, blocks, motion=made))
