"""Where a synthetic speaker looks, and when the lids close."""

import numpy as np
from numpy.random import Generator

from moda_cli.config import FPS
from moda_cli.control.blinks import BLINK
from moda_cli.data.synthetic.curves import EASE_IN_S, Curve, moments
from moda_cli.data.synthetic.delivery import Delivery

# Lee, Badler and Badler 2002 ("Eyes Alive"), at their 30 frames a second: a look at the partner
# lasts 93.9 frames (deviation 94.9) in talking and 237.5 in listening, a look away 27.8 (24.0) and
# 13.0 (7.1); saccades are 6.9 degrees in the mean, exponentially distributed.
LOOK_S = {"speaking": 3.13, "silent": 7.92}
AWAY_S = {"speaking": 0.93, "silent": 0.43}
LOOK_SPREAD, AWAY_SPREAD = 0.83, 0.7  # log-normals of those deviations
AWAY_DEG = (3.0, 3.9, 12.0)  # the smallest, the mean of what comes on top, the largest
REACH_DEG = 32.0  # of an eye, 1 in motion.encode_gaze
# Kendon 1967: over 70 % of long utterances begin looking away, and over 70 % end looking up.
STARTING, STARTING_S = 3.0, (0.4, 0.6)  # as many looks away around a phrase's beginning
ENDING, ENDING_S = 0.1, (0.6, 0.3)  # and around its end
BACK_AT_END, BACK_S = 0.7, 0.3  # of those who look away are back so long before the end
FIXATIONS_A_SECOND = 1.1  # shifts within the viewer's face that can be seen
FIXATION = np.array([0.025, 0.015])  # their standard deviation, in reaches
UPRIGHT = 0.35  # looks go less up and down than sideways: the lids go with them

# Bentivoglio et al. 1997: 17 blinks a minute at rest, log-normal; Doughty 2001: 8 to 21 looking
# ahead in silence, 10.5 to 32.5 in conversation. Here 12 to 20, those with a gaze shift included.
BLINKS_A_MINUTE = 14.5
BLINK_SPREAD = 0.6
# Nakano and Kitazawa 2010: speakers' blinks mark the end of speech and the pauses in it.
WITHIN, AT_END, AT_END_S = 0.5, 3.0, (0.1, 0.5)  # as many within phrases, and around their ends
# Evinger et al. 1994: the lids act in 97 % of gaze shifts beyond 33 degrees.
ALWAYS_DEG, SELDOM_DEG = 33.0, 5.0
BLINKS_APART_S = 0.6


def gaze(spoken: Delivery, pace: float, low: float, rng: Generator) -> Curve:
    """Where the eyes look (T, 2), in motion.encode_gaze's shares of their reach, 0 the viewer.

    They jump within a frame: a saccade of 10 degrees takes 43 ms (21 ms + 2.2 ms a degree,
    Carpenter 1988), and one so small leaves the head where it is (Stahl 1999). pace: of looking
    away; low: how far looks away go down, in shares of their size.
    """
    looks = np.zeros((spoken.num_frames, 2))
    speaking = spoken.speaking
    rate = np.where(speaking > 0, 1 / LOOK_S["speaking"], 1 / LOOK_S["silent"])
    rate[spoken.around(spoken.starts, *STARTING_S)] *= STARTING
    rate[spoken.around(spoken.ends, *ENDING_S)] *= ENDING
    ends = np.array(spoken.ends) - round(BACK_S * FPS)
    back = 0
    for leave in moments(pace * rate, LOOK_SPREAD, rng):
        mean_s = AWAY_S["speaking" if speaking[leave] else "silent"]
        length_s = mean_s * rng.lognormal(-0.5 * AWAY_SPREAD**2, AWAY_SPREAD)
        least, more, most = AWAY_DEG
        away = min(least + rng.exponential(more), most) / REACH_DEG
        across = np.clip(low + UPRIGHT * rng.standard_normal(), -0.7, 0.7)
        returns, side = rng.random() < BACK_AT_END, rng.choice((-1, 1))
        if leave <= back:
            continue
        back = leave + max(round(length_s * FPS), 3)
        if returns:
            back = min([back, *ends[ends > leave + 2].tolist()])
        looks[leave:back] = away * np.array([side * np.sqrt(1 - across**2), across])
    fixation = np.zeros_like(looks)
    for shift in moments(np.full(spoken.num_frames, FIXATIONS_A_SECOND), LOOK_SPREAD, rng):
        fixation[shift:] = FIXATION * rng.standard_normal(2)
    looks += fixation
    looks[0] = 0
    return looks


def blinks(spoken: Delivery, looks: Curve, rng: Generator) -> Curve:
    """Lid closure (T), 0 open .. 1 closed: some with the gaze's (T, 2) shifts, some between.

    None begins before a face has eased in, or BLINKS_APART_S after another.
    """
    rate = np.where(spoken.speaking > 0, WITHIN, 1.0)
    rate[spoken.around(spoken.ends, *AT_END_S)] = AT_END
    starts = moments(rate * BLINKS_A_MINUTE / 60, BLINK_SPREAD, rng)
    shifts_deg = REACH_DEG * np.linalg.norm(np.diff(looks, axis=0), axis=1)
    evoked = rng.random(len(shifts_deg)) < shifts_deg / ALWAYS_DEG
    starts += np.flatnonzero(evoked & (shifts_deg > SELDOM_DEG)).tolist()
    closure = np.zeros(spoken.num_frames + len(BLINK))
    free = round(EASE_IN_S * FPS)
    for start in sorted(starts):
        if start >= free:
            closure[start : start + len(BLINK)] = BLINK
            free = start + round(BLINKS_APART_S * FPS)
    return closure[: spoken.num_frames]
