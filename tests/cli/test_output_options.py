"""What the options of the output do to a clip, and what it then says of itself."""

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner, Result

from certificates import write_chain
from media_files import decode_frames, ffmpeg, probe
from moda_cli.cli import app
from moda_cli.config import TRANSPARENT, ClipConfig
from moda_cli.errors import UsageError
from moda_cli.files import sha256_of
from moda_cli.media import read_audio, read_image
from moda_cli.media.provenance import NOTICE, TRAINED, read_comment, read_record
from moda_cli.studio import LivePortraitStudio

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"
FAST = ["--size", 64, "--steps", 1, "--model", "mini", "--device", "cpu"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.8 s of the example's speech: 20 frames."""
    path = tmp_path_factory.mktemp("speech") / "it's short.wav"
    soundfile.write(path, read_audio(EXAMPLES / "speech.wav")[16000 : 16000 + 12800], 16000)
    return path


@pytest.fixture(scope="module")
def cut_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn portrait in an oval of its own, on nothing."""
    picture = read_image(PORTRAIT)
    alpha = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(alpha, (256, 250), (200, 260), 0, 0, 360, 255, -1, cv2.LINE_AA)
    picture[alpha == 0] = (255, 0, 0)
    path = tmp_path_factory.mktemp("portrait") / "cut.png"
    Image.fromarray(np.dstack((picture, alpha))).save(path)
    return path


def moda(*args: object) -> Result:
    return CliRunner().invoke(app, list(map(str, args)))


def made(*args: object) -> Result:
    done = moda("generate", *args, *FAST)
    assert done.exit_code == 0, done.output
    return done


def test_a_clip_says_how_it_was_made_and_the_command_makes_it_again(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my face.png").write_bytes(PORTRAIT.read_bytes())
    Path(speech.name).write_bytes(speech.read_bytes())
    options = ["--emotion", "0:neutral,0.4:happy", "--no-blink", "--seed", 7, "--fps", 30]
    made("my face.png", speech.name, "-o", "a.mp4", *options, "--label", 'say "AI"')
    said = read_record(Path("a.mp4"))
    assert said["notice"] == NOTICE
    assert (said["model"], said["renderer"], said["seed"]) == ("mini", "rig", 7)
    assert said["digital_source_type"] == TRAINED
    assert said["settings"]["emotion"] == "0:neutral,0.4:happy"
    assert said["inputs"]["portrait"] == {"name": "my face.png", "sha256": sha256_of(PORTRAIT)}
    assert str(tmp_path) not in json.dumps(said)

    shown = moda("info", "a.mp4")
    assert shown.exit_code == 0
    assert shown.stdout.count("the same file is here") == 2
    command = json.loads(moda("info", "a.mp4", "--json").stdout)["command"]
    assert command in shown.stdout
    program, *words = shlex.split(command)
    assert program == "moda"
    before = Path("a.mp4").read_bytes()
    assert moda(*words, "-y").exit_code == 0
    assert Path("a.mp4").read_bytes() == before

    Path("my face.png").write_bytes(b"another")
    assert "another file of this name is here" in moda("info", "a.mp4").stdout


@pytest.mark.parametrize("name", ["a.mov", "a.mkv", "a.webm", "a.gif", "shots/%03d.png"])
def test_every_format_says_it(speech: Path, tmp_path: Path, name: str) -> None:
    made(PORTRAIT, speech, "-o", tmp_path / name)
    file = tmp_path / name.replace("%03d", "000")
    assert read_record(file)["inputs"]["audio"]["sha256"] == sha256_of(speech)
    shown = moda("info", file.parent if "%" in name else file)
    assert NOTICE in shown.stdout
    assert f"-o {tmp_path / name}" in shown.stdout


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "shots/%03d.png"])
def test_leaving_it_unsaid_is_said(speech: Path, tmp_path: Path, name: str) -> None:
    done = made(PORTRAIT, speech, "-o", tmp_path / name, "--no-provenance")
    lines = [line for line in done.stderr.splitlines() if "--no-provenance" in line]
    assert len(lines) == 1
    assert "will not say that it is AI-generated" in lines[0]
    file = tmp_path / name.replace("%03d", "000")
    assert read_comment(file) == ""
    assert b"AI-generated" not in file.read_bytes()
    shown = moda("info", file)
    assert (shown.exit_code, "does not say" in shown.stdout) == (0, True)


def test_a_signed_clip_is_checked_by_info(speech: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    made(PORTRAIT, speech, "-o", path, "--c2pa", write_chain(tmp_path))
    assert "signature  holds; signer, A test" in moda("info", path).stdout
    assert json.loads(moda("info", path, "--json").stdout)["signature"]["holds"] is True
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 900] ^= 1
    path.write_bytes(data)
    changed = moda("info", path)
    assert changed.exit_code == 1
    assert "DOES NOT HOLD" in changed.stdout
    refused = moda("generate", PORTRAIT, speech, "--c2pa", "c.pem,k.pem", "--no-provenance")
    assert refused.exit_code == 2


def test_info_of_what_moda_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    assert moda("info", tmp_path / "a.txt").exit_code == 3
    assert moda("info", tmp_path / "none.mp4").exit_code == 3
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    shown = json.loads(moda("info", tmp_path / "a.png", "--json").stdout)
    assert (shown["ai_generated"], shown["command"]) == (None, None)


def test_a_comment_of_somebody_else_is_no_record(tmp_path: Path) -> None:
    comments = ["{", "[1]", '{"notice": 3}', '{"notice": "AI-generated", "inputs": [1]}']
    for text in [*comments, '{"notice": "AI-generated", "settings": 1, "inputs": {"a": 2}}']:
        path = tmp_path / "a.mkv"
        source = ["-f", "lavfi", "-i", "color=s=16x16:d=0.1"]
        ffmpeg(*source, "-metadata", f"comment={text}", path)
        assert moda("info", path).exit_code == 0, text


def test_transparent_video_of_a_cut_out_portrait(
    cut_out: Path, speech: Path, tmp_path: Path
) -> None:
    background = ["--background", "transparent"]
    turned = [*background, "--head-motion", 5]
    made(cut_out, speech, "-o", tmp_path / "shots" / "%03d.png", *turned)
    frames = [np.array(Image.open(file)) for file in sorted((tmp_path / "shots").iterdir())]
    assert {frame.shape for frame in frames} == {(64, 64, 4)}
    assert all(frame[0, 0, 3] == 0 and frame[32, 32, 3] == 255 for frame in frames)
    moved = max(np.abs(each[..., 3].astype(int) - frames[0][..., 3]).max() for each in frames)
    assert moved > 20  # the outline goes where the head goes
    for frame in frames:  # and nothing of the red that lies behind it shines through
        seen = frame[frame[..., 3] > 40][:, :3].astype(int)
        assert (seen[:, 0] - seen[:, 1:].max(axis=1)).max() < 130
    made(cut_out, speech, "-o", tmp_path / "a.mov", *background)
    assert "yuva444p" in probe(tmp_path / "a.mov")
    made(cut_out, speech, "-o", tmp_path / "white.mp4")
    for name, code in (("a.mp4", 2), ("b.webm", 3)):
        portrait = cut_out if code == 2 else PORTRAIT
        done = moda("generate", portrait, speech, "-o", tmp_path / name, *background)
        assert done.exit_code == code
        assert not (tmp_path / name).exists()


def test_a_renderer_without_alpha_names_the_one_that_has_it(cut_out: Path) -> None:
    studio = LivePortraitStudio(None, None, None)  # type: ignore[arg-type]  # it looks no further
    with pytest.raises(UsageError, match="no transparent video") as raised:
        studio.look(ClipConfig(cut_out, Path(), Path("a.mov"), background=TRANSPARENT))
    assert "--renderer rig" in raised.value.hint


@pytest.mark.parametrize(
    ("aspect", "size"), [("1:1", (64, 64)), ("9:16", (36, 64)), ("16:9", (64, 36))]
)
def test_an_aspect_gives_its_shape(
    speech: Path, tmp_path: Path, aspect: str, size: tuple[int, int]
) -> None:
    made(PORTRAIT, speech, "-o", tmp_path / "a.mp4", "--aspect", aspect)
    assert f" {size[0]}x{size[1]}," in probe(tmp_path / "a.mp4")


def test_subtitles_and_labels_are_drawn_or_kept_beside(speech: Path, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,400 --> 00:00:09,000\nWWWWW\n")
    said = ["--subtitles", tmp_path / "a.srt"]
    for name, more in (
        ("plain", []),
        ("burnt", said),
        ("track", [*said, "--subtitles-as", "track"]),
        ("label", ["--label", "AI"]),
    ):
        made(PORTRAIT, speech, "-o", tmp_path / f"{name}.mp4", *more)
    plain, burnt, track, label = (
        decode_frames(tmp_path / f"{name}.mp4", 64, 64).astype(int)
        for name in ("plain", "burnt", "track", "label")
    )
    assert np.abs(track - plain).max() == 0
    assert "Subtitle: mov_text" in probe(tmp_path / "track.mp4")
    assert "Subtitle" not in probe(tmp_path / "burnt.mp4")
    changed = np.abs(burnt - plain)
    assert changed[:9].max() < 40 < changed[11:, 48:].max()
    assert changed[11:, :40].max() < 40
    assert np.abs(label - plain)[:, :16, :30].max() > 60
    assert np.abs(label - plain)[:, 32:].max() < 40


def test_a_job_list_sets_them_and_other_subtitles_make_another_clip(
    speech: Path, tmp_path: Path
) -> None:
    rows = [
        "portrait,audio,output,subtitles,subtitles_as,codec,no_provenance",
        f"{PORTRAIT},{speech},a.mp4,a.srt,track,h265,",
        f"{PORTRAIT},{speech},b.mp4,,,,true",
    ]
    (tmp_path / "jobs.csv").write_text("\n".join(rows))
    (tmp_path / "a.srt").write_text("1\n00:00:00,100 --> 00:00:00,500\none\n")
    batch = ["--jobs", tmp_path / "jobs.csv", "-o", tmp_path / "out"]
    made(*batch)
    report = probe(tmp_path / "out" / "a.mp4")
    assert "Subtitle: mov_text" in report
    assert "Video: hevc" in report
    assert read_record(tmp_path / "out" / "b.mp4") == {}
    made(*batch)  # they are there
    (tmp_path / "a.srt").write_text("1\n00:00:00,100 --> 00:00:00,500\ntwo\n")
    again = moda("generate", *batch, *FAST)
    assert again.exit_code == 2
    assert "a.mp4" in again.stderr
    assert "b.mp4" not in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subtitles", "none.srt"], ["none.srt"]),
        (["--subtitles-as", "tracks"], ["did you mean track?"]),
        (["--aspect", "9:17"], ["--aspect cannot be 9:17", "did you mean 9:16?"]),
        (["--aspect", "1:1", "--crop"], ["--aspect is of the full frame"]),
        (["--font", "none.ttf"], ["none.ttf"]),
        (["--codec", "prores", "-o", "a.mp4"], ["cannot write prores video"]),
        (["--c2pa", "chain.pem", "-o", "a.mp4"], ["names no two files"]),
        (["--c2pa", "a,b", "-o", "a.webm"], ["cannot sign a.webm", ".mp4"]),
    ],
)
def test_what_cannot_be_is_refused(
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = moda("generate", PORTRAIT, speech, *arguments)
    assert done.exit_code in (2, 3)
    assert len(done.stderr.splitlines()) <= 2
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 50, 60])
def test_every_rate_lasts_as_long_as_the_sound(speech: Path, tmp_path: Path, fps: float) -> None:
    made(PORTRAIT, speech, "-o", tmp_path / "a.mp4", "--fps", fps)
    report = probe(tmp_path / "a.mp4")
    assert f" {fps:g} fps," in report
    frames = decode_frames(tmp_path / "a.mp4", 64, 64)
    assert len(frames) == int(np.ceil(round(0.8 * fps, 6)))


def test_motion_is_resampled_and_not_frames(speech: Path, tmp_path: Path) -> None:
    """Between two frames of 25 fps stands a drawing of its own, neither's copy nor their blend."""
    import torch

    from moda_cli.motion import POSE, Recording, save_motion

    motion = torch.zeros(20, 70)
    motion[:, 63] = 1
    neutral = motion[0].clone()
    motion[10:, POSE.start + 1] = 12.0  # the head turns within one frame
    save_motion(tmp_path / "m.safetensors", Recording(motion, neutral), {})
    shots = {}
    for fps in (25, 50):
        pattern = tmp_path / str(fps) / "%03d.png"
        given = ["--motion", tmp_path / "m.safetensors", "--fps", fps, "--size", 128]
        done = moda("generate", PORTRAIT, speech, "-o", pattern, *FAST, *given)
        assert done.exit_code == 0, done.output
        shots[fps] = [read_image(file).astype(int) for file in sorted(pattern.parent.iterdir())]
    assert len(shots[50]) == 2 * len(shots[25]) == 40
    np.testing.assert_array_equal(shots[50][::2], shots[25])
    before, between, after = shots[50][18:21]
    for other in (before, after, (before + after) // 2):
        assert np.abs(between - other).mean() > 0.5
