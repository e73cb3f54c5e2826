"""What a face mesh says of motion: the articulators, the head's pose and where the eyes look.

Needs no weights beside the package's mesh. Measures are lengths on the head's own axes, in
distances between the pupils: neither the size of the face nor the turn of the head is in them. What
a measure is worth in units of the articulators was found by drawing asked articulators on portraits
with the rig and measuring them again (`benchmarks/mesh_motion.py` makes the table anew).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.control.blinks import CLOSED_LID
from moda_cli.face.landmarks import (
    CHIN,
    CORNERS,
    LEFT_PUPIL,
    LIP_EDGES,
    LIP_MIDDLES,
    RIGHT_PUPIL,
    Points,
)
from moda_cli.face.mesh import angles_of, mean_mesh, similarity
from moda_cli.motion import ARTICULATORS, EXPRESSION, MOTION_DIM, POSE, SCALE, encode

# Points that neither speech nor brows move: eye corners, the nose, the temples.
STEADY = [33, 133, 362, 263, 6, 168, 197, 195, 5, 4, 1, 2, 98, 327, 127, 356, 234, 454]
LIPS_APART = ([81, 13, 311], [178, 14, 402])
UPPER_LIDS, LOWER_LIDS = ([160, 159, 158], [385, 386, 387]), ([144, 145, 153], [380, 374, 373])
EYE_ENDS = ([33, 133], [362, 263])
OUTER_BROWS = [70, 63, 46, 53, 300, 293, 276, 283]
INNER_BROWS = ([107, 66, 55, 65], [336, 296, 285, 295])
CHEEKS = [50, 101, 205, 280, 330, 425]

MEASURES = (
    *("gap", "width", "corners", "upper_lip", "upper_thick", "lower_thick", "chin", "cheeks"),
    *("eye_a", "eye_b", "outer_brows", "inner_brows", "brows_apart", "look_x", "look_y"),
    *("pitch", "yaw", "roll"),  # degrees: down, to the picture's right, clockwise
)
Measures = NDArray[np.float64]  # (..., 18)
EYES = [MEASURES.index("eye_a"), MEASURES.index("eye_b")]
LOOKS = [MEASURES.index("look_x"), MEASURES.index("look_y")]

# Units of an articulator, and shares of the eyes' reach, by what a measure is off its rest. An eye
# counts by how far it is closed, 0-1.
TABLE: dict[str, dict[str, float]] = {
    "jaw": {
        "gap": 333, "width": 3.5, "corners": 27, "upper_lip": 107, "upper_thick": 166,
        "lower_thick": 162, "chin": -31.8,
    },
    "spread": {
        "gap": 38.1, "width": 41, "corners": 21.4, "upper_lip": -55.4, "upper_thick": 85.1,
        "lower_thick": 36.2, "chin": -15.5,
    },
    "round": {
        "gap": 0.95, "width": -27.4, "corners": -10.4, "upper_lip": -8.3, "upper_thick": 22,
        "lower_thick": 11.7, "chin": 7.1,
    },
    "smile": {
        "gap": 3.04, "width": -0.28, "corners": -15, "upper_lip": 9.97, "upper_thick": -1.2,
        "lower_thick": 1.67, "chin": 3.06, "cheeks": -1.52,
    },
    "lid_a": {"eye_a": 16.1},
    "lid_b": {"eye_b": 16.2},
    "brow_up": {"outer_brows": -260, "inner_brows": -42.6, "brows_apart": -36.4, "cheeks": 78.4},
    "brow_frown": {
        "outer_brows": 340, "inner_brows": -418, "brows_apart": -35.5, "cheeks": -43.7,
    },
    "gaze_x": {"look_x": 15.7},
    "gaze_y": {"look_y": 15.4},  # the rig's reach: it moves eyes too little up and down to be read
}  # fmt: skip
# What a face can do, where LivePortrait's portrait editor ends its sliders.
RANGES = {
    "jaw": (-20, 120), "spread": (-30, 20), "round": (-20, 15), "smile": (-0.3, 1.3),
    "lid_a": (-8, CLOSED_LID), "lid_b": (-8, CLOSED_LID), "brow_up": (-30, 30),
    "brow_frown": (-30, 10),
}  # fmt: skip
CLOSING = 1.55  # of an eye's share by its first bit of height: lids slow down as they meet
WIDEST = 0.6  # share of closure by which an eye may be opened wider
LEAST_EYE = 0.02  # height of an open one
SHUT = 0.5  # share of an eye's height from which its iris is not seen

# What a neutral frame may be off by before it counts as much as any other fault.
CALM = {
    **{"gap": 0.05, "corners": 0.05, "width": 0.1, "outer_brows": 0.04},
    **{"pitch": 10.0, "yaw": 10.0, "roll": 10.0},
}
AT_ZERO = ("gap", "yaw", "roll")  # the others are at rest where they are most of the time
STILL = 0.03  # gap's change between frames
SHUT_COUNTS = 3.0
WELL_OPEN = 80  # percentile of an eye's heights
LEAST_CALM = 5  # frames


def measure_face(points: Points) -> Measures:
    """The measures (18,), in the order of MEASURES, of a mesh (478, 3) in pixels."""
    scale, turn, shift = similarity(mean_mesh()[STEADY], points[STEADY])
    face = (points - shift) @ turn / scale
    x, y = face[:, 0], face[:, 1]
    upper, lower = (y[lip].mean() for lip in LIPS_APART)
    eyes = [y[low].mean() - y[up].mean() for up, low in zip(UPPER_LIDS, LOWER_LIDS, strict=True)]
    pupils = face[[LEFT_PUPIL, RIGHT_PUPIL], :2]
    looks = (pupils - [face[ends, :2].mean(axis=0) for ends in EYE_ENDS]).mean(axis=0)
    return np.array(
        [
            lower - upper,
            x[CORNERS[1]] - x[CORNERS[0]],
            y[CORNERS].mean(),
            upper,
            y[LIP_MIDDLES[0]] - y[LIP_EDGES[2]],
            y[LIP_EDGES[3]] - y[LIP_MIDDLES[1]],
            y[CHIN],
            y[CHEEKS].mean(),
            *eyes,
            y[OUTER_BROWS].mean(),
            y[[*INNER_BROWS[0], *INNER_BROWS[1]]].mean(),
            x[INNER_BROWS[1]].mean() - x[INNER_BROWS[0]].mean(),
            *looks,
            *angles_of(turn),
        ]
    )


def rest_measures(measures: Measures) -> tuple[NDArray[np.int_], Measures]:
    """The frames of one person's measures (T, 18) at which the face is at rest, and those there.

    They are the most neutral tenth: the mouth is closed and still, the eyes are open, the head
    looks ahead, brows and corners of the mouth are where they are most of the time. How far eyes
    open and where they look at rest is what they do most of the time.
    """
    usual = dict(zip(MEASURES, np.median(measures, axis=0), strict=True))
    off = {
        name: measures[:, k] - (0 if name in AT_ZERO else usual[name])
        for k, name in enumerate(MEASURES)
    }
    eyes = measures[:, EYES]
    seeing = (eyes > SHUT * np.percentile(eyes, WELL_OPEN, axis=0)).all(axis=1)
    seeing |= ~seeing.any()
    opened = np.maximum(np.median(eyes[seeing], axis=0), LEAST_EYE)
    faults = [off[name] / least for name, least in CALM.items()]
    faults += list(SHUT_COUNTS * np.minimum(eyes / opened - 1, 0).T)
    if len(measures) > 1:
        faults.append(np.gradient(off["gap"]) / STILL)
    order = np.argsort(np.square(faults).sum(axis=0), kind="stable")
    frames = np.sort(order[: max(LEAST_CALM, len(order) // 10)])
    rest = np.median(measures[frames], axis=0)
    rest[EYES] = opened
    rest[LOOKS] = np.median(measures[seeing][:, LOOKS], axis=0)
    return frames, rest


def off_rest(measures: Measures, rest: Measures) -> Measures:
    """How far measures (T, 18) are off those at rest (18,), the eyes' as shares of closure."""
    off = measures - rest
    for eye in EYES:
        closed = -off[:, eye] / max(float(rest[eye]), LEAST_EYE)
        closed = CLOSING * closed - (CLOSING - 1) * closed * np.abs(closed)
        off[:, eye] = np.clip(closed, -WIDEST, 1)
    return np.asarray(off)


