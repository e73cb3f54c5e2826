import itertools
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.search import face_from_points
from moda_cli.motion import ARTICULATORS, MOTION_DIM, decode, encode
from moda_cli.render.rig.expression import controls
from moda_cli.render.rig.head import area_factor
from moda_cli.render.rig.rig import Rig

EXAMPLES = Path(__file__).parents[3] / "examples"
NEUTRAL = torch.linspace(-0.05, 0.05, MOTION_DIM, dtype=torch.float64)
Picture = NDArray[np.uint8]


def drawn() -> tuple[Picture, FaceLandmarks]:
    image = cv2.imread(str(EXAMPLES / "portrait.png"), cv2.IMREAD_COLOR)
    assert image is not None
    picture = as_picture(image[..., ::-1])
    points = json.loads((EXAMPLES / "portrait.json").read_text())
    return picture, face_from_points(picture, np.array([*points["pupils"], points["mouth"]]))


def as_picture(image: NDArray[Any]) -> Picture:
    return np.ascontiguousarray(image, np.uint8)


def motion(pitch: float = 0, yaw: float = 0, roll: float = 0, **units: float) -> Tensor:
    """One row (1, 70) that far from NEUTRAL."""
    row = NEUTRAL.clone()
    row[:63] += encode(torch.tensor([units.get(name, 0.0) for name in ARTICULATORS]).double())
    row[67:] += torch.tensor([pitch, yaw, roll]).double()
    return row[None]


def frame(rig: Rig, **values: float) -> Picture:
    return next(rig.render(motion(**values)))


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig(*drawn(), NEUTRAL)


def mouth_patch(picture: Picture, face: FaceLandmarks) -> NDArray[np.float64]:
    """Luminance (h, w) of the mouth at rest and the room below it."""
    (x, y), iod = face.mouth, face.iod
    box = picture[
        int(y - 0.12 * iod) : int(y + 0.35 * iod), int(x - 0.1 * iod) : int(x + 0.1 * iod)
    ]
    return np.asarray(box.mean(axis=-1))


def test_neutral_motion_is_the_picture_and_scale_and_translation_do_not_matter(rig: Rig) -> None:
    picture, _ = drawn()
    row = motion()
    row[0, 63:67] += 3.0
    for shown in rig.render(torch.cat([motion(), row])):
        np.testing.assert_array_equal(shown, picture)


@pytest.mark.parametrize("signs", list(itertools.product((-40, 40), repeat=3)))
def test_the_edge_of_the_picture_never_moves(rig: Rig, signs: tuple[int, int, int]) -> None:
    picture, _ = drawn()
    pitch, yaw, roll = signs
    shown = frame(rig, pitch=pitch, yaw=yaw, roll=roll, jaw=100, smile=1, lid_a=14, lid_b=14)
    assert np.abs(shown.astype(int) - picture).max() > 50
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_array_equal(shown[edge], picture[edge])


def test_no_fold_over_the_clamped_range(rig: Rig) -> None:
    generator = np.random.default_rng(0)
    low = np.array([-30, -30, -12, -0.6, -14, -14, -20, -30])
    high = np.array([120, 20, 15, 1.5, 20, 20, 25, 15])
    for trial in range(60):
        units = np.where(generator.random(8) < 0.5, low, high)
        pose = generator.uniform(-20, 20, 3) * (trial % 3 > 0)
        warp = rig.warp(controls(units.astype(float)), pose)
        assert warp is not None
        edges = warp.aperture.at(warp.at[..., 0].copy())
        above = warp.at[..., 1] < edges.min(axis=-1) - 0.03
        below = warp.at[..., 1] > edges[..., 1] + 0.03
        for field, seen in ((warp.upper, above), (warp.lower, below)):
            assert area_factor(field)[seen[:-1, :-1]].min() > 0.3


