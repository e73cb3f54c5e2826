"""Which face is meant, why none can be animated, and the points a user gives."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from moda_cli.errors import InputError, UsageError
from moda_cli.face.candidates import find_candidates
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.mesh import mean_mesh
from moda_cli.face.overlay import draw_landmarks
from moda_cli.face.search import (
    FaceSearch,
    choose_face,
    face_crop,
    face_from_points,
    fault_of,
    find_faces,
    judge,
    laid_through,
)
from moda_cli.media.pictures import read_image
from non_faces import animals

Picture = NDArray[np.uint8]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def drawn() -> Picture:
    return read_image(EXAMPLES / "portrait.png")


@pytest.fixture(scope="module")
def truth() -> dict[str, Points]:
    fields = json.loads((EXAMPLES / "portrait.json").read_text())
    return {name: np.array(fields[name]) for name in ("pupils", "mouth", "corners", "chin", "seam")}


@pytest.fixture(scope="module")
def face(drawn: Picture) -> FaceLandmarks:
    return choose_face(find_faces(drawn), "largest")


def mean_face(x: float, iod: float, y: float = 100.0) -> FaceLandmarks:
    """A frontal face whose left pupil is there."""
    feet = np.array([[x, y], [x + iod, y], [x + iod / 2, y + iod]])
    return laid_through(FaceLandmarks(mean_mesh(), 0.9), feet)


def test_the_drawn_portrait_is_found_where_it_was_drawn(
    face: FaceLandmarks, truth: dict[str, Points]
) -> None:
    for name, most in (("pupils", 0.03), ("mouth", 0.03), ("corners", 0.06), ("chin", 0.08)):
        off = np.linalg.norm(getattr(face, name) - truth[name], axis=-1).max() / face.iod
        assert off <= most, name
    assert np.array_equal(face.seam[[0, -1]], face.corners)
    seam = np.interp(face.seam[:, 0], truth["seam"][:, 0], truth["seam"][:, 1])
    assert np.abs(face.seam[:, 1] - seam).max() <= 0.05 * face.iod
    assert face.opening < 0.01


def test_the_same_picture_gives_the_same_numbers(drawn: Picture, face: FaceLandmarks) -> None:
    assert np.array_equal(find_faces(drawn).faces[0].mesh, face.mesh)


def test_an_open_mouth_is_seen(drawn: Picture, face: FaceLandmarks) -> None:
    opened = drawn.copy()
    x, y = np.rint(face.mouth).astype(int).tolist()
    axes = (round(0.3 * face.iod), round(0.12 * face.iod))
    cv2.ellipse(opened, (x, y), axes, 0, 0, 360, (25, 8, 10), -1, cv2.LINE_AA)
    assert find_faces(opened).faces[0].opening > 0.1


def test_two_faces_come_from_left_to_right(drawn: Picture) -> None:
    canvas = np.full((420, 720, 3), 128, np.uint8)
    canvas[:300, :300] = cv2.resize(drawn, (300, 300), interpolation=cv2.INTER_AREA)
    canvas[:400, 310:710] = cv2.resize(drawn, (400, 400), interpolation=cv2.INTER_AREA)
    found = find_faces(canvas)
    assert [face.pupils[0, 0] < 300 for face in found.faces] == [True, False]
    assert choose_face(found, "largest") is choose_face(found, "right")


def test_a_small_face_beside_a_large_one_is_found_too(drawn: Picture) -> None:
    canvas = np.full((512, 1024, 3), 128, np.uint8)
    canvas[:, :512] = drawn
    canvas[300:460, 700:860] = cv2.resize(drawn, (160, 160), interpolation=cv2.INTER_AREA)
    assert [round(face.iod) for face in find_faces(canvas).faces] == pytest.approx([110, 34], abs=2)


def test_choose_face() -> None:
    faces = (mean_face(50, 40), mean_face(200, 80), mean_face(500, 60))
    found = FaceSearch(faces)
    chosen = {"largest": 1, "left": 0, "right": 2, "1": 0, "2": 1, "3": 2}
    for which, index in chosen.items():
        assert choose_face(found, which) is faces[index]
    for which in ("0", "4"):
        with pytest.raises(InputError, match=f"no face {which}: 3 found") as absent:
            choose_face(found, which)
        assert absent.value.hint.endswith("1 at 70,100, 2 at 240,100, 3 at 530,100")
    for which in ("middle", "-1", "1.5", ""):
        with pytest.raises(UsageError, match="no such face") as raised:
            choose_face(found, which)
        assert raised.value.hint.startswith("largest, left, right")


def test_given_points_are_kept_and_the_rest_is_measured(
    drawn: Picture, truth: dict[str, Points]
) -> None:
    given = np.vstack((truth["pupils"], truth["mouth"]))
    for points in (" ".join(f"{x:.2f},{y:.2f}" for x, y in given), given, given[[1, 0, 2]]):
        face = face_from_points(drawn, points)
        np.testing.assert_allclose(face.pupils, truth["pupils"], atol=0.01)
        np.testing.assert_allclose(face.mouth, truth["mouth"], atol=0.01)
        assert np.linalg.norm(face.chin - truth["chin"]) <= 0.08 * face.iod
        assert np.linalg.norm(face.corners - truth["corners"], axis=1).max() <= 0.06 * face.iod
        assert face.score is None


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -120])
def test_given_points_work_where_there_is_no_face(degrees: float) -> None:
    """The mean mesh, turned as they are."""
    blank = np.full((400, 400, 3), 90, np.uint8)
    turn = cv2.getRotationMatrix2D((200, 200), degrees, 1)
    given = np.array([[150, 150], [250, 150], [203, 255]]) @ turn[:, :2].T + turn[:, 2]
    face = face_from_points(blank, given)
    np.testing.assert_allclose(np.vstack((face.pupils, face.mouth)), given, atol=1e-6)
    shape = face.to_face(face.mesh[:, :2]) - mean_mesh()[:, :2]
    assert np.abs(shape).max() < 0.15
    assert face.to_face(face.chin)[1] > 1.4


def test_an_animal_takes_the_points_it_is_given() -> None:
    face = face_from_points(animals()["cat"], "180,220 300,220 240,320")
    np.testing.assert_allclose(face.mouth, (240, 320), atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "1,2 3,4", "1,2 3,4 5,6 7,8", "a,b c,d e,f", "1 2 3", "nan,2 3,4 5,6"]
)
def test_text_that_is_not_three_points_is_a_usage_error(drawn: Picture, text: str) -> None:
    with pytest.raises(UsageError, match="not face points") as raised:
        face_from_points(drawn, text)
    assert "left pupil" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("200,214 900,214 255,331", "outside the 512 x 512 picture"),
        ("200,-1 310,214 255,331", "outside"),
        ("200,214 200,214 200,331", "too small: 0 pixels"),
        ("200,214 218,214 209,236", "too small: 18 pixels"),
        ("200,214 310,214 255,230", "not below the pupils"),
        ("200,214 310,214 400,331", "not below the pupils"),
        ("200,214 310,214 310,214", "not below the pupils"),
        ("200,354 310,354 255,465", "ends above the chin"),
    ],
)
def test_points_that_are_no_face_are_refused(drawn: Picture, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        face_from_points(drawn, text)
    assert raised.value.hint


def cut_below(drawn: Picture, face: FaceLandmarks, share: float) -> Picture:
    """The portrait down to a share of the way from the lip line to the chin."""
    return drawn[: round(face.mouth[1] + share * (face.chin[1] - face.mouth[1]))]


@pytest.mark.parametrize(("share", "message"), [(0.0, "mouth"), (0.55, "chin")])
def test_a_face_that_is_cut_off_is_refused(
    drawn: Picture, face: FaceLandmarks, share: float, message: str
) -> None:
    found = find_faces(cut_below(drawn, face, share))
    assert not found.faces
    if found.refused:  # a face without its mouth may not even be seen
        assert fault_of(face, cut_below(drawn, face, share)) is not None
        with pytest.raises(InputError, match=f"ends .* the {message}|no face") as raised:
            choose_face(found, "largest")
        assert raised.value.hint


def test_a_tiny_face_is_refused_for_its_size(drawn: Picture) -> None:
    tiny = cv2.resize(drawn, (80, 80), interpolation=cv2.INTER_AREA)
    with pytest.raises(InputError, match=r"too small: 1\d pixels between the eyes, 20") as raised:
        choose_face(find_faces(np.asarray(tiny, np.uint8)), "largest")
    assert "larger picture" in raised.value.hint


@pytest.mark.parametrize("yaw", [30, -45, 75])
def test_a_head_turned_too_far_is_refused_with_its_angles(yaw: float) -> None:
    picture = np.zeros((500, 500, 3), np.uint8)
    turn = cv2.Rodrigues(np.array([0, -np.deg2rad(yaw), 0]))[0]
    fault = fault_of(FaceLandmarks(250 + 60 * mean_mesh() @ turn.T), picture)
    assert (fault is None) == (abs(yaw) < 60)
    if fault:
        assert f"yaw {yaw}" in fault[0]
        assert "60" in fault[1]


def test_a_doubtful_face_is_shown_and_can_be_taken(tmp_path: Path) -> None:
    pig = animals()["pig"]
    found = find_faces(pig)
    assert found.doubtful
    with pytest.raises(InputError, match=r"no face found for sure: .* is trusted$") as raised:
        choose_face(found, "largest")
    hint = raised.value.hint
    assert "--show-landmarks F.png draws it; --force takes it" in hint
    line = hint.split('--face-points "')[1].split('"')[0]
    np.testing.assert_allclose(face_from_points(pig, line).pupils, found.refused.pupils, atol=0.51)
    with pytest.raises(InputError) as raised:
        choose_face(found, "largest", tmp_path / "seen.png")
    assert "seen.png shows it" in raised.value.hint
    forced = judge(find_candidates(pig), pig, force=True)
    np.testing.assert_array_equal(choose_face(forced, "largest").mesh, found.refused.mesh)


@pytest.mark.parametrize(
    ("name", "eyes"), [("pig", ((170, 210), (310, 210))), ("bear", ((180, 220), (300, 220)))]
)
def test_an_animal_is_shown_as_it_stands(name: str, eyes: object) -> None:
    """The detector sees it as well in other turns."""
    refused = find_faces(animals()[name]).refused
    assert refused is not None
    assert np.abs(refused.pupils - eyes).max() < 0.15 * refused.iod


def test_where_there_is_nothing_the_points_are_asked_for() -> None:
    found = find_faces(np.full((300, 200, 3), 127, np.uint8))
    assert found == FaceSearch(())
    with pytest.raises(InputError, match=r"^no face found$") as raised:
        choose_face(found, "largest")
    assert "--face-points" in raised.value.hint


def test_the_overlay_marks_the_face_and_leaves_the_picture(
    drawn: Picture, face: FaceLandmarks
) -> None:
    before = drawn.copy()
    overlay = draw_landmarks(drawn, (face,))
    assert np.array_equal(drawn, before)
    for x, y in np.rint(np.vstack((face.mouth, face.mesh[10, :2]))).astype(int):
        assert overlay[y, x].tolist() == pytest.approx([0, 220, 60], abs=60)
    x, y = np.rint(face.mouth).astype(int)
    assert draw_landmarks(drawn, (), refused=face)[y, x].tolist() == [255, 40, 40]


def test_the_crop_is_upright_and_holds_the_face(face: FaceLandmarks) -> None:
    turn = cv2.getRotationMatrix2D((256, 256), 30, 2.0)
    for source in (face, face.moved(turn)):
        cropped = source.moved(face_crop(source, 512))
        assert abs(cropped.pupils[0, 1] - cropped.pupils[1, 1]) < 0.01
        assert 0.15 < cropped.iod / 512 < 0.25
        assert 0.4 < cropped.pupils[0, 1] / 512 < 0.55
        assert cropped.chin[1] < 0.9 * 512
    np.testing.assert_allclose(
        face.moved(face_crop(face, 512)).pupils,
        face.moved(turn).moved(face_crop(face.moved(turn), 512)).pupils,
        atol=0.01,
    )
