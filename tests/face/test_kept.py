"""The networks look at a portrait once; what they saw is kept for the next run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from face_by_rule import save_landmarks
from liveportrait_by_rule import by_rule, facing_state
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.face import kept as portrait_cache
from moda_cli.face.candidates import find_candidates
from moda_cli.face.extractors import AppearanceExtractor, Extractors, MotionExtractor
from moda_cli.face.kept import candidates_once
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.portrait import Portrait, read_portrait
from moda_cli.media.pictures import read_image
from moda_cli.studio import RigStudio
from moda_cli.weights.renames.liveportrait import MOTION, liveportrait_state
from moda_cli.weights.state import load_strict
from official import SMALL, save_portrait

EXAMPLES = Path(__file__).parents[2] / "examples"


class Looks:
    """Extractors that count, the landmark network, and a portrait to look at."""

    def __init__(self, folder: Path) -> None:
        save_landmarks(folder / "landmark.onnx")
        save_portrait(folder / "portrait.png")
        motion = MotionExtractor(**SMALL["motion_extractor"])
        load_strict(motion, liveportrait_state(facing_state(motion), MOTION), "by rule")
        appearance = by_rule(AppearanceExtractor(**SMALL["appearance_extractor"]))
        self.extractors = Extractors(appearance, motion.eval())
        self.landmarks = LandmarkNetwork(folder / "landmark.onnx")
        self.clip = ClipConfig(folder / "portrait.png", Path("-"), Path("-"))
        self.kept = folder / "portraits"
        self.times = 0
        for network in (appearance, motion):
            network.register_forward_hook(self.count)

    def count(self, *_: object) -> None:
        self.times += 1

    def __call__(self, clip: ClipConfig | None = None) -> tuple[Portrait, int]:
        """The portrait, and how many of the two networks ran for it."""
        self.times = 0
        portrait = read_portrait(
            clip or self.clip,
            self.landmarks,
            self.extractors,
            released=True,
            seen_before=self.kept,
        )
        return portrait, self.times


@pytest.fixture
def look(tmp_path: Path) -> Looks:
    return Looks(tmp_path)


def assert_same(one: Portrait, other: Portrait) -> None:
    assert one.source is not None
    assert other.source is not None
    assert np.array_equal(one.picture, other.picture)
    assert torch.equal(one.feature_volume, other.feature_volume)
    assert torch.equal(one.source.motion, other.source.motion)
    assert torch.equal(one.source.kp_canonical, other.source.kp_canonical)


def test_a_portrait_is_looked_at_once(look: Looks) -> None:
    first, ran = look()
    assert ran == 2
    again, ran = look()
    assert ran == 0
    assert_same(first, again)
    smaller, ran = look(replace(look.clip, render=RenderConfig(size=256)))
    assert ran == 0  # the networks see the same whatever the size of the video
    assert torch.equal(first.feature_volume, smaller.feature_volume)


@pytest.mark.parametrize("render", [{"full_frame": False, "size": 256}, {"aspect": "9:16"}])
def test_the_face_is_where_a_released_frame_shows_it(look: Looks, render: dict[str, Any]) -> None:
    shown, _ = look(replace(look.clip, render=RenderConfig(**render)))
    (again,) = find_candidates(shown.picture)
    off = FaceLandmarks(again.mesh.points).pupils - shown.face.pupils
    assert np.abs(off).max() < 0.05 * shown.face.iod


def test_another_view_or_other_networks_are_looked_at_anew(look: Looks) -> None:
    look()
    points = replace(look.clip, face_points="270,230 370,230 320,330")
    assert look(points)[1] == 2
    picture = cv2.imread(str(look.clip.portrait))
    cv2.imwrite(str(look.clip.portrait), np.maximum(picture, 1))
    assert look()[1] == 2
    with torch.no_grad():
        look.extractors.motion.norm.weight[0] *= 1.0001
    assert look()[1] == 2
    look.extractors = replace(look.extractors, dtype=torch.bfloat16)
    assert look()[1] == 2
    assert look()[1] == 0


@pytest.mark.parametrize("damage", ["cut", "bit", "foreign"])
def test_a_damaged_entry_is_made_anew(look: Looks, damage: str) -> None:
    first, _ = look()
    (entry,) = look.kept.glob("*.safetensors")
    data = bytearray(entry.read_bytes())
    data[-1000] ^= 4
    entry.write_bytes({"cut": data[:5000], "bit": data, "foreign": b"no safetensors"}[damage])
    again, ran = look()
    assert ran == 2
    assert_same(first, again)
    assert look()[1] == 0


def test_the_most_recently_used_stay(look: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portrait_cache, "KEPT", 2)
    clips = [
        replace(look.clip, face_points=f"270,230 370,230 320,{mouth}") for mouth in (320, 330, 340)
    ]
    assert [look(clip)[1] for clip in (clips[0], clips[1], clips[0])] == [2, 2, 0]
    assert look(clips[2])[1] == 2
    assert len(list(look.kept.glob("*.safetensors"))) == 2
    assert look(clips[0])[1] == 0
    assert look(clips[1])[1] == 2


def test_a_folder_that_cannot_be_written_costs_time_only(look: Looks) -> None:
    look.kept.write_text("in the way")
    first, ran = look()
    assert ran == 2
    again, ran = look()
    assert ran == 2
    assert_same(first, again)


def test_the_pipeline_keeps_it_with_the_weights(
    look: Looks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
    studio = RigStudio(look.landmarks, look.extractors)
    studio.look(look.clip)
    assert len(list((tmp_path / "cache" / "portraits").glob("*.safetensors"))) == 1
    look.times = 0
    studio.look(look.clip)
    assert look.times == 0


def test_a_picture_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = read_image(EXAMPLES / "portrait.png")
    first = candidates_once(picture, tmp_path)
    nothing = candidates_once(np.full((64, 64, 3), 90, np.uint8), tmp_path)
    assert (len(first), nothing) == (1, [])
    monkeypatch.setattr(portrait_cache, "find_candidates", lambda _: pytest.fail("searched again"))
    (again,) = candidates_once(picture, tmp_path)
    assert np.array_equal(again.mesh.points, first[0].mesh.points)
    assert (again.score, again.mesh.flag, again.mesh.distance) == (
        first[0].score,
        first[0].mesh.flag,
        first[0].mesh.distance,
    )
    monkeypatch.setattr(portrait_cache, "find_candidates", lambda _: [])
    assert candidates_once(picture[:, ::-1], tmp_path) == []
