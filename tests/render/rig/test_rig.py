import itertools
import os
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from moda_cli.face.landmarks import LEFT_PUPIL, LOWER_LIP, RIGHT_PUPIL, FaceLandmarks
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media.pictures import read_image
from moda_cli.motion import ARTICULATORS, EXPRESSION, MOTION_DIM, decode, encode, encode_gaze
from moda_cli.render.rig.arrays import sample
from moda_cli.render.rig.controls import controls
from moda_cli.render.rig.frame import area_factor
from moda_cli.render.rig.points import LOWER_LIDS, UPPER_LIDS
from moda_cli.render.rig.rig import Rig

EXAMPLES = Path(__file__).parents[3] / "examples"
NEUTRAL = torch.linspace(-0.05, 0.05, MOTION_DIM, dtype=torch.float64)
Picture = NDArray[np.uint8]


@cache
def drawn() -> tuple[Picture, FaceLandmarks]:
    picture = read_image(EXAMPLES / "portrait.png")
    return picture, choose_face(find_faces(picture), "largest")


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
        assert warp.aperture is not None
        at = rig.in_plane(warp)
        edges = warp.aperture.at(at[..., 0].copy())
        above = at[..., 1] < edges.min(axis=-1) - 0.03
        below = at[..., 1] > edges[..., 1] + 0.03
        turned = warp.seen - rig.grid.nodes
        for field, seen in ((warp.upper, above), (warp.lower, below)):
            assert area_factor(turned + field)[seen[:-1, :-1]].min() > 0.15


def opening(rig: Rig, **units: float) -> float:
    """The widest gap between the moved lips, IOD."""
    row = np.array([units.get(name, 0.0) for name in ARTICULATORS])
    warp = rig.warp(controls(row), np.zeros(3))
    if warp is None or warp.aperture is None:
        return 0.0
    return float((warp.aperture.lower - warp.aperture.upper).max())


def test_the_mouth_opens_with_the_jaw_and_stays_shut_below_neutral(rig: Rig) -> None:
    picture, face = drawn()
    base = mouth_patch(picture, face)
    dark = [
        np.count_nonzero(mouth_patch(frame(rig, jaw=jaw), face) < base.min())
        for jaw in (-8, 0, 8, 45, 60)
    ]
    assert dark[0] <= 2
    assert dark[1] == 0
    assert min(dark[2:]) > 10
    gaps = [opening(rig, jaw=jaw) for jaw in (4, 8, 15, 30, 45, 60)]
    assert all(b > a + 0.01 for a, b in itertools.pairwise(gaps))


def test_teeth_show_in_wide_openings_only(rig: Rig) -> None:
    _, face = drawn()
    (x, y), iod = face.mouth.astype(int), face.iod

    def pale(jaw: float) -> int:
        """Pixels between the lips with hardly any colour that are not dark."""
        shown = frame(rig, jaw=jaw)[y - 4 : y + int(0.12 * iod), x - 20 : x + 21].astype(int)
        return int(np.count_nonzero((shown[..., 0] - shown[..., 2] < 40) & (shown[..., 1] > 90)))

    assert [pale(jaw) for jaw in (0, 4, 8)] == [0, 0, 0]
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


@pytest.fixture(scope="module")
def toothed() -> tuple[Picture, FaceLandmarks]:
    """The drawn face with its lips parted over white teeth, and its mesh."""
    picture, face = drawn()
    picture = picture.copy()
    x, y = face.mouth.astype(int)
    axes = (int(0.26 * face.iod), int(0.06 * face.iod))
    cv2.ellipse(picture, (int(x), int(y)), axes, 0, 0, 360, (245, 240, 235), -1, cv2.LINE_AA)
    return picture, choose_face(find_faces(picture), "largest")


