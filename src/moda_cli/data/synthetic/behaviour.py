"""What a synthetic speaker does besides lip motion: blinks, brows, head and eight emotions."""

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLES_PER_FRAME

BLINK = np.array([0.35, 0.85, 1, 1, 0.75, 0.42, 0.15])  # per frame, 1 is closed
CLOSED_LID = 14.0
BLINK_GAP_S = (1.0, 2.3)  # the shortest, and the mean of what comes on top
SWAY_DEG = np.array([1.3, 2.2, 1.0])  # standard deviation of pitch, yaw, roll
EASE_IN_S = 0.5  # from the neutral first frame into pose and expression

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
    liveliness: float = 1  # of sway, nods and brow raises


EXPRESSIONS = (  # in the order of config.EMOTIONS, "none" last
    Expression(2, -2, -0.15, 2, 2, -3, -13, pitch=2, liveliness=1.25),
    Expression(0, 0, 0.1, 4.5, 2.5, 2, -2, pitch=-2.5, yaw=2, roll=3.5, liveliness=0.8),
    Expression(1, 4, -0.28, 3.5, 3.5, -4, -7, pitch=-1.5, yaw=-2, roll=-1.5, liveliness=0.9),
    Expression(3, 5, -0.12, -4, -4, 8, -7, pitch=-1.5, liveliness=1.3),
    Expression(2, 4, 0.7, 1.5, 1.5, 3, 0, pitch=-1, roll=1.5, liveliness=1.25),
    Expression(liveliness=0.7),
    Expression(-1, -3, -0.3, 3.5, 3.5, 4, -5, pitch=4, roll=-2, liveliness=0.6),
    Expression(7, -1, 0.03, -5, -5, 13, 0, pitch=-2, liveliness=1.2),
    Expression(),
)


def smoothstep(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 up to 0, 1 from 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def gaussian(curve: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """A curve (T) smoothed over `width` frames (standard deviation), its ends continued."""
    reach = int(3 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return np.convolve(np.pad(curve, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def blinks(num_frames: int, rng: Generator) -> NDArray[np.float64]:
    """Lid closure (T), 0 open .. 1 closed: about 17 blinks a minute, whatever is said."""
    closure = np.zeros(num_frames + len(BLINK))
    shortest, extra = BLINK_GAP_S
    at = rng.exponential(extra) + EASE_IN_S
    while at * FPS < num_frames:
        start = int(at * FPS)
        closure[start : start + len(BLINK)] = BLINK
        at += len(BLINK) / FPS + shortest + rng.exponential(extra)
    return closure[:num_frames]


def sway(num_frames: int, rng: Generator) -> NDArray[np.float64]:
    """Pitch, yaw, roll (T, 3) in degrees of a head that is never still."""

    def wander(width_s: float) -> NDArray[np.float64]:
        width = width_s * FPS
        reach = int(4 * width)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        noise = rng.standard_normal(num_frames + 2 * reach)
        return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), mode="valid")

    axes = [0.85 * wander(1.3) + 0.53 * wander(0.5) for _ in SWAY_DEG]
    degrees: NDArray[np.float64] = np.stack(axes, axis=1) * SWAY_DEG
    return degrees


def emphasis(wave: Array) -> NDArray[np.float64]:
    """Stress (T), around -0.5..1: short-term level against its surroundings, 0 in silence."""
    frames = wave[: len(wave) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    level = np.sqrt(np.mean(np.square(frames.reshape(-1, SAMPLES_PER_FRAME), dtype=float), axis=1))
    level /= max(float(np.quantile(level, 0.95)), 1e-4)
    return gaussian(level, 2.5) - gaussian(level, 20)


def perform(
    lips: Array, wave: Array, emotion: int, intensity: float, rng: Generator
) -> tuple[Array, Array]:
    """Articulators (T, 8) and pose (T, 3) of a speaker whose jaw, spread and round are `lips`.

    Both start at rest. wave: the speech alone, without noise. The lips' own emotional jaw offset
    is the caller's (visemes.lips keeps it away from labials).
    """
    num_frames = len(lips)
    look = EXPRESSIONS[emotion]
    ease = smoothstep(np.arange(num_frames) / (EASE_IN_S * FPS))
    lasting = intensity * ease
    stress = emphasis(wave) * look.liveliness
    lid = blinks(num_frames, rng)

    def lids(offset: float) -> NDArray[np.float64]:
        return lasting * offset * (1 - lid) + CLOSED_LID * lid

    articulators = np.stack(
        (
            lips[:, 0],
            lips[:, 1] + lasting * look.spread,
            lips[:, 2],
            lasting * look.smile,
            lids(look.lid_a),
            lids(look.lid_b),
            lasting * look.brow_up + ease * 11 * np.maximum(stress, 0),
            lasting * look.brow_frown,
        ),
        axis=1,
    )
    pose = sway(num_frames, rng) * look.liveliness
    pose[:, 0] += 3 * gaussian(stress, 2)
    pose += intensity * np.array([look.pitch, look.yaw, look.roll])
    articulators[0] = 0
    return articulators.astype(np.float32), (pose * ease[:, None]).astype(np.float32)


def jaw_offset(emotion: int, intensity: float) -> float:
    """How much further an emotion opens the jaw of a speaker."""
    return EXPRESSIONS[emotion].jaw * intensity
