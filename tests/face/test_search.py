"""Faces found without weights: accurate on the drawn portrait, silent where there is no face."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from numpy.typing import NDArray

from moda_cli.errors import InputError, UsageError
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.lips import mouth_gap
from moda_cli.face.search import (
    FaceSearch,
    choose_face,
    draw_landmarks,
    face_crop,
    face_from_points,
    find_faces,
)

Picture = NDArray[np.uint8]
EXAMPLES = Path(__file__).parents[2] / "examples"
SKIMAGE_DATA = Path(skimage.__file__).parent / "data"
NON_FACES = (
    "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "moon.png",
    "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip


def load(path: Path) -> Picture:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)


@pytest.fixture(scope="module")
def drawn() -> Picture:
    return load(EXAMPLES / "portrait.png")


@pytest.fixture(scope="module")
def truth() -> dict[str, NDArray[np.float64]]:
    fields = json.loads((EXAMPLES / "portrait.json").read_text())
    return {name: np.array(fields[name]) for name in ("pupils", "mouth", "corners", "chin", "seam")}


@pytest.fixture(scope="module")
def face(drawn: Picture) -> FaceLandmarks:
    return choose_face(find_faces(drawn), "largest")


def distances(face: FaceLandmarks, truth: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    iod = np.linalg.norm(truth["pupils"][1] - truth["pupils"][0])
    return {
        name: float(np.linalg.norm(getattr(face, name) - truth[name], axis=-1).max() / iod)
        for name in ("pupils", "mouth", "corners", "chin")
    }


def simple_face(x: float, iod: float) -> FaceLandmarks:
    pupils = np.array([[x, 100.0], [x + iod, 100.0]])
    corners = pupils + np.array([0.0, iod])
    middle = corners.mean(axis=0)
    chin = middle + np.array([0.0, iod / 2])
    return FaceLandmarks(pupils, middle, corners, chin, corners, 1.5)


def test_the_drawn_portrait_is_found_where_it_was_drawn(
    face: FaceLandmarks, truth: dict[str, NDArray[np.float64]]
) -> None:
    off = distances(face, truth)
    assert off["pupils"] <= 0.03
    assert off["mouth"] <= 0.03
    assert off["corners"] <= 0.06
    assert off["chin"] <= 0.08
    assert np.array_equal(face.seam[[0, -1]], face.corners)
    seam = np.interp(face.seam[:, 0], truth["seam"][:, 0], truth["seam"][:, 1])
    assert np.abs(face.seam[:, 1] - seam).max() <= 0.05 * face.iod


def test_the_same_picture_gives_the_same_numbers(drawn: Picture, face: FaceLandmarks) -> None:
    again = find_faces(drawn).faces[0]
    for name in ("pupils", "mouth", "corners", "chin", "seam", "score"):
        assert np.array_equal(getattr(face, name), getattr(again, name))


def test_a_mirrored_picture_gives_mirrored_landmarks(drawn: Picture, face: FaceLandmarks) -> None:
    found = find_faces(drawn[:, ::-1].copy()).faces[0]
    flip = np.array([[-1.0, 0, drawn.shape[1] - 1], [0, 1, 0]])
    back = found.moved(flip)
    for points, mirrored in (
        (face.pupils, back.pupils[::-1]),
        (face.corners, back.corners[::-1]),
        (face.mouth, back.mouth),
        (face.chin, back.chin),
    ):
        assert np.abs(points - mirrored).max() <= 0.04 * face.iod


@pytest.mark.parametrize("angle", [-35, -20, 20, 35])
def test_a_tilted_head_is_found(
    drawn: Picture, truth: dict[str, NDArray[np.float64]], angle: float
) -> None:
    height, width = drawn.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 0.9)
    tilted = cv2.warpAffine(drawn, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    moved = {name: points @ turn[:, :2].T + turn[:, 2] for name, points in truth.items()}
    off = distances(choose_face(find_faces(np.asarray(tilted, np.uint8)), "1"), moved)
    assert max(off["pupils"], off["mouth"]) <= 0.05


def test_a_small_and_dark_face_is_found_or_refused_for_its_size(drawn: Picture) -> None:
    small = cv2.resize((drawn * 0.5).astype(np.uint8), (192, 192), interpolation=cv2.INTER_AREA)
    assert len(find_faces(np.asarray(small, np.uint8)).faces) == 1
    tiny = cv2.resize(drawn, (110, 110), interpolation=cv2.INTER_AREA)
    found = find_faces(np.asarray(tiny, np.uint8))
    assert not found.faces
    with pytest.raises(InputError, match=r"too small: 2\d pixels"):
        choose_face(found, "largest")


def test_a_real_photograph_is_accepted() -> None:
    face = choose_face(find_faces(load(SKIMAGE_DATA / "astronaut.png")), "largest")
    assert np.abs(face.pupils - [[203, 101], [246, 103]]).max() < 2  # as mediapipe has them
    assert mouth_gap(load(SKIMAGE_DATA / "astronaut.png"), face) > 0.05  # a toothy smile


@pytest.mark.parametrize("name", NON_FACES)
def test_what_is_no_face_is_refused(name: str) -> None:
    found = find_faces(load(SKIMAGE_DATA / name))
    assert not found.faces
    with pytest.raises(InputError, match="no frontal face found") as raised:
        choose_face(found, "largest")
    assert "--face-points" in raised.value.hint


def test_degenerate_pictures_hold_no_face() -> None:
    for shape in ((1, 1, 3), (8, 400, 3), (64, 64, 3), (300, 200, 3)):
        assert find_faces(np.full(shape, 127, np.uint8)) == FaceSearch(())
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert not find_faces(noise).faces


def test_two_faces_come_from_left_to_right(drawn: Picture) -> None:
    half = cv2.resize(drawn, (300, 300), interpolation=cv2.INTER_AREA)
    canvas = np.full((420, 720, 3), 128, np.uint8)
    canvas[:300, :300] = half
    canvas[:400, 310:710] = cv2.resize(drawn, (400, 400), interpolation=cv2.INTER_AREA)
    found = find_faces(canvas)
    assert [face.pupils[0, 0] < 300 for face in found.faces] == [True, False]
    assert choose_face(found, "largest") is choose_face(found, "right")


def test_choose_face() -> None:
    faces = (simple_face(50, 40), simple_face(200, 80), simple_face(500, 60))
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


def test_given_points_are_kept_and_the_rest_is_fitted(
    drawn: Picture, truth: dict[str, NDArray[np.float64]]
) -> None:
    given = np.vstack((truth["pupils"], truth["mouth"]))
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in given)
    for points in (text, given):
        face = face_from_points(drawn, points)
        np.testing.assert_allclose(face.pupils, truth["pupils"], atol=0.01)
        np.testing.assert_allclose(face.mouth, truth["mouth"], atol=0.01)
        off = distances(face, truth)
        assert off["corners"] <= 0.08
        assert off["chin"] <= 0.08
        assert np.isinf(face.score)


def test_given_points_work_where_there_is_no_face() -> None:
    blank = np.full((200, 200, 3), 90, np.uint8)
    face = face_from_points(blank, "60,60 140,60 100,150")
    assert np.isfinite(face.seam).all()
    np.testing.assert_allclose(face.corners.mean(axis=0), [100, 150], atol=12)
    assert face.chin[1] > 180


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
        ("310,214 200,214 255,331", "picture's left"),
        ("200,214 220,214 210,236", "too small: 20 pixels"),
        ("200,214 310,214 255,100", "not below the pupils"),
        ("200,214 310,214 255,230", "not below the pupils"),
        ("200,214 310,214 400,331", "not below the pupils"),
    ],
)
def test_points_that_are_no_face_are_refused(drawn: Picture, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        face_from_points(drawn, text)


def test_the_overlay_marks_the_face_and_leaves_the_picture(
    drawn: Picture, face: FaceLandmarks
) -> None:
    before = drawn.copy()
    overlay = draw_landmarks(drawn, (face,))
    assert np.array_equal(drawn, before)
    x, y = np.rint(face.mouth).astype(int)
    assert overlay[y, x].tolist() == [0, 220, 60]
    red = draw_landmarks(drawn, (), refused=face)
    assert red[y, x].tolist() == [255, 40, 40]


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


def test_a_closed_mouth_has_no_gap_and_a_painted_one_has(
    drawn: Picture, face: FaceLandmarks
) -> None:
    assert mouth_gap(drawn, face) <= 0.05
    opened = drawn.copy()
    x, y = np.rint(face.mouth).astype(int)
    axes = (round(0.3 * face.iod), round(0.09 * face.iod))
    cv2.ellipse(opened, (int(x), int(y)), axes, 0, 0, 360, (25, 8, 10), -1, cv2.LINE_AA)
    assert 0.12 < mouth_gap(opened, face) < 0.25


@pytest.mark.media
def test_every_portrait_is_accepted() -> None:
    portraits = sorted((Path(os.environ["MODA_MEDIA"]) / "portraits").glob("*.jpg"))
    assert len(portraits) == 7
    for path in portraits:
        assert len(find_faces(load(path)).faces) == 1, path.name
