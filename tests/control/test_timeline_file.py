"""Timelines as files: three kinds that say the same, and faults named with their lines."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from moda_cli.config import EMOTIONS
from moda_cli.control.inserts import look_at_videos
from moda_cli.control.timeline import parse_emotion
from moda_cli.control.timeline_file import read_timeline, write_timeline
from moda_cli.errors import InputError, UsageError
from moda_cli.media import write_video
from moda_cli.motion import Recording, save_motion

TOML = """# a scene
[[entry]]
at = 0.5
emotion = "happy"
intensity = 0.4
ease = 1.5

[[entry]]
at = 2
until = 3.5
pitch = -8.0
gaze_x = 0.5
blink = true
"""
JSON = """[
  {"at": 0.5, "emotion": "happy", "intensity": 0.4, "ease": 1.5},
  {"at": 2, "until": 3.5,
   "pitch": -8.0, "gaze_x": 0.5, "blink": true}
]"""
CSV = """at;until;ease;emotion;intensity;pitch;gaze_x;blink
0.5;;1.5;happy;0.4;;;
2;3.5;;;;-8;0.5;yes
"""
FILES = {"shot.toml": TOML, "shot.json": JSON, "shot.csv": CSV}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", FILES)
def test_all_kinds_say_the_same(tmp_path: Path, name: str) -> None:
    first, second = read_timeline(written(tmp_path, name, FILES[name])).entries
    assert (first.at, first.until, first.ease) == (0.5, math.inf, 1.5)
    assert first.values == {"emotion": (EMOTIONS.index("happy"), 0.4)}
    assert (second.at, second.until, second.ease) == (2, 3.5, None)
    assert second.values == {"pitch": -8, "gaze_x": 0.5, "blink": True}


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    timeline = read_timeline(written(tmp_path, "shot.toml", TOML))
    write_timeline(tmp_path / name, timeline)
    again = read_timeline(tmp_path / name)
    assert [(e.at, e.until, e.ease, e.values) for e in again.entries] == [
        (e.at, e.until, e.ease, e.values) for e in timeline.entries
    ]
    write_timeline(tmp_path / name, parse_emotion("0:sad,2:happy@0.25"))
    assert [e.values["emotion"][1] for e in read_timeline(tmp_path / name).entries] == [1, 0.25]


FAULTS = [
    ("a.toml", '[[entry]]\nat = 1\nemotion = "joy"\n', 3, "joy"),
    ("a.toml", "[[entry]]\nat = 1\n\npitch = 80\n", 4, "pitch 80"),
    ("a.toml", "[[entry]]\nat = 1\nblink = true\n[[entry]]\nat = 2\n", 5, "nothing"),
    ("a.toml", "[[entry]]\nat = 2\nuntil = 1\nyaw = 3\n", 3, "until"),
    ("a.toml", "[[entry]]\nyaw = 3\n", 1, "no `at`"),
    ("a.toml", "[[entry]]\nat = 1\nhold = true\n", 3, "no end"),
    ("a.toml", "[[entry]]\nat = 1\ngaze = 0.5\n", 3, "gaze"),
    ("a.toml", "[[entry]]\nat = 1\nintensity = 0.5\nyaw = 1\n", 3, "without emotion"),
    ("a.toml", '[[entry]]\nat = 1\nmotion = "none.safetensors"\n', 3, "none.safetensors"),
    ("a.json", '[\n  {"at": 1, "yaw": 3},\n  {"at": 2,\n   "yaw": "x"}\n]', 4, "yaw 'x'"),
    ("a.json", '[\n  {"at": 1, "yaw": 3},\n  7\n]', 3, "no entry"),
    ("a.json", '[\n  {"at": 1, "yaw": 3,}\n]', 2, "a.json"),
    ("a.csv", "at,yaw\n1,3\n\n2,far\n", 4, "yaw 'far'"),
    ("a.csv", "at,yaw\n1,3,4\n", 2, "more cells"),
    ("a.csv", "at,blink\n1,maybe\n", 2, "maybe"),
    ("a.toml", "[[entry]]\nat = \n", 2, "a.toml"),
]


@pytest.mark.parametrize(("name", "text", "line", "reason"), FAULTS)
def test_faults_are_named_with_file_and_line(
    tmp_path: Path, name: str, text: str, line: int, reason: str
) -> None:
    with pytest.raises(InputError) as refused:
        read_timeline(written(tmp_path, name, text))
    assert name in str(refused.value)
    assert f"line {line}" in str(refused.value)
    assert reason in str(refused.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "at,yaw,pitch\n1,90,\n2,,x\n3,1,\n")
    with pytest.raises(InputError, match=r"(?s)line 2: yaw 90.*line 3: pitch 'x'"):
        read_timeline(path)


def test_endings_that_are_no_timelines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shot\.txt is no"):
        read_timeline(written(tmp_path, "shot.txt", TOML))
    with pytest.raises(UsageError, match=r"shot\.txt is no"):
        write_timeline(tmp_path / "shot.txt", parse_emotion("sad"))


def test_a_video_is_looked_at_when_the_clip_is_made(tmp_path: Path) -> None:
    frames = iter([np.zeros((64, 64, 3), np.uint8)] * 3)
    write_video(frames, tmp_path / "talk.mp4", 25)
    text = "at,until,motion,take,speed\n1,,talk.mp4,lips,2\n4,4.5,talk.mp4,,\n"
    timeline = read_timeline(written(tmp_path, "a.csv", text))
    assert [entry.values["motion"].recording for entry in timeline.entries] == [None, None]
    motion = torch.zeros(50, 70)
    asked: list[Path] = []

    def load(path: Path) -> Recording:
        asked.append(path)
        return Recording(motion, motion[0])

    first, second = look_at_videos(timeline, load).entries
    assert asked == [tmp_path / "talk.mp4"] * 2
    assert (first.until, second.until) == (2, 4.5)
    (tmp_path / "talk.mp4").write_bytes(b"\0" * 999)
    with pytest.raises(InputError, match=r"line 2: .*talk\.mp4 as a video"):
        read_timeline(tmp_path / "a.csv")


def test_a_motion_file_beside_it_lasts_as_long_as_it_plays(tmp_path: Path) -> None:
    motion = torch.zeros(50, 70)
    motion[:, 63] = 1
    save_motion(tmp_path / "nod.safetensors", Recording(motion, motion[0]), {})
    text = '[[entry]]\nat = 1\nmotion = "nod.safetensors"\nspeed = 2\ntake = "head lips"\n'
    timeline = read_timeline(written(tmp_path, "a.toml", text))
    (only,) = timeline.entries
    assert only.until == 2
    assert only.values["motion"].parts == ("lips", "head")
    write_timeline(tmp_path / "b.csv", timeline)
    assert "nod.safetensors,1,2.0,lips head" in (tmp_path / "b.csv").read_text().replace("1.0", "1")