def test_parted_lips_close_over_their_own_teeth(toothed: tuple[Picture, FaceLandmarks]) -> None:
    picture, face = toothed
    (x, y), iod = face.mouth.astype(int), face.iod
    rig = Rig(picture, face, NEUTRAL)

    def white(shown: Picture) -> int:
        return int(np.count_nonzero(shown[y - 12 : y + 40, x - 30 : x + 30].min(axis=-1) > 215))

    np.testing.assert_array_equal(frame(rig), picture)
    assert white(picture) > 0.04 * iod * iod
    assert white(frame(rig, jaw=-8)) < 0.02 * white(picture)
    assert white(frame(rig, jaw=40)) > 0.7 * white(picture)
    # The teeth stay with the skull: their middle does not go down with the jaw.
    middle = np.s_[y - 3 : y + 4, x - 20 : x + 21]
    assert frame(rig, jaw=40)[middle].min(axis=-1).mean() > 200


def test_a_shout_keeps_a_part_of_its_opening() -> None:
    picture, face = drawn()
    mesh = face.mesh.copy()
    across = np.linspace(-1, 1, 11)
    mesh[LOWER_LIP, 1] += 0.45 * face.iod * (1 - across**2)
    rig = Rig(picture, FaceLandmarks(mesh), NEUTRAL)
    assert 0.15 < opening(rig, jaw=-8) < 0.35


def test_closed_eyes_stay_as_they_are() -> None:
    picture, face = drawn()
    mesh = face.mesh.copy()
    mesh[UPPER_LIDS[0]] = mesh[LOWER_LIDS[0]]
    rig = Rig(picture, FaceLandmarks(mesh), NEUTRAL)
    shown = frame(rig, lid_a=14, lid_b=14)
    left, right = (
        np.abs(shown.astype(int) - picture)[:, half] for half in np.split(np.arange(512), 2)
    )
    assert left.max() == 0
    assert right.max() > 60


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
    corners = rig.grid.to_nodes(face.corners)

    def shift(name: str, value: float) -> NDArray[np.float64]:
        """How far outward and up the corners go, IOD."""
        warp = rig.warp(
            controls(np.array([value * (n == name) for n in ARTICULATORS])), np.zeros(3)
        )
        if warp is None:
            return np.zeros(2)
        moves = sample(warp.upper, corners[None])[0] * (rig.grid.step / face.iod)
        return np.array([moves[0, 0] - moves[1, 0], moves[:, 1].sum()]) / 2

    spread = [shift("spread", value)[0] for value in (-10, -5, 0, 5, 10)]
    assert all(b > a + 0.01 for a, b in itertools.pairwise(spread))
    rounded = [shift("round", value)[0] for value in (0, 4, 8, 12)]
    assert all(b < a - 0.01 for a, b in itertools.pairwise(rounded))
    assert shift("smile", 1)[1] > 0.05


def test_what_neither_jaw_nor_lid_moves_stays_as_it_is(rig: Rig) -> None:
    picture, face = drawn()
    shown = frame(rig, jaw=60, round=6)
    still = np.array(face.to_picture(np.array([[-0.9, -1.2], [0.9, 0.3]]))).astype(int)
    (x0, y0), (x1, y1) = still
    np.testing.assert_array_equal(shown[y0:y1, x0:x1], picture[y0:y1, x0:x1])


def test_only_the_chosen_one_of_two_faces_speaks(rig: Rig) -> None:
    picture, face = drawn()
    pair = as_picture(np.hstack([picture, picture]))
    shown = frame(Rig(pair, face, NEUTRAL), jaw=50, yaw=8, lid_a=14, lid_b=14)
    other = face.moved(np.array([[1.0, 0, 512], [0, 1, 0]]))
    x0, y0 = (other.to_picture(np.array([-1.3, -1.5]))).astype(int)
    np.testing.assert_array_equal(shown[y0:, x0:], pair[y0:, x0:])
    assert np.abs(shown.astype(int) - pair).max() > 60


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
        (0.25, 0, 0, 128, 128),  # a face 60 pixels wide
        (8.0, 0, 0, 4096, 4096),  # a portrait of 16 megapixels
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


