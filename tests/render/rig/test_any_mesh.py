"""Whatever mesh a rig is given and whatever it is asked for, it draws frames of its picture."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moda_cli.face.landmarks import LOWER_LIP, UPPER_LIP, FaceLandmarks
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media.pictures import Picture, read_image
from moda_cli.motion import MOTION_DIM, encode
from moda_cli.render.rig.points import BROWS, LOWER_LIDS, UPPER_LIDS
from moda_cli.render.rig.rig import Rig

PORTRAIT = Path(__file__).parents[3] / "examples" / "portrait.png"
PARTS = {
    "nothing": [],
    "an eye": [*UPPER_LIDS[0], *LOWER_LIDS[0]],
    "both irises": list(range(468, 478)),
    "the mouth": [*UPPER_LIP, *LOWER_LIP],
    "the brows": [*BROWS[0], *BROWS[1]],
    "everything": list(range(478)),
}


@cache
def drawn() -> tuple[Picture, NDArray[np.float64]]:
    picture = read_image(PORTRAIT)
    return picture, choose_face(find_faces(picture), "largest").mesh


def turned(mesh: NDArray[np.float64], yaw: float, roll: float) -> NDArray[np.float64]:
    middle = mesh.mean(axis=0)
    (cy, cr), (sy, sr) = np.cos([yaw, roll]), np.sin([yaw, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray((mesh - middle) @ (about_z @ about_y).T + middle)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(16, 160), st.integers(16, 160)),
    zoom=st.floats(0.02, 0.8),
    place=st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)),
    yaw=st.floats(-1.4, 1.4),
    roll=st.floats(-3.2, 3.2),
    noise=st.floats(0, 5),
    part=st.sampled_from(sorted(PARTS)),
    seed=st.integers(0, 99),
)
@example((64, 64), 0.25, (0.5, 0.5), 0.0, 0.0, 0.0, "an eye", 0)
@example((64, 64), 0.25, (0.5, 0.5), 0.0, 0.0, 0.0, "both irises", 0)
@example((64, 64), 0.25, (0.5, 0.5), 0.0, 0.0, 0.0, "the mouth", 0)
@example((64, 64), 0.25, (0.5, 0.5), 0.0, 0.0, 0.0, "everything", 0)
@example((64, 64), 0.25, (9.0, 9.0), 0.0, 0.0, 0.0, "nothing", 0)
@example((64, 64), 0.25, (0.5, 0.5), 1.5, 0.0, 0.0, "nothing", 0)
def test_frames_of_any_mesh(
    size: tuple[int, int],
    zoom: float,
    place: tuple[float, float],
    yaw: float,
    roll: float,
    noise: float,
    part: str,
    seed: int,
) -> None:
    picture, mesh = drawn()
    random = np.random.default_rng(seed)
    height, width = size
    picture = np.ascontiguousarray(picture[200 : 200 + height, 150 : 150 + width])
    mesh = turned(mesh + random.normal(0, noise, mesh.shape), yaw, roll)
    mesh[PARTS[part]] = mesh[PARTS[part]].mean(axis=0) if PARTS[part] else 0
    middle = np.array([*place, 0]) * [width, height, 0]
    mesh = (mesh - mesh.mean(axis=0)) * zoom + middle
    motion = torch.zeros(5, MOTION_DIM).double()
    units = torch.tensor([150.0, 40, 20, 2, 30, 30, 40, 40]).double()
    motion[:, :63] = encode(torch.from_numpy(random.uniform(-1, 1, (5, 8))) * units)
    motion[:, 67:] = torch.from_numpy(random.uniform(-90, 90, (5, 3)))
    motion[1] = 0
    gaze = torch.from_numpy(random.uniform(-3, 3, (5, 2)))
    gaze[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a division by zero, a NaN made a pixel
        rig = Rig(picture, FaceLandmarks(mesh), torch.zeros(MOTION_DIM))
        frames = list(rig.render(motion, gaze))
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[1], picture)
    x0, y0, x1, y1 = rig.grid.rect if rig.moves else (0, 0, 0, 0)
    for frame in frames:
        assert frame.shape == picture.shape
        assert frame.dtype == np.uint8
        outside = (frame != picture).any(axis=-1)
        outside[y0:y1, x0:x1] = False
        assert not outside.any()
