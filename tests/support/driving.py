"""Driving clips made by our own rig from motion that is known."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli import media
from moda_cli.config import RenderConfig
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh_motion import rest_motion
from moda_cli.face.portrait import frame_portrait
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media.pictures import Picture
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, Recording, decode, encode
from moda_cli.render.rig.rig import Rig

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"
ASKED = (*ARTICULATORS, "pitch", "yaw", "roll", "gaze_x", "gaze_y")
# How far each goes where a test asks one after another for it.
FAR = {
    **{"jaw": 50.0, "spread": 12.0, "round": 9.0, "smile": 0.9, "lid_a": 13.0, "lid_b": 13.0},
    **{"brow_up": 13.0, "brow_frown": -13.0, "pitch": 7.0, "yaw": 9.0, "roll": 7.0, "gaze_x": 0.9},
}
EACH = 20  # frames

Rows = NDArray[np.float64]


@cache
def framed(portrait: Path, size: int) -> tuple[Picture, FaceLandmarks]:
    """A portrait's crop, and its face."""
    picture = media.read_image(portrait, "white")[..., :3]
    face = choose_face(find_faces(picture), "largest")
    return frame_portrait(picture, face, RenderConfig(full_frame=False, size=size))


def bump(length: int = EACH) -> Rows:
    """A curve (length,) from 0 to 1 and back, uneven."""
    t = np.linspace(0, np.pi, length)
    return np.sin(t) ** 2 * (1 - 0.35 * np.cos(6 * t)) / 1.35


def one_by_one() -> Rows:
    """Each of FAR by itself, (T, 13) in the order of ASKED."""
    rows = np.zeros((len(FAR), EACH, len(ASKED)))
    for k, (name, far) in enumerate(FAR.items()):
        rows[k, :, ASKED.index(name)] = far * bump()
    return rows.reshape(-1, len(ASKED))


def asked(length: int, **curves: Rows | float) -> Rows:
    """Rows (length, 13) of these curves, the rest at rest."""
    rows = np.zeros((length, len(ASKED)))
    for name, curve in curves.items():
        rows[:, ASKED.index(name)] = curve
    return rows


def drawn(rows: Rows, size: int = 192, portrait: Path = PORTRAIT) -> list[Picture]:
    """Frames of a portrait that moves as asked (T, 13)."""
    rest = rest_motion()
    motion = rest.repeat(len(rows), 1)
    count = len(ARTICULATORS)
    motion[:, EXPRESSION] += encode(torch.from_numpy(rows[:, :count])).float()
    motion[:, POSE] += torch.from_numpy(rows[:, count : count + 3]).float()
    picture, face = framed(portrait, size)
    return list(Rig(picture, face, rest).render(motion, torch.from_numpy(rows[:, count + 3 :])))


def read(recording: Recording) -> Rows:
    """A recording off its neutral, (T, 13) in the order of ASKED."""
    off: Tensor = recording.motion - recording.neutral
    gaze = torch.zeros(len(off), 2) if recording.gaze is None else recording.gaze
    parts = (decode(off[:, EXPRESSION].double()), off[:, POSE], gaze)
    return np.column_stack([part.numpy() for part in parts])


def column(rows: Rows, name: str) -> Rows:
    return rows[:, ASKED.index(name)]


def correlations(wanted: Rows, found: Rows) -> Mapping[str, float]:
    """Of each of ASKED that moves."""
    return {
        name: float(np.corrcoef(wanted[:, k], found[:, k])[0, 1])
        for k, name in enumerate(ASKED)
        if wanted[:, k].std() > 0
    }