@pytest.mark.parametrize("threads", [1, 2])
def test_frames_depend_on_their_row_alone(rig: Rig, threads: int) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    rows = torch.cat([motion(jaw=50, yaw=6), motion(lid_a=14, roll=4), motion(jaw=50, yaw=6)])
    whole = list(rig.render(rows))
    pieces = [*rig.render(rows[:1]), *rig.render(rows[1:])]
    cv2.setNumThreads(before)
    np.testing.assert_array_equal(whole[0], whole[2])
    np.testing.assert_array_equal(np.stack(whole), np.stack(pieces))


@pytest.mark.media
@pytest.mark.parametrize("clip", ["d5", "d8"])
def test_lips_part_as_those_of_a_real_clip_did(rig: Rig, clip: str) -> None:
    clips = load_file(Path(os.environ["MODA_MEDIA"]) / "liveportrait_motion_clips.safetensors")
    offsets = clips[f"{clip}.exp"] - clips[f"{clip}.exp"][0]
    gaps = []
    for articulators in decode(offsets).numpy().astype(float):
        gaps.append(opening(rig, **dict(zip(ARTICULATORS, articulators, strict=True))))
    assert np.corrcoef(gaps, clips[f"{clip}.lip_ratio"].numpy().ravel())[0, 1] > 0.88


def look(rig: Rig, x: float, y: float, **values: float) -> Picture:
    return next(rig.render(motion(**values), torch.tensor([[x, y]])))


@pytest.mark.parametrize("way", [(1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0)])
def test_both_irises_go_where_they_are_asked_to_look(rig: Rig, way: tuple[float, float]) -> None:
    _, face = drawn()
    near = Mesh(face.mesh, 1.0)

    def irises(shown: Picture) -> NDArray[np.float64]:
        return follow_mesh(shown, near).points[[LEFT_PUPIL, RIGHT_PUPIL], :2] / face.iod

    went = irises(look(rig, *way)) - irises(look(rig, 0, 0))
    assert ((went * way).sum(axis=-1) > (0.05 if way[0] else 0.02)).all()
    across = went * np.array(way)[::-1]
    assert np.abs(across).max() < 0.02


def test_a_gaze_changes_nothing_outside_the_eyes(rig: Rig) -> None:
    picture, face = drawn()
    changed = (look(rig, 1, 0) != picture).any(axis=-1)
    outside = np.ones(changed.shape, np.uint8)
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        outline = face.mesh[[*upper, *lower[-2:0:-1]], :2]
        cv2.fillPoly(outside, [np.rint(outline).astype(np.int32)], 0)
    outside = cv2.erode(outside, np.ones((3, 3)), iterations=int(0.04 * face.iod))
    assert changed.sum() > 500
    assert not (changed & (outside > 0)).any()


def test_closed_lids_hide_where_eyes_look(rig: Rig) -> None:
    shut = frame(rig, lid_a=14, lid_b=14).astype(int)
    assert np.abs(look(rig, 1, 0, lid_a=14, lid_b=14) - shut).max() == 0


def test_a_gaze_in_the_motion_moves_the_irises_sideways(rig: Rig) -> None:
    row = motion()
    row[:, EXPRESSION] += encode_gaze(torch.tensor([[0.8, 0.0]])).double()
    aside = next(rig.render(row)).astype(int)
    assert np.abs(aside - look(rig, 0.8, 0)).max() <= 1
    assert np.abs(aside - frame(rig)).max() > 60


def test_eyes_without_an_iris_look_nowhere() -> None:
    picture, face = drawn()
    blank = picture.copy()
    for pupil in (LEFT_PUPIL, RIGHT_PUPIL):  # as in a statue
        eye = face.mesh[pupil, :2]
        cv2.circle(blank, np.rint(eye).astype(int).tolist(), 14, (228, 220, 220), -1, cv2.LINE_AA)
    rig = Rig(blank, face, NEUTRAL)
    np.testing.assert_array_equal(look(rig, 1, 0), blank)
