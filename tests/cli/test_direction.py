"""A clip that is directed: by a timeline, an emotion's intensity, recorded motion, a template."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner, Result

import moda_cli as moda
from driving import asked, drawn
from moda_cli.cli import app
from moda_cli.control.timeline_file import read_timeline
from moda_cli.media import read_audio, write_video
from moda_cli.media.provenance import read_record
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode, load_motion
from moda_cli.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"
JAW, SMILE = ARTICULATORS.index("jaw"), ARTICULATORS.index("smile")
SHOT = """[[entry]]
at = 0.8
pitch = 12.0
gaze_x = 0.6
emotion = "happy"
"""


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s of the example's speech, and 1 s of nothing."""
    path = tmp_path_factory.mktemp("speech") / "short.wav"
    wave = read_audio(EXAMPLES / "speech.wav")[16000 : 16000 + 32000]
    soundfile.write(path, np.concatenate((wave, np.zeros(16000, np.float32))), 16000)
    return path


def generate(*args: object) -> Result:
    options = ["--size", 64, "--steps", 4, "--model", "mini", "--device", "cpu"]
    return CliRunner().invoke(app, ["generate", *map(str, (*args, *options))])


def made(speech: Path, folder: Path, *options: object) -> Tensor:
    """The motion of a clip with these options."""
    file = folder / "made.safetensors"
    done = generate(PORTRAIT, speech, "-o", folder / "o.mp4", "-y", "--save-motion", file, *options)
    assert done.exit_code == 0, done.output
    return load_motion(file).motion


def units(motion: Tensor, name: int) -> Tensor:
    return decode(motion[:, EXPRESSION] - motion[0, EXPRESSION])[:, name]


