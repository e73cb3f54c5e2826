"""`moda extract` on moving faces: clips of our own, in and out of step, and real footage.

The landmark network is not at hand, so the mesh stands in for it; the motion extractor is small and
by rule. What is shown is the way from a video to its files.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from extract_bench import install, make_networks, rows_of
from face_by_rule import MOUTH_DROP, template
from moda_cli.data.annotations import find_cuts
from moda_cli.extract.extraction import extract
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Picture

EXAMPLES = Path(__file__).parents[2] / "examples"
SHIFT = 5  # frames


class SpannedPoints:
    """A landmark network's answers: the by-rule face, laid through the mesh's pupils and mouth."""

    def cloud(self, picture: Picture, face: FaceLandmarks) -> Points:
        feet = np.array([[-0.5, 0, 1], [0.5, 0, 1], [0, MOUTH_DROP, 1]])
        span = np.linalg.solve(feet, np.vstack((face.pupils, face.mouth)))
        return np.column_stack((template(), np.ones(203))) @ span


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "weights", make_networks(tmp_path / "networks"))
    monkeypatch.setattr("moda_cli.extract.features.load_landmarks", SpannedPoints)


def shifted(video: Path, path: Path, seconds: float) -> Path:
    """The same video, its sound later by so many seconds."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]
    late = f"adelay={round(1000 * seconds)}:all=1" if seconds > 0 else f"atrim=start={-seconds}"
    sound = ["-af", f"{late},asetpts=PTS-STARTPTS", "-c:a", "pcm_s16le"]
    subprocess.run([*ffmpeg, "-i", video, "-c:v", "copy", *sound, path], check=True)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_sound_five_frames_off_is_detected_on_clips_of_our_own(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    clip = folder / "in_step.mkv"
    inputs = [EXAMPLES / "portrait.png", EXAMPLES / "speech.wav"]
    command = [sys.executable, "-m", "moda_cli", "generate", *inputs]
    options = ["--model", "mini", "--size", "512", "--seed", "0"]
    environment = os.environ | {"MODA_CACHE": str(tmp_path / "empty")}  # its face is no disc
    subprocess.run([*command, "-o", clip, *options], check=True, env=environment)
    shifted(clip, folder / "late_sound.mkv", SHIFT / 25)
    shifted(clip, folder / "early_sound.mkv", -SHIFT / 25)
    out = tmp_path / "features"
    assert extract(find_cuts([folder]), out, "logmel", "cpu").clips == 1
    (row,) = rows_of(out / "index.jsonl")
    assert row["source"] == "in_step.mkv"
    assert row["sync"]["by"] == "mouth"
    reasons = {row["source"]: row["reason"] for row in rows_of(out / "dropped.jsonl")}
    assert set(reasons) == {"late_sound.mkv", "early_sound.mkv"}
    assert "the sound is" in reasons["late_sound.mkv"]
    assert "the mouth is" in reasons["early_sound.mkv"]


@pytest.mark.media
@pytest.mark.usefixtures("installed")
def test_real_footage(tmp_path: Path) -> None:
    folder = Path(os.environ["MODA_MEDIA"]) / "video"
    out = tmp_path / "features"
    summary = extract(find_cuts([folder]), out, "logmel", "cpu")
    rows, dropped = rows_of(out / "index.jsonl"), rows_of(out / "dropped.jsonl")
    print(json.dumps(rows, indent=1), json.dumps(dropped, indent=1))
    assert summary.clips == len(rows)
    assert not summary.failed
    assert {row["source"] for row in rows + dropped} == {path.name for path in folder.iterdir()}
    assert {"talker_25fps.mp4", "talker_30fps.mp4"} <= {row["source"] for row in rows}
    for row in rows:
        parts = load_file(out / f"{row['clip']}.safetensors")
        assert len(parts["motion"]) == len(parts["audio"]) == row["frames"]
        assert row["frames"] == round(25 * (row["end"] - row["start"]))
        assert all(torch.isfinite(part).all() for part in parts.values())
    assert all(row["reason"] for row in dropped)
