"""Faces by YuNet and the 203 points: every coordinate between picture and network (decisions 26).

The networks are made by rule (face_by_rule.py); what the released ones find is not tested here.
"""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from face_by_rule import (
    BOX,
    CELL,
    MOUTH_DROP,
    draw_face,
    marked_cell,
    save_landmarks,
    save_yunet,
    template,
)
from moda_cli.errors import InputError, WeightsError
from moda_cli.face.crops import portrait_crop
from moda_cli.face.detect import FaceDetector, landmarks_of
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.search import (
    check_pose,
    choose_face,
    draw_landmarks,
    face_crop,
    face_from_points,
    find_faces,
)
from moda_cli.motion import EXPRESSION, encode
from moda_cli.render.rig.rig import Rig

Picture = NDArray[np.uint8]
FEET = np.array([[-0.5, 0], [0.5, 0], [0, MOUTH_DROP]])
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    yunet, landmarks = folder / "yunet.onnx", folder / "landmark.onnx"
    save_yunet(yunet)
    save_landmarks(landmarks)
    return yunet, landmarks


@pytest.fixture(scope="module")
def detector(networks: tuple[Path, Path]) -> FaceDetector:
    return FaceDetector(*networks)


def placed(
    points: Points,
    centre: tuple[float, float],
    iod: float,
    angle: float = 0.0,
    squeeze: float = 1.0,
) -> Points:
    """Face-frame points in a picture; clockwise by degrees, the eye line shortened by `squeeze`."""
    cos, sin = iod * np.cos(np.deg2rad(angle)), iod * np.sin(np.deg2rad(angle))
    middle = (points - [0, MOUTH_DROP / 2]) * [squeeze, 1]
    return np.asarray(middle @ np.array([[cos, sin], [-sin, cos]]) + centre)


def black(width: int, height: int) -> Picture:
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "cell"),
    [
        (640, 480, 8),  # as it is
        (401, 299, 8),  # never enlarged
        (1280, 960, 16),  # halved
        (960, 1280, 16),
        (1600, 1200, 20),
        (640, 480, 16),  # seen only at half the size: a face too large for YuNet
    ],
)
def test_boxes_are_where_the_marked_cell_is(
    detector: FaceDetector, width: int, height: int, cell: int
) -> None:
    picture = black(width, height)
    feet = placed(FEET, (0.6 * width, 0.5 * height), 0.2 * height)
    draw_face(picture, feet, cell=cell)
    boxes = detector.boxes(picture)
    assert len(boxes) == 1
    x, y, box_width, box_height, score = boxes[0]
    column, row = marked_cell(feet, cell)
    zoom = cell / CELL
    assert x + box_width / 2 == pytest.approx((column + 0.5) * cell, abs=0.01)
    assert y + box_height / 2 == pytest.approx((row + 0.5) * cell, abs=0.01)
    assert [box_width, box_height] == pytest.approx([BOX * zoom] * 2, rel=1e-4)
    assert score > 0.99


def test_boxes_are_scaled_back_by_what_each_side_lost(detector: FaceDetector) -> None:
    picture = black(1281, 333)
    feet = placed(FEET, (640.0, 150.0), 90)
    draw_face(picture, feet, cell=16)
    (x, y, width, height, _), *others = detector.boxes(picture)
    assert not others
    column, row = marked_cell(feet, 16)
    assert abs(x + width / 2 - (column + 0.5) * 16) < 1.5
    assert abs(y + height / 2 - (row + 0.5) * 16) < 1.5


