"""The faces of two portraits in many states, as the rig draws them: its look, kept as a picture.

python tests/support/rig_looks.py    # draws tests/golden/rig_*.png anew: look at them first
"""

from pathlib import Path

import numpy as np
import skimage.data
import torch

from moda_cli.face.search import choose_face, find_faces
from moda_cli.media.pictures import Picture, read_image
from moda_cli.motion import ARTICULATORS, MOTION_DIM, encode
from moda_cli.render.rig.rig import Rig

TESTS = Path(__file__).parents[1]
POSE = ("pitch", "yaw", "roll")
GAZE = ("aside", "down")
STATES: tuple[dict[str, float], ...] = (
    {"jaw": 55, "spread": 8, "brow_up": 15},
    {"jaw": 20, "round": 10, "lid_a": 5, "lid_b": 5},
    {"smile": 1, "brow_frown": 10, "lid_a": 14, "lid_b": 14},
    {"jaw": 30, "smile": -0.5, "spread": -6, "lid_a": -6, "lid_b": -6, "brow_frown": -20},
    {"jaw": -8, "round": 5, "aside": 1, "down": 0.5},
    {"jaw": 12, "pitch": 7, "yaw": -10, "roll": 5, "aside": -0.6, "down": -0.5},
)


def portrait(name: str) -> Picture:
    """drawn, lips closed; or astronaut, a laugh whose teeth show."""
    if name == "astronaut":
        return np.ascontiguousarray(skimage.data.astronaut(), np.uint8)
    return read_image(TESTS.parent / "examples" / "portrait.png")


def sheet(picture: Picture) -> Picture:
    """(h, len(STATES) * w, 3): the face in each state, from the brows to below the chin."""
    face = choose_face(find_faces(picture), "largest")
    motion = torch.zeros(len(STATES), MOTION_DIM).double()
    units = torch.tensor([[state.get(name, 0.0) for name in ARTICULATORS] for state in STATES])
    motion[:, :63] = encode(units.double())
    motion[:, 67:] = torch.tensor([[state.get(name, 0.0) for name in POSE] for state in STATES])
    gaze = torch.tensor([[state.get(name, 0.0) for name in GAZE] for state in STATES])
    (x, y), iod = face.pupils.mean(axis=0), face.iod
    box = np.s_[int(y - 0.5 * iod) : int(y + 1.55 * iod), int(x - 0.85 * iod) : int(x + 0.85 * iod)]
    frames = Rig(picture, face, torch.zeros(MOTION_DIM).double()).render(motion, gaze)
    return np.hstack([frame[box] for frame in frames])


if __name__ == "__main__":
    import cv2

    for name in ("drawn", "astronaut"):
        shown = cv2.cvtColor(sheet(portrait(name)), cv2.COLOR_RGB2BGR)
        cv2.imwrite(
            str(TESTS / "golden" / f"rig_{name}.png"), shown, [cv2.IMWRITE_PNG_COMPRESSION, 9]
        )
