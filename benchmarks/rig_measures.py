"""What the rig draws against what it was asked for, measured on its frames with the face mesh.

    python benchmarks/rig_measures.py PICTURE... [--variant grey|stone|mirror]

A row for each picture, lengths in distances between the irises (IOD): `r` and `slope` of the seen
opening of the lips (inner lip, points 13 and 14) against the asked one; the gap left when m, b and
p ask for closed lips; how far a blink closes the wider open eye, as a share of its opening at rest;
how far the opening's upper edge lies from the inner lip line at rest; and how far points outside
the mouth, the eyes and the jaw move while the mouth speaks, the head still and the head turned.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from moda_cli.face.mesh import follow_mesh
from moda_cli.motion import ARTICULATORS, MOTION_DIM, encode
from moda_cli.render.rig.controls import LABIAL, controls
from moda_cli.render.rig.frame import FaceFrame
from moda_cli.render.rig.points import LOWER_LIDS, UPPER_INNER, UPPER_LIDS
from moda_cli.render.rig.rig import Rig

Picture = NDArray[np.uint8]
NEUTRAL = torch.zeros(MOTION_DIM, dtype=torch.float64)
LIP_MIDDLES = [13, 14]
# Forehead, brows, nose and the cheeks beside it: neither the jaw nor a lid takes them along.
STILL = [10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
JAWS = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55)


@dataclass(frozen=True, slots=True)
class Figures:
    """One portrait's row; lengths in IOD."""

    r: float
    slope: float
    labial: float
    blink: float
    line: float
    still: float
    still_turned: float


def motion(pitch: float = 0, yaw: float = 0, roll: float = 0, **units: float) -> torch.Tensor:
    """One row (1, 70) of articulators and degrees."""
    row = NEUTRAL.clone()
    row[:63] += encode(torch.tensor([units.get(name, 0.0) for name in ARTICULATORS]).double())
    row[67:] += torch.tensor([pitch, yaw, roll]).double()
    return row[None]


def measured(picture: Picture, face, frames) -> Figures:
    ...
