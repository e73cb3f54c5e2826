"""LivePortrait's networks on a film, small ones with weights by rule."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from face_by_rule import save_landmarks
from film_clips import FPS, film
from liveportrait_by_rule import by_rule, facing_state, retargeting_file
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.face.extractors import AppearanceExtractor, Extractors, MotionExtractor
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.media import read_video
from moda_cli.media.pictures import Picture
from moda_cli.motion import LIP_KEYPOINTS, POSE
from moda_cli.render.liveportrait.engine import Engine
from moda_cli.render.liveportrait.keypoints import Retargeting
from moda_cli.render.liveportrait.networks import Networks
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork
from moda_cli.studio import LivePortraitStudio
from moda_cli.weights.renames.liveportrait import MOTION, RETARGETING, liveportrait_state
from moda_cli.weights.state import load_strict
from official import SMALL, save_portrait

NEUTRAL = torch.zeros(70)
NEUTRAL[63] = 1.0
FRAMES = 4


def moved(channels: list[int], amount: float) -> Tensor:
    """Motion (1, 70) that differs from the neutral in these channels."""
    motion = NEUTRAL[None].clone()
    motion[:, channels] += amount
    return motion


STILL = moved([], 0)
LIPS = moved([3 * keypoint + 1 for keypoint in LIP_KEYPOINTS], 0.1)
BROWS_AND_HEAD = moved([4, 7, *range(70)[POSE]], 3.0)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> LivePortraitStudio:
    save_landmarks(path := tmp_path_factory.mktemp("landmarks") / "landmark.onnx")
    motion, retargeting = MotionExtractor(**SMALL["motion_extractor"]), Retargeting()
    load_strict(motion, liveportrait_state(facing_state(motion), MOTION), "by rule")
    load_strict(retargeting, liveportrait_state(retargeting_file(), RETARGETING), "by rule")
    warping, generator = WarpingNetwork(**SMALL["warping"]), SpadeGenerator(**SMALL["spade"])
    networks = Networks(retargeting.eval(), by_rule(warping), by_rule(generator))
    appearance = by_rule(AppearanceExtractor(**SMALL["appearance_extractor"]))
    extractors = Extractors(appearance, motion.eval())
    return LivePortraitStudio(LandmarkNetwork(path), extractors, Engine(networks))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipConfig:
    """A face that drifts through the picture, gone in its last frame."""
    folder = tmp_path_factory.mktemp("film")
    save_portrait(folder / "face.png")
    still = cv2.imread(str(folder / "face.png"))[..., ::-1]
    frames = [np.roll(still, 8 * k, axis=1) for k in range(FRAMES - 1)]
    frames.append(np.zeros_like(still))
    return ClipConfig(film(folder / "talk.mp4", frames), Path("-"), Path("-"))


def drawn(
    studio: LivePortraitStudio,
    clip: ClipConfig,
    motion: Tensor,
    parts: str = "lips",
    *,
    absolute: bool = False,
) -> list[Picture]:
    portrait = studio.look(replace(clip, render=RenderConfig(redrive=parts)))
    return list(studio.renderer(portrait, NEUTRAL, absolute=absolute).render(motion))


def alike(some: list[Picture], others: list[Picture]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_speech_moves_the_parts_that_are_asked_for_and_no_others(
    studio: LivePortraitStudio, clip: ClipConfig
) -> None:
    still = drawn(studio, clip, STILL)
    assert not alike(drawn(studio, clip, LIPS), still)
    assert alike(drawn(studio, clip, BROWS_AND_HEAD), still)
    brows, head = (
        drawn(studio, clip, BROWS_AND_HEAD, f"lips,{part}") for part in ("brows", "head")
    )
    assert not alike(brows, still)
    assert not alike(head, still)
    assert not alike(brows, head)


def test_lips_of_a_model_that_knows_the_face_are_taken_as_they_are(
    studio: LivePortraitStudio, clip: ClipConfig
) -> None:
    made = drawn(studio, clip, LIPS, absolute=True)
    assert not alike(made, drawn(studio, clip, STILL, absolute=True))
    assert not alike(made, drawn(studio, clip, LIPS))


def test_what_is_drawn_goes_back_into_its_own_frame(
    studio: LivePortraitStudio, clip: ClipConfig
) -> None:
    own = list(read_video(clip.portrait, FPS))
    made = drawn(studio, clip, LIPS.repeat(FRAMES, 1))
    changed = np.array([(a != b).any(axis=-1) for a, b in zip(made, own, strict=True)])
    assert not changed[-1].any(), "a frame without the face stays as it is"
    assert changed[0].mean() > 0.05
    assert not changed[:, :, :8].any(), "nor does anything far from it"
    assert not changed[:, -8:].any()
    columns = [np.nonzero(where.any(axis=0))[0] for where in changed[:-1]]
    drift = [float(at.min() + at.max()) / 2 for at in columns]
    assert drift[2] - drift[0] == pytest.approx(16, abs=4), "it moves with the face"
