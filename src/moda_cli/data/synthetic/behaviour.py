"""What a synthetic speaker does besides lip motion: blinks, brows, head and eight emotions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from moda_cli.config import FPS
from moda_cli.control.blinks import CLOSED_LID
from moda_cli.data.synthetic.curves import Curve, bumps, ease_in
from moda_cli.data.synthetic.delivery import delivery
from moda_cli.data.synthetic.gaze import blinks, gaze
from moda_cli.data.synthetic.head_motion import head
from moda_cli.data.synthetic.visemes import Phone

# Cavé et al. 1996: 71 % of quick rises of the brows go with a rise of the voice.
BROW_RAISE, BROW_S = 14.0, 0.14  # units of motion.ARTICULATORS at the strongest stress

Array = NDArray[np.float32]


class Expression(NamedTuple):
    """An emotion's lasting offsets (units of motion.ARTICULATORS, degrees) and its liveliness.

    Positive pitch looks down (keypoint y and z grow downwards and into the picture).
    """

    jaw: float = 0  # while speaking
    spread: float = 0
    smile: float = 0
    lid_a: float = 0
    lid_b: float = 0
    brow_up: float = 0
    brow_frown: float = 0
    pitch: float = 0
    yaw: float = 0
    roll: float = 0
    liveliness: float = 1  # how far the head moves and the brows go up
    tempo: float = 1  # how fast, and how often eyes look away (its square root)
    low: float = 0  # how far down looks away go, in shares of their size


class Performance(NamedTuple):
    """What a speaker does, frame by frame."""

    articulators: Array  # (T, 8), see motion.ARTICULATORS
    gaze: Array  # (T, 2), see motion.encode_gaze
    pose: Array  # (T, 3) pitch, yaw, roll in degrees


# Busso et al. 2007: activation, range and speed of heads differ from neutral speech by emotion.
# Wallbott 1998: hot anger and joy move much and fast, sadness little and slowly.
EXPRESSIONS = (  # in the order of config.EMOTIONS, "none" last
    Expression(2, -2, -0.15, 2, 2, -3, -13, pitch=2, liveliness=1.25, tempo=1.3),
    Expression(0, 0, 0.1, 4.5, 2.5, 2, -2, pitch=-2.5, yaw=2, roll=3.5, liveliness=0.8, tempo=0.85),
    Expression(
        1, 4, -0.28, 3.5, 3.5, -4, -7, pitch=-1.5, yaw=-2, roll=-1.5, liveliness=0.9, tempo=0.9
    ),
    Expression(3, 5, -0.12, -4, -4, 8, -7, pitch=-1.5, liveliness=1.3, tempo=1.3),
    Expression(2, 4, 0.7, 1.5, 1.5, 3, 0, pitch=-1, roll=1.5, liveliness=1.25, tempo=1.15),
    Expression(liveliness=0.7),
    Expression(-1, -3, -0.3, 3.5, 3.5, 4, -5, pitch=4, roll=-2, liveliness=0.6, tempo=0.7, low=0.4),
    Expression(7, -1, 0.03, -5, -5, 13, 0, pitch=-2, liveliness=1.2, tempo=1.15),
    Expression(),
)


def perform(
    lips: Array,
    phones: Sequence[Phone],
    wave: Array,
    emotion: int,
    intensity: float,
    rng: Generator,
) -> Performance:
    """What a speaker does whose jaw, spread and round (T, 3) are `lips`; all of it starts at rest.

    phones: of the viseme classes, without gaps. wave: the speech alone, without noise. The lips'
    own emotional jaw offset is the caller's (visemes.lips keeps it away from labials).
    """
    num_frames = len(lips)
    look = EXPRESSIONS[emotion]
    liveliness = 1 + intensity * (look.liveliness - 1)
    tempo = 1 + intensity * (look.tempo - 1)
    spoken = delivery(phones, wave, num_frames)
    ease = ease_in(num_frames)
    lasting = intensity * ease
    looks = gaze(spoken, np.sqrt(tempo), intensity * look.low, rng)
    lid = blinks(spoken, looks, rng)
    raised = BROW_RAISE * liveliness * np.array(spoken.stress)
    brows = bumps(num_frames, spoken.stressed, raised, BROW_S * FPS / tempo)

    def lids(offset: float) -> Curve:
        return lasting * offset * (1 - lid) + CLOSED_LID * lid

    articulators = np.stack(
        (
            lips[:, 0],
            lips[:, 1] + lasting * look.spread,
            lips[:, 2],
            lasting * look.smile,
            lids(look.lid_a),
            lids(look.lid_b),
            lasting * look.brow_up + ease * brows,
            lasting * look.brow_frown,
        ),
        axis=1,
    )
    pose = liveliness * head(spoken, tempo, rng)
    pose += intensity * np.array([look.pitch, look.yaw, look.roll])
    articulators[0] = 0
    return Performance(
        articulators.astype(np.float32),
        looks.astype(np.float32),
        (pose * ease[:, None]).astype(np.float32),
    )


def jaw_offset(emotion: int, intensity: float) -> float:
    """How much further an emotion opens the jaw of a speaker."""
    return EXPRESSIONS[emotion].jaw * intensity
