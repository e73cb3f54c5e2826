"""What one unit of each articulator asks of a face: the committed table of the rig."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moda_cli.motion import ARTICULATORS, JAW_OPENS
from moda_cli.render.rig.arrays import soft_clamp

# What one unit of each articulator does to the face; lengths in IOD, lids in closures.
UNITS = {
    "jaw": JAW_OPENS,  # gap between the lips; negative presses them together
    "spread": 0.0042,  # each corner of the mouth outward
    "round": 1 / 12,  # share of full rounding
    "smile": 0.09,  # corners up
    "lid_a": 1 / 12.5,  # share of closure, eye on the picture's left; negative opens wider
    "lid_b": 1 / 12.5,
    "brow_up": 0.006,
    "brow_frown": 0.006,  # inner brows down and together, when negative
}
# What a value may reach after the conversion; drawn in softly so that nothing folds.
LIMITS = {
    "jaw": (-0.045, 0.30),
    "spread": (-0.10, 0.08),
    "round": (-0.6, 1.1),
    "smile": (-0.05, 0.11),
    "lid_a": (-0.8, 1.0),
    "lid_b": (-0.8, 1.0),
    "brow_up": (-0.08, 0.11),
    "brow_frown": (-0.12, 0.06),
}
LABIAL = -8.0  # of the jaw, where m, b and p close the lips


_LID_FOLLOWS = 0.4  # share of closure that a lid goes down with an iris at the end of its reach


def controls(articulators: NDArray[np.float64], gaze: ArrayLike = (0.0, 0.0)) -> dict[str, float]:
    """Named rig controls of the eight articulators (8) in LivePortrait units.

    gaze: (2,) shares of the reach to the picture's right and down.
    """
    raw = dict(zip(ARTICULATORS, articulators.tolist(), strict=True))
    raw["jaw"] = _opening(raw["jaw"], raw["spread"], raw["round"])
    look = np.clip(gaze, -1, 1).tolist()
    values = {}
    for name, value in raw.items():
        scaled = value * UNITS[name]
        low, high = LIMITS[name]
        if name.startswith("lid"):
            scaled += _LID_FOLLOWS * look[1] * (1 - min(max(scaled, 0.0), 1.0))
            values[name] = min(max(scaled, low), high)
        else:
            values[name] = soft_clamp(scaled, high if scaled > 0 else -low)
    return {**values, "look_x": look[0], "look_y": look[1]}


def _opening(jaw: float, spread: float, rounding: float) -> float:
    """The jaw units that part the lips as far as the three articulators do together.

    In LivePortrait's motion spreading parts the lips as well (real clips: lip ratio against jaw
    alone r = .78 and .90, against jaw + spread .95 and .97). A jaw at -8 closes them regardless.
    """
    parted = 0.8 * spread + 0.4 * max(rounding, 0.0)
    if parted > 0:
        return jaw + parted * min(max((jaw - LABIAL) / -LABIAL, 0.0), 1.0)
    return max(jaw + parted, 0.0) if jaw > 0 else jaw