def test_a_timeline_directs_one_clip(speech: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.toml"
    shot.write_text(SHOT)
    plain, directed = made(speech, tmp_path), made(speech, tmp_path, "--timeline", shot)
    turned = (directed - plain)[:, POSE.start]
    assert turned[:14].abs().max() < 0.5
    assert turned[40:].mean() == pytest.approx(12, abs=4)
    assert units(directed, SMILE)[40:].mean() > units(plain, SMILE)[40:].mean() + 0.1
    gaze = load_file(tmp_path / "made.safetensors")["gaze"]
    assert gaze[0].tolist() == [0, 0]
    assert gaze[-1].tolist() == pytest.approx([0.6, 0])

    again = tmp_path / "again.mp4"  # the gaze comes from the file of the motion
    first = (tmp_path / "o.mp4").read_bytes()
    rendered = generate(
        PORTRAIT, speech, "-o", again, "--motion", tmp_path / "made.safetensors"
    )  # fmt: skip
    assert rendered.exit_code == 0, rendered.output
    assert abs(again.stat().st_size - len(first)) < 0.05 * len(first)


def test_a_batch_has_a_timeline_of_its_own_for_each_job(speech: Path, tmp_path: Path) -> None:
    (tmp_path / "shot.toml").write_text(SHOT)
    columns = "portrait,audio,output,emotion,timeline,save_motion,silence_gate\n"
    rows = [
        f"{PORTRAIT},{speech},a.mp4,none,shot.toml,a.safetensors,",
        f"{PORTRAIT},{speech},b.mp4,happy@0.5,,b.safetensors,no",
        f"{PORTRAIT},{speech},c.mp4,0:sad;9:happy,,,".replace(";", ","),
    ]
    rows[2] = f'{PORTRAIT},{speech},c.mp4,"0:sad,9:happy",,,'
    (tmp_path / "jobs.csv").write_text(columns + "\n".join(rows))
    done = generate("--jobs", tmp_path / "jobs.csv", "-o", tmp_path / "out", "--batch", 3, "--json")
    assert done.exit_code == 1, done.output  # the third asks for something past its end
    assert "an entry at 9 s is past the end, 3.00 s" in (tmp_path / "out/report.jsonl").read_text()
    first, second = (load_motion(tmp_path / "out" / f"{k}.safetensors").motion for k in "ab")
    assert (first - second)[50:, POSE.start].mean() > 6
    assert json.loads(done.stdout.splitlines()[-1])

    (tmp_path / "shot.toml").write_text(SHOT.replace("12.0", "-12.0"))  # another clip, then
    done = generate("--jobs", tmp_path / "jobs.csv", "-o", tmp_path / "out", "--json")
    assert "a.mp4" in done.output


def test_a_stream_is_directed_as_a_file_is(speech: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.json"
    shot.write_text('[{"at": 0.8, "pitch": 12, "gaze_x": 0.6}, {"at": 1.5, "blink": true}]')
    pipeline = Pipeline.load("mini", "cpu")
    options = {"timeline": shot, "size": 64, "steps": 2}
    door = moda.Pipeline(pipeline)
    live = np.stack(list(door.stream(PORTRAIT, speech, **options)))
    plain = np.stack(list(door.stream(PORTRAIT, speech, size=64, steps=2)))
    frames = tmp_path / "f"
    door.generate(PORTRAIT, speech, frames / "%06d.png", **options)
    from moda_cli.media import read_image

    filed = np.stack([read_image(path) for path in sorted(frames.glob("*.png"))])
    np.testing.assert_array_equal(live, filed)
    assert np.abs(live[:14].astype(int) - plain[:14]).max() == 0
    assert np.abs(live[30:].astype(int) - plain[30:]).mean() > 1


def test_the_gate_is_on_for_mini_and_can_be_turned_off(speech: Path, tmp_path: Path) -> None:
    gated, free = made(speech, tmp_path), made(speech, tmp_path, "--no-silence-gate")
    pause = slice(62, 75)
    assert units(gated, JAW)[pause].abs().max() < 0.5
    assert units(free, JAW)[pause].abs().max() > 0.5
    torch.testing.assert_close(units(gated, JAW)[5:40], units(free, JAW)[5:40], atol=1e-3, rtol=0)


def test_auto_is_shown_saved_and_can_be_given_back(speech: Path, tmp_path: Path) -> None:
    saved = tmp_path / "heard.toml"
    done = generate(
        *(PORTRAIT, speech, "-o", tmp_path / "o.mp4", "--emotion", "auto", "--save-timeline", saved)
    )
    assert done.exit_code == 0, done.output
    assert "emotion = " in done.stderr
    assert saved.read_text().strip() in done.stderr
    assert read_timeline(saved).entries[0].at == 0
    made(speech, tmp_path, "--timeline", saved)
    both = generate(
        *(PORTRAIT, speech, "-o", tmp_path / "p.mp4", "--emotion", "sad", "--timeline", saved)
    )
    assert both.exit_code == 2
    assert "heard.toml, line 2" in both.stderr


def test_recorded_motion_is_laid_over_speech_and_a_template_drives(
    speech: Path, tmp_path: Path
) -> None:
    frame = {"exp": np.zeros((1, 21, 3)), "t": np.zeros((1, 3)), "scale": np.full((1, 1), 1.3)}
    angles = np.radians(20 * np.sin(np.arange(60) / 10))
    turns = [np.array([[[c, 0, s], [0, 1, 0], [-s, 0, c]]]) for c, s in
             zip(np.cos(angles), np.sin(angles), strict=True)]  # fmt: skip
    motion = [{**frame, "R": turn.swapaxes(1, 2)} for turn in turns]
    template = tmp_path / "shake.pkl"
    template.write_bytes(pickle.dumps({"n_frames": 60, "output_fps": 25, "motion": motion}))
    driven = made(speech, tmp_path, "--motion", template)
    assert len(driven) == 60
    torch.testing.assert_close(
        driven[:, 68], torch.from_numpy(np.degrees(angles)).float(), atol=1e-3, rtol=0
    )

    shot = tmp_path / "shot.csv"
    shot.write_text("at,motion,take,speed\n0.5,shake.pkl,head,2\n")
    plain, laid = made(speech, tmp_path), made(speech, tmp_path, "--timeline", shot)
    torch.testing.assert_close(laid[:, EXPRESSION], plain[:, EXPRESSION])
    assert (laid - plain)[:7, 68].abs().max() < 1e-3
    assert laid[20:36, 68].max() > 15
    assert (laid - plain)[50:, 68].abs().max() < 1e-3  # 60 frames at twice their speed

    quiet = moda.scale(moda.load_motion(template), head=0.5)
    moda.save_motion(tmp_path / "half.safetensors", moda.concat([quiet, quiet]))
    halved = made(speech, tmp_path, "--motion", tmp_path / "half.safetensors")
    assert halved[:, 68].abs().max() == pytest.approx(10, abs=0.2)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 3 s in which a drawn face talks, smiles, turns and looks aside; without sound."""
    t = np.arange(75)
    curves = {"jaw": 25 - 25 * np.cos(t / 4), "smile": 0.8 * np.sin(t / 24) ** 2}
    curves |= {"yaw": 7 * np.sin(t / 8), "gaze_x": 0.8 * np.sin(t / 12)}
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    write_video(iter(drawn(asked(75, **curves))), path, 25, crf=14)
    return path


def test_a_video_drives_a_portrait_and_its_parts_can_be_taken(
    speech: Path, talk: Path, tmp_path: Path
) -> None:
    """Each part follows the video where it is taken, and what the speech makes where it is not."""
    plain = made(speech, tmp_path)
    whole = made(speech, tmp_path, "--motion", talk)
    video = moda.load_motion(talk)
    assert torch.equal(whole, video.motion)  # of 3 s, as the sound is
    driven = {name: units(whole, k) for name, k in (("jaw", JAW), ("smile", SMILE))}

    def alike(one: Tensor, other: Tensor) -> float:
        return float(torch.corrcoef(torch.stack((one, other))[:, 3:60])[0, 1])

    assert alike(driven["jaw"], -torch.cos(torch.arange(75) / 4)) > 0.97
    lips = made(speech, tmp_path, "--motion", talk, "--take", "lips")
    assert alike(units(lips, JAW), driven["jaw"]) > 0.99
    torch.testing.assert_close(lips[:, POSE], plain[:, POSE])
    torch.testing.assert_close(units(lips, SMILE), units(plain, SMILE), atol=1e-2, rtol=0)
    head = made(speech, tmp_path, "--motion", talk, "--take", "head")
    torch.testing.assert_close(head[:60, POSE], whole[:60, POSE], atol=1e-4, rtol=0)
    torch.testing.assert_close(head[:, EXPRESSION], plain[:, EXPRESSION], atol=1e-5, rtol=0)
    two = made(speech, tmp_path, "--motion", talk, "--take", "head,gaze", "--take", "face")
    gaze = load_file(tmp_path / "made.safetensors")["gaze"]
    assert video.gaze is not None
    torch.testing.assert_close(gaze[:60], video.gaze[:60], atol=1e-3, rtol=0)
    assert alike(units(two, SMILE), driven["smile"]) > 0.98
    torch.testing.assert_close(units(two, JAW), units(plain, JAW), atol=0.5, rtol=0)


def test_what_is_taken_ends_with_its_recording_and_may_come_from_any(
    speech: Path, talk: Path, tmp_path: Path
) -> None:
    """A job list, a timeline, moda.toml and a shorter file of motion."""
    nod = moda.load_motion(talk)
    nod = moda.Recording(nod.motion[:40], nod.neutral)
    nod.motion[:, POSE.start] = 9.0
    moda.save_motion(tmp_path / "nod.safetensors", nod)
    (tmp_path / "shot.csv").write_text(f"at,motion,take\n1.0,{talk},gaze head\n")
    (tmp_path / "jobs.csv").write_text(
        "portrait,audio,output,motion,take,timeline,save_motion\n"
        f"{PORTRAIT},{speech},a.mp4,nod.safetensors,head,,a.safetensors\n"
        f"{PORTRAIT},{speech},b.mp4,,,shot.csv,b.safetensors\n"
        f"{PORTRAIT},{speech},c.mp4,{talk},lips gaze,,c.safetensors\n"
    )
    done = generate("--jobs", tmp_path / "jobs.csv", "-o", tmp_path, "--batch", 3)
    assert done.exit_code == 0, done.output
    plain = made(speech, tmp_path)
    nodded, inserted, part = (load_motion(tmp_path / f"{name}.safetensors") for name in "abc")
    assert nodded.motion[10:30, POSE.start].mean() == pytest.approx(9, abs=0.1)
    torch.testing.assert_close(nodded.motion[50:], plain[50:], atol=1e-4, rtol=1e-3)
    video = moda.load_motion(talk)
    assert video.gaze is not None
    assert inserted.gaze is not None
    torch.testing.assert_close(inserted.gaze[35:60], video.gaze[10:35], atol=1e-4, rtol=0)
    assert inserted.gaze[:15].abs().max() == 0
    torch.testing.assert_close(
        inserted.motion[35:60, POSE], video.motion[10:35, POSE], atol=1e-3, rtol=0
    )
    others = [channel for channel in range(63) if channel not in (33, 45)]  # not eyes sideways
    torch.testing.assert_close(inserted.motion[:, others], plain[:, others], atol=1e-4, rtol=0)
    assert part.gaze is not None
    torch.testing.assert_close(part.motion[:, POSE], plain[:, POSE], atol=1e-4, rtol=0)


def test_what_a_clip_takes_is_in_what_it_says(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(speech, tmp_path)
    Path("moda.toml").write_text('[generate]\ntake = ["head", "gaze"]\n')
    done = generate(PORTRAIT, speech, "-o", "t.mp4", "--motion", "made.safetensors")
    assert done.exit_code == 0, done.output
    said = read_record(Path("t.mp4"))
    assert said["settings"]["take"] == "head,gaze"
    assert said["inputs"]["motion"]["name"] == "made.safetensors"
    again = CliRunner().invoke(app, ["info", "t.mp4"])
    assert "--take head,gaze" in again.output


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--emotion", "happy@1.5"], 2, "intensity 1.5"),
        (["--emotion", "0:sad,9:happy"], 2, "9 s is past the end"),
        (["--timeline", "late.toml"], 3, "late.toml, line 2: an entry at 7 s is past the end"),
        (["--timeline", "absent.toml"], 3, "absent.toml"),
        (["--save-timeline", "a.txt"], 2, "a.txt"),
        (["--blink-rate", "90"], 2, "--blink-rate 90"),
        (["--take", "lips"], 2, "--take is given without --motion"),
        (["--motion", "shot.pkl", "--take", "lips,nose"], 2, "take 'nose' is none of lips, face"),
        (["--motion", "absent.mp4"], 3, "absent.mp4"),
        (["--blink-rate", "9", "--no-blink"], 2, "cannot be combined"),
    ],
)
def test_what_cannot_be_directed_is_refused(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options, code, words
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("late.toml").write_text("[[entry]]\nat = 7\nyaw = 3\n")
    done = generate(PORTRAIT, speech, "-o", "o.mp4", *options)
    assert done.exit_code == code, done.output
    assert words in done.stderr
    assert not Path("o.mp4").exists()
