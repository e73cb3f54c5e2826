"""Motion of the bundled model on the speech that comes with the package, for tests of control."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import moda_cli
from moda_cli.config import SAMPLE_RATE, SamplerConfig
from moda_cli.control.timeline import Timeline, parse_emotion
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import causal_take, sample
from moda_cli.media import read_audio
from moda_cli.media.waves import Wave
from moda_cli.motion import EXPRESSION, decode

EXAMPLES = Path(__file__).parents[2] / "examples"


@cache
def bundled_model() -> MotionGenerator:
    return MotionGenerator.load(
        Path(moda_cli.__file__).parent / "assets" / "mini", torch.device("cpu")
    )


@cache
def speech(seconds: float = 10.0) -> Wave:
    return read_audio(EXAMPLES / "speech.wav")[: round(seconds * SAMPLE_RATE)]


def motion_of(emotion: str | Timeline, wave: Wave, seed: int = 42) -> Tensor:
    """(T, 70), unedited."""
    timeline = parse_emotion(emotion) if isinstance(emotion, str) else emotion
    take = causal_take(bundled_model(), wave, timeline, SamplerConfig(seed=seed))
    return torch.cat(list(sample(bundled_model(), take)))


def articulators(motion: Tensor) -> Tensor:
    """(T, 8) off the model's neutral."""
    return decode((motion - bundled_model().stats.neutral)[:, EXPRESSION].double())