def mesh_motion(measures: Measures, rest: Measures) -> tuple[Tensor, Tensor]:
    """Motion (T, 70) off `rest_motion`, and gaze (T, 2), of measures (T, 18) and those at rest.

    Where the eyes are shut the gaze goes on between what was seen before and after.
    """
    off = off_rest(measures, rest)
    columns = dict(zip(MEASURES, off.T, strict=True))
    found = {
        name: sum(worth * columns[measure] for measure, worth in row.items())
        for name, row in TABLE.items()
    }
    units = np.stack([np.clip(found[name], *RANGES[name]) for name in ARTICULATORS], axis=1)
    motion = rest_motion().repeat(len(off), 1)
    motion[:, EXPRESSION] += encode(torch.from_numpy(units)).float()
    # LivePortrait's yaw grows to the picture's left
    angles = np.stack([columns["pitch"], -columns["yaw"], columns["roll"]], axis=1)
    motion[:, POSE] += torch.from_numpy(angles).float()
    looks = np.stack([found["gaze_x"], found["gaze_y"]], axis=1)
    seen = np.flatnonzero(np.maximum(columns["eye_a"], columns["eye_b"]) < SHUT)
    if not len(seen):
        return motion, torch.zeros(len(off), 2)
    every = np.arange(len(off))
    looks = np.stack([np.interp(every, seen, axis[seen]) for axis in looks.T], axis=1)
    return motion, torch.from_numpy(looks.clip(-1, 1)).float()


def rest_motion() -> Tensor:
    """The motion (70) of a face at rest that nothing else is known of: scale 1, the rest 0."""
    rest = torch.zeros(MOTION_DIM)
    rest[SCALE] = 1
    return rest