def test_the_mouth_opens_with_the_jaw_and_stays_shut_below_neutral(rig: Rig) -> None:
    picture, face = drawn()
    base = mouth_patch(picture, face)
    dark = [
        np.count_nonzero(mouth_patch(frame(rig, jaw=jaw), face) < base.min())
        for jaw in (-8, 0, 8, 45, 60)
    ]
    assert dark[0] <= 2
    assert dark[1] == 0
    assert dark[2] > 10
    assert dark[2] < dark[4]
    assert dark[3] < dark[4]
    gaps = []
    for jaw in (4, 8, 15, 30, 45, 60):
        warp = rig.warp(controls(np.array([jaw * (n == "jaw") for n in ARTICULATORS])), np.zeros(3))
        assert warp is not None
        gaps.append(float((warp.aperture.lower - warp.aperture.upper).max()))
    assert all(b > a + 0.01 for a, b in itertools.pairwise(gaps))


def test_teeth_show_in_wide_openings_only(rig: Rig) -> None:
    _, face = drawn()
    (x, y), iod = face.mouth.astype(int), face.iod

    def pale(jaw: float) -> int:
        """Pixels between the lips with hardly any colour that are not dark."""
        shown = frame(rig, jaw=jaw)[y - 4 : y + int(0.12 * iod), x - 20 : x + 21].astype(int)
        return int(np.count_nonzero((shown[..., 0] - shown[..., 2] < 40) & (shown[..., 1] > 90)))

    assert [pale(jaw) for jaw in (0, 8, 14, 20)] == [0, 0, 0, 0]
    assert pale(50) > 20


@pytest.mark.parametrize("units", [3, 7])
def test_a_lowered_lid_keeps_its_arch(rig: Rig, units: int) -> None:
    picture, face = drawn()
    change = np.abs(frame(rig, lid_a=units, lid_b=units).astype(int) - picture).max(axis=-1)
    for x, y in face.pupils.astype(int):
        box = change[y - 20 : y + 20, x - 16 : x + 17] > 12
        edge = 40 - box[::-1].argmax(axis=0)  # the lowest row that the lid covers
        middle, sides = edge[14:19].mean(), np.concatenate([edge[:4], edge[-4:]]).mean()
        assert middle < sides - 2.3


def test_lower_lip_meets_upper_teeth_of_a_toothed_source() -> None:
    """A source that shows its teeth can still close its lips."""
    picture, face = drawn()
    (x, y), iod = face.mouth.astype(int), face.iod
    centre, axes = (int(x), int(y)), (int(0.26 * iod), int(0.055 * iod))
    cv2.ellipse(picture, centre, axes, 0, 0, 360, (245, 240, 235), -1, cv2.LINE_AA)
    toothed = Rig(picture, face, NEUTRAL)

    def white(shown: Picture) -> int:
        return int(np.count_nonzero(shown[y - 12 : y + 40, x - 30 : x + 30].min(axis=-1) > 215))

    assert white(frame(toothed, jaw=-8)) < 0.25 * white(picture)
    assert white(frame(toothed, jaw=40)) > 0.7 * white(picture)


def test_closed_lids_cover_each_eye_alone(rig: Rig) -> None:
    picture, face = drawn()
    for index, name in enumerate(("lid_a", "lid_b")):
        shown = frame(rig, **{name: 14})
        for other, (x, y) in enumerate(face.pupils.astype(int)):
            before, after = (
                p[y - 6 : y + 7, x - 6 : x + 7].mean(axis=-1) for p in (picture, shown)
            )
            if other == index:
                assert after.min() > before.min() + 60  # the pupil is gone
            else:
                np.testing.assert_array_equal(after, before)


