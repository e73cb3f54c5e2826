"""The 203 points of LivePortrait's network: every coordinate between picture and network.

The network is made by rule (face_by_rule.py); what the released one finds is not tested here.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from face_by_rule import MOUTH_DROP, draw_discs, save_landmarks, template
from moda_cli.errors import WeightsError
from moda_cli.face.crops import portrait_crop
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh import mean_mesh
from moda_cli.face.search import face_crop, laid_through

Picture = NDArray[np.uint8]
FEET = np.array([[-0.5, 0], [0.5, 0], [0, MOUTH_DROP]])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LandmarkNetwork:
    path = tmp_path_factory.mktemp("networks") / "landmark.onnx"
    save_landmarks(path)
    return LandmarkNetwork(path)


def placed(points: Points, centre: tuple[float, float], iod: float, angle: float = 0.0) -> Points:
    """Face-frame points in a picture, turned clockwise by degrees."""
    cos, sin = iod * np.cos(np.deg2rad(angle)), iod * np.sin(np.deg2rad(angle))
    middle = points - [0, MOUTH_DROP / 2]
    return np.asarray(middle @ np.array([[cos, sin], [-sin, cos]]) + centre)


def seen(width: int, height: int, feet: Points) -> tuple[Picture, FaceLandmarks]:
    """A picture of a face and what the mesh says of it."""
    picture = np.zeros((height, width, 3), np.uint8)
    draw_discs(picture, feet)
    return picture, laid_through(FaceLandmarks(mean_mesh()), feet)


@pytest.mark.parametrize("angle", [0, 20, -35, 90, -120, 180])
@pytest.mark.parametrize("zoom", [1, 3])
def test_the_points_are_found_to_a_fraction_of_a_pixel(
    network: LandmarkNetwork, angle: float, zoom: int
) -> None:
    where = (310.3 * zoom, 205.8 * zoom), 61.7 * zoom, angle
    picture, face = seen(640 * zoom, 440 * zoom, placed(FEET, *where))
    truth = placed(template(), *where)
    np.testing.assert_allclose(network.cloud(picture, face), truth, rtol=0, atol=0.05 * zoom)


def test_the_second_look_forgets_the_first(network: LandmarkNetwork) -> None:
    """Turned, shifted and larger first crops lead to the same points."""
    where = (320, 240), 80, 25
    picture, face = seen(640, 480, placed(FEET, *where))
    for angle, zoom, shift in ((0, 1.2, 0), (30, 1.0, 15), (-50, 1.3, -10)):
        turn = cv2.getRotationMatrix2D((320, 240), angle, zoom)
        turn[:, 2] += shift
        cloud = network.cloud(picture, face.moved(turn))
        np.testing.assert_allclose(cloud, placed(template(), *where), rtol=0, atol=0.05)


def test_the_crop_is_the_cloud_s_and_moves_with_it(network: LandmarkNetwork) -> None:
    picture, face = seen(640, 480, placed(FEET, (320, 240), 70))
    cloud = network.cloud(picture, face)
    face = FaceLandmarks(face.mesh, cloud=cloud)
    crop = face_crop(face, 512)
    np.testing.assert_array_equal(crop, portrait_crop(cloud)[0][:2])
    moved = face.moved(np.array([[2.0, 0, 30], [0, 2, -7]]))
    assert moved.cloud is not None
    np.testing.assert_allclose(moved.cloud, 2 * cloud + [30, -7])
    inside = face.moved(crop).cloud
    assert inside is not None
    np.testing.assert_allclose(moved.moved(face_crop(moved, 512)).cloud, inside, atol=0.1)
    assert inside.min() > 0
    assert inside.max() < 512


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "landmark.onnx"
    bad.write_bytes(b"not onnx" * 100)
    for file in (bad, tmp_path / "none.onnx"):
        with pytest.raises(WeightsError, match=r"tmp.*(landmark|none)\.onnx is not a network"):
            LandmarkNetwork(file)


def test_a_network_that_gives_no_numbers_is_refused(network: LandmarkNetwork) -> None:
    face = laid_through(FaceLandmarks(mean_mesh()), placed(FEET, (320, 240), 80))
    with pytest.raises(WeightsError, match="not finite"):
        network.cloud(np.zeros((480, 640, 3), np.uint8), face)
