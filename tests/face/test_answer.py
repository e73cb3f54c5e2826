"""A drawn mouth is asked whether it opened, on the rig's own frames."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.face.answer import MouthAnswer
from moda_cli.face.portrait import Portrait
from moda_cli.motion import EXPRESSION, encode
from moda_cli.pipeline import Pipeline

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"
NEUTRAL = torch.zeros(70)


@pytest.fixture(scope="module")
def portrait_and_frames() -> tuple[Portrait, list[np.ndarray], torch.Tensor]:
    studio = Pipeline.load("mini", "cpu").studio
    clip = ClipConfig(PORTRAIT, Path("-"), Path("-"), render=RenderConfig(size=256))
    portrait = studio.look(clip)
    motion = NEUTRAL.repeat(3, 1)
    motion[1, EXPRESSION] = encode(torch.tensor([40.0, 0, 0, 0, 0, 0, 0, 0]))
    drawn = studio.renderer(portrait, NEUTRAL, absolute=False).render(motion)
    return portrait, [frame.copy() for frame in drawn], motion


def test_a_mouth_that_opens_is_not_spoken_of(portrait_and_frames, caplog) -> None:
    portrait, frames, motion = portrait_and_frames
    answer = MouthAnswer(portrait.face, NEUTRAL, 25)
    for row, frame in zip(motion, frames, strict=True):
        answer.see(row, frame)
    assert answer.fault() is None
    answer.judge()
    assert not caplog.records


def test_a_mouth_that_stays_shut_is_warned_of_once(portrait_and_frames, caplog) -> None:
    portrait, frames, motion = portrait_and_frames
    answer = MouthAnswer(portrait.face, NEUTRAL, 25)
    caplog.set_level(logging.WARNING, logger="moda_cli")
    for k in range(100):
        answer.see(motion[k % 3], frames[0])
    answer.judge()
    (record,) = caplog.records
    assert "where 0.15 is asked" in record.getMessage()


def test_too_little_asked_tells_nothing(portrait_and_frames) -> None:
    portrait, frames, motion = portrait_and_frames
    answer = MouthAnswer(portrait.face, NEUTRAL, 25)
    for row in 0.4 * motion:
        answer.see(row, frames[0])
    assert answer.fault() is None