def test_corners_follow_spread_round_and_smile(rig: Rig) -> None:
    _, face = drawn()
    corners = face.to_face(face.corners)

    def shift(name: str, value: float) -> NDArray[np.float64]:
        """How far outward and up the corners go, IOD."""
        warp = rig.warp(
            controls(np.array([value * (n == name) for n in ARTICULATORS])), np.zeros(3)
        )
        if warp is None:
            return np.zeros(2)
        nodes = warp.at.reshape(-1, 2)
        moves = warp.upper.reshape(-1, 2) * float(np.diff(warp.at[0, :2, 0])[0])
        near = [np.linalg.norm(nodes - corner, axis=1).argmin() for corner in corners]
        return np.array([moves[near[0], 0] - moves[near[1], 0], moves[near].sum(axis=0)[1]]) / 2

    spread = [shift("spread", value)[0] for value in (-10, -5, 0, 5, 10)]
    assert all(b > a + 0.01 for a, b in itertools.pairwise(spread))
    rounded = [shift("round", value)[0] for value in (0, 4, 8, 12)]
    assert all(b < a - 0.01 for a, b in itertools.pairwise(rounded))
    assert shift("smile", 1)[1] > 0.05


def test_grey_stays_grey() -> None:
    picture, face = drawn()
    grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    shown = frame(Rig(as_picture(grey), face, NEUTRAL), yaw=8, jaw=55, lid_a=9, lid_b=14, smile=0.5)
    assert np.ptp(shown, axis=-1).max() == 0


@pytest.mark.parametrize(
    ("zoom", "left", "top", "width", "height"),
    [
        (0.4, 20, 10, 171, 163),  # an odd, small picture: pupils 44 px apart
        (2.7, 430, 350, 781, 901),  # a large face that fills the picture
        (1.0, 150, 120, 362, 392),  # the face near the left and top edge
        (1.0, 0, 100, 330, 300),  # the chin and an eye near the edge
    ],
)
def test_odd_sizes_and_faces_at_the_edge(
    zoom: float, left: int, top: int, width: int, height: int
) -> None:
    picture, face = drawn()
    affine = np.array([[zoom, 0, -left], [0, zoom, -top]])
    size = (width, height)
    cut = as_picture(cv2.warpAffine(picture, affine, size, borderMode=cv2.BORDER_REPLICATE))
    rig = Rig(cut, face.moved(affine), NEUTRAL)
    np.testing.assert_array_equal(frame(rig), cut)
    for values in (
        {"jaw": 80, "smile": 1},
        {"pitch": 8, "yaw": -12, "roll": 8, "jaw": 40, "lid_a": 14},
    ):
        shown = frame(rig, **values)
        assert shown.shape == cut.shape
        assert np.abs(shown.astype(int) - cut).max() > 30
        for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            np.testing.assert_array_equal(shown[edge], cut[edge])


def test_frames_depend_on_their_row_alone(rig: Rig) -> None:
    rows = torch.cat([motion(jaw=50, yaw=6), motion(lid_a=14, roll=4), motion(jaw=50, yaw=6)])
    whole = list(rig.render(rows))
    pieces = [*rig.render(rows[:1]), *rig.render(rows[1:])]
    np.testing.assert_array_equal(whole[0], whole[2])
    np.testing.assert_array_equal(np.stack(whole), np.stack(pieces))


@pytest.mark.media
@pytest.mark.parametrize("clip", ["d5", "d8"])
def test_lips_part_as_those_of_a_real_clip_did(rig: Rig, clip: str) -> None:
    clips = load_file(Path(os.environ["MODA_MEDIA"]) / "liveportrait_motion_clips.safetensors")
    offsets = clips[f"{clip}.exp"] - clips[f"{clip}.exp"][0]
    gaps = []
    for articulators in decode(offsets).numpy().astype(float):
        warp = rig.warp(controls(articulators), np.zeros(3))
        gaps.append(
            0.0 if warp is None else float((warp.aperture.lower - warp.aperture.upper).max())
        )
    assert np.corrcoef(gaps, clips[f"{clip}.lip_ratio"].numpy().ravel())[0, 1] > 0.88
