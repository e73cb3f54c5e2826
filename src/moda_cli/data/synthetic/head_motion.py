"""How a synthetic speaker's head moves: attitudes, nods, breath and a slow wander."""

import numpy as np
from numpy.random import Generator

from moda_cli.config import FPS
from moda_cli.data.synthetic.curves import Curve, bumps, gaussian, moments, wander
from moda_cli.data.synthetic.delivery import Delivery

# Positive pitch looks down. Together they come to about 1.3, 2.2 and 1.0 degrees in speech.
SWAY_DEG = np.array([0.85, 1.5, 0.75])  # deviation of pitch, yaw, roll that comes of nothing
# Hadar, Steiner and Rose 1984: the head moves almost all the time in speech; speech after a long
# pause begins with a wide movement, ends with one of medium size, and sharp ones mark loud peaks.
# Hadar et al. 1983: a juncture is stillness. So a phrase has an attitude of its own,
ATTITUDE_DEG = np.array([1.2, 2.8, 1.3])  # within these,
STILL = 0.4  # and so much is left of the sway in a pause
TURN_S = 0.22  # deviation of the bell in which the head goes from one to the next
SETTLE_DEG, SETTLE_S = 0.9, 0.2  # it sinks a little behind a phrase
# Munhall et al. 2004: pitch follows loudness and F0. A nod lifts before and behind the stress.
NOD_DEG, NOD_S = (2.0, 6.5), 0.11  # from .. to, at a stress of 1
BEAT_DEG = np.array([0.0, 5.0, 2.7])  # the furthest that goes with it aside
# Conrad and Schönle 1979: short breaths in before phrases, slow ones at rest, of which there are
# 12 to 18 a minute; the head goes up with the chest.
BREATH_DEG, BREATH_S, BREATH_LEAD_S = -1.0, 0.2, 0.25
QUIET_DEG, QUIET_S, QUIET_A_MINUTE, QUIET_SPREAD = -0.4, 0.5, 15, 0.25


def head(spoken: Delivery, tempo: float, rng: Generator) -> Curve:
    """Pitch, yaw, roll (T, 3) in degrees around 0. tempo: how fast it moves, 1 as a rule."""
    count, second = spoken.num_frames, FPS / tempo
    speaking = spoken.speaking
    slow_and_fast = [
        0.85 * wander(count, 1.3 * second, rng) + 0.53 * wander(count, 0.5 * second, rng)
        for _ in SWAY_DEG
    ]
    activity = STILL + (1 - STILL) * gaussian(speaking, TURN_S * second)
    pose: Curve = np.stack(slow_and_fast, axis=1) * SWAY_DEG * activity[:, None]
    attitude = np.zeros_like(pose)
    for start, end in zip(spoken.starts, spoken.ends, strict=True):
        attitude[start:end] = ATTITUDE_DEG * rng.uniform(-1, 1, 3)
    pose += np.stack([gaussian(axis, TURN_S * second) for axis in attitude.T], axis=1)
    for axis, aside in enumerate(BEAT_DEG):
        sides = aside * rng.uniform(-1, 1, len(spoken.stress))
        pose[:, axis] += _beats(spoken, sides, NOD_S * second)
    nods = rng.uniform(*NOD_DEG, len(spoken.stress))
    pose[:, 0] += _beats(spoken, nods, NOD_S * second)
    settled = np.array(spoken.ends) + SETTLE_S * second
    pose[:, 0] += bumps(count, settled, np.full(len(settled), SETTLE_DEG), SETTLE_S * second)
    inhaled = np.array(spoken.starts) - BREATH_LEAD_S * FPS
    pose[:, 0] += bumps(count, inhaled, np.full(len(inhaled), BREATH_DEG), BREATH_S * second)
    quiet = moments((1 - speaking) * QUIET_A_MINUTE / 60 * tempo, QUIET_SPREAD, rng)
    pose[:, 0] += bumps(count, quiet, np.full(len(quiet), QUIET_DEG), QUIET_S * second)
    return pose


def _beats(spoken: Delivery, sizes: Curve, width: float) -> Curve:
    """Movements (T) in proportion to each stress that come back and add up to nothing."""
    wide, sizes = 2.5, sizes * np.array(spoken.stress)
    there = bumps(spoken.num_frames, spoken.stressed, sizes, width)
    return there - bumps(spoken.num_frames, spoken.stressed, sizes / wide, wide * width)