@pytest.mark.parametrize("angle", [0, 20, -35, 90, -120, 180])
@pytest.mark.parametrize("zoom", [1, 3])
def test_the_points_are_found_to_a_fraction_of_a_pixel(
    detector: FaceDetector, angle: float, zoom: int
) -> None:
    centre, iod = (310.3 * zoom, 205.8 * zoom), 61.7 * zoom
    picture = black(640 * zoom, 440 * zoom)
    draw_face(picture, placed(FEET, centre, iod, angle), cell=CELL * zoom)
    (face,) = detector.faces(picture)
    truth = placed(template(), centre, iod, angle)
    off = 0.05 * zoom
    assert face.cloud is not None
    assert face.score >= 1
    np.testing.assert_allclose(face.cloud, truth, rtol=0, atol=off)
    np.testing.assert_allclose(face.pupils, truth[[197, 198]], rtol=0, atol=off)
    np.testing.assert_allclose(face.mouth, truth[[90, 102]].mean(axis=0), rtol=0, atol=off)
    np.testing.assert_allclose(face.corners, truth[[48, 66]], rtol=0, atol=off)
    in_face = face.to_face(np.vstack((face.seam, face.chin)))
    np.testing.assert_allclose(in_face[:-1, 1], MOUTH_DROP, rtol=0, atol=0.002)  # a level mouth
    assert (np.diff(in_face[:-1, 0]) > 0).all()
    assert in_face[-1, 1] == pytest.approx(template()[:, 1].max(), abs=0.002)


def test_the_second_look_forgets_the_first(detector: FaceDetector) -> None:
    """Turned, shifted and larger first crops lead to the same points."""
    truth = placed(template(), (320, 240), 80, 25)
    picture = black(640, 480)
    draw_face(picture, placed(FEET, (320, 240), 80, 25), mark=0)
    start = placed(np.array([[0, 0.525]]), (112, 112), 30)[0]
    for angle, zoom, shift in ((0, 0.6, 0), (40, 0.5, 20), (-90, 0.45, -25)):
        turn = cv2.getRotationMatrix2D((320, 240), angle, zoom)
        turn[:, 2] += start - [320, 240] + shift
        np.testing.assert_allclose(detector.cloud(picture, turn), truth, rtol=0, atol=0.05)


def test_several_faces_come_from_left_to_right(detector: FaceDetector) -> None:
    picture = black(1280, 960)
    for centre, iod in (((1000.0, 300.0), 90), ((250.0, 260.0), 80), ((480.0, 700.0), 110)):
        draw_face(picture, placed(FEET, centre, iod), cell=16)
    found = find_faces(picture, detector)
    np.testing.assert_allclose([face.iod for face in found.faces], [80, 110, 90], atol=0.2)
    assert found.refused is None
    assert choose_face(found, "largest") is found.faces[1]
    assert choose_face(found, "right") is found.faces[2]


def one_face(iod: float = 70, mark: float = 1.0, squeeze: float = 1.0) -> Picture:
    picture = black(640, 480)
    draw_face(picture, placed(FEET, (320, 240), iod, squeeze=squeeze), mark)
    return picture


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (black(640, 480), "no frontal face found$"),
        (one_face(mark=0.0), "no frontal face found$"),
        (one_face(mark=0.87), r"with enough confidence \(best score 0\.[89]\d < 1\)"),
        (one_face(iod=25), r"too small: 25 pixels between the pupils < 30"),
        (one_face(iod=90, squeeze=0.45), r"turned too far: the mouth is 2\.\d\d pupil distances"),
        (black(1, 1), "no frontal face found$"),
        (black(2000, 3), "no frontal face found$"),
    ],
    ids=["empty", "unmarked", "unsure", "small", "turned", "pixel", "strip"],
)
def test_what_cannot_be_animated_is_refused(
    detector: FaceDetector, picture: Picture, message: str
) -> None:
    found = find_faces(picture, detector)
    assert not found.faces
    with pytest.raises(InputError, match=message) as raised:
        choose_face(found, "largest")
    remedy = "larger picture" if "too small" in message else "--face-points"
    assert remedy in raised.value.hint


def test_points_lead_the_landmark_network_to_a_face_yunet_misses(detector: FaceDetector) -> None:
    feet, picture = placed(FEET, (300, 260), 75, -30), black(640, 480)
    draw_face(picture, feet, mark=0)
    given = feet + np.array([2.0, -1.5])
    face = face_from_points(picture, given, detector)
    assert face.cloud is not None
    assert np.isinf(face.score)
    np.testing.assert_allclose(face.cloud, placed(template(), (300, 260), 75, -30), atol=0.05)
    np.testing.assert_array_equal(face.pupils, given[:2])
    np.testing.assert_array_equal(face.mouth, given[2])
    np.testing.assert_allclose(face.seam.mean(axis=0), given[2], atol=0.05)


def test_the_crop_is_the_cloud_s_and_moves_with_it(detector: FaceDetector) -> None:
    (face,) = detector.faces(one_face())
    assert face.cloud is not None
    crop = face_crop(face, 512)
    np.testing.assert_array_equal(crop, portrait_crop(face.cloud)[0][:2])
    moved = face.moved(np.array([[2.0, 0, 30], [0, 2, -7]]))
    assert moved.cloud is not None
    np.testing.assert_allclose(moved.cloud, 2 * face.cloud + [30, -7])
    np.testing.assert_allclose(
        moved.moved(face_crop(moved, 512)).cloud, face.moved(crop).cloud, atol=0.1
    )
    inside = face.moved(crop).cloud
    assert inside is not None
    assert inside.min() > 0
    assert inside.max() < 512


def test_the_overlay_shows_the_cloud(detector: FaceDetector) -> None:
    (face,) = detector.faces(one_face())
    with_cloud = draw_landmarks(one_face(), (face,))
    without = draw_landmarks(one_face(), (replace(face, cloud=None),))
    assert (with_cloud != without).any()


def test_a_file_that_is_no_network_is_named(networks: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "landmark.onnx"
    bad.write_bytes(b"not onnx" * 100)
    for files in ((bad, networks[1]), (networks[0], bad), (networks[0], tmp_path / "none.onnx")):
        with pytest.raises(WeightsError, match=r"tmp.*(landmark|none)\.onnx is not a network"):
            FaceDetector(*files)


def test_a_network_that_gives_no_numbers_is_refused(detector: FaceDetector) -> None:
    with pytest.raises(WeightsError, match="not finite"):
        face_from_points(black(640, 480), "280,200 360,200 320,290", detector)


def test_the_rig_animates_a_face_with_203_points() -> None:
    fields = json.loads((EXAMPLES / "portrait.json").read_text())
    picture = cv2.imread(str(EXAMPLES / "portrait.png"))[..., ::-1]
    pupils = np.array(fields["pupils"])
    frame = FaceLandmarks(pupils, pupils[0], pupils, pupils[0], pupils)
    face = landmarks_of(frame.to_picture(template()))
    neutral = torch.zeros(70)
    rest, opened = torch.zeros(2, 70).unbind()
    opened[EXPRESSION] = encode(torch.tensor([40.0, 0, 0, 0, 0, 0, 0, 0]))
    still, spoken = Rig(picture, face, neutral).render(torch.stack((rest, opened)))
    assert np.array_equal(still, picture)
    changed = np.argwhere((spoken != picture).any(axis=-1))[:, ::-1]
    down = face.to_face(changed.astype(np.float64))
    assert len(down) > 500
    assert down[:, 1].min() > 0.2  # the jaw moves, the eyes do not


@pytest.mark.parametrize(("pitch", "yaw"), [(0, 0), (-40, 55), (49, -59)])
def test_a_head_within_reach_is_accepted(pitch: float, yaw: float) -> None:
    check_pose(pitch, yaw)


@pytest.mark.parametrize(("pitch", "yaw"), [(0, 61), (5, -75), (51, 0), (-60, 10)])
def test_a_head_turned_away_is_refused_with_its_angles(pitch: float, yaw: float) -> None:
    with pytest.raises(InputError, match=f"yaw {yaw}, pitch {pitch} degrees") as raised:
        check_pose(pitch, yaw)
    assert "60" in raised.value.hint
