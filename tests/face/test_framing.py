"""A crop shows what its picture holds, and beyond that nothing with streaks."""

import cv2
import numpy as np
import pytest

from moda_cli.face.framing import extended, frame_face
from moda_cli.media.pictures import Picture


def noise(height: int, width: int) -> Picture:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def crop_at(x: float, y: float, zoom: float = 1.0) -> np.ndarray:
    """The similarity whose crop has the picture's point x, y in its left upper corner."""
    return np.array([[zoom, 0, -zoom * x], [0, zoom, -zoom * y]])


def test_a_crop_that_fits_is_left_alone() -> None:
    picture = noise(300, 400)
    cropped, used = frame_face(picture, crop_at(50, 40), 200)
    np.testing.assert_array_equal(cropped, picture[40:240, 50:250])
    np.testing.assert_array_equal(used, crop_at(50, 40))


@pytest.mark.parametrize(("x", "y"), [(-60, 40), (50, -80), (250, 150), (-30, -30)])
def test_a_crop_beyond_an_edge_is_moved_inside(x: float, y: float) -> None:
    picture = noise(300, 400)
    cropped, used = frame_face(picture, crop_at(x, y), 200)
    left, top = int(np.clip(x, 0, 200)), int(np.clip(y, 0, 100))
    np.testing.assert_allclose(used, crop_at(left, top), atol=1e-9)
    np.testing.assert_array_equal(cropped, picture[top : top + 200, left : left + 200])


def test_a_crop_a_little_too_large_becomes_smaller_and_stays_inside() -> None:
    picture = noise(300, 400)
    _, used = frame_face(picture, crop_at(20, -30), 340)
    corners = (np.array([[-0.5, -0.5], [339.5, 339.5]]) - used[:, 2]) / used[0, 0]
    assert corners.min() >= -0.51
    assert corners[1, 1] <= 299.51
    assert 1 < used[0, 0] < 1.3


def test_what_no_picture_holds_is_soft_and_has_no_streaks() -> None:
    picture = noise(200, 200)
    wide = extended(picture, 0, 120, 0, 0)
    np.testing.assert_array_equal(wide[120:], picture)
    assert np.abs(wide[119].astype(int) - wide[120]).mean() < 12  # it goes on where it ended
    rows = wide[:120].astype(int)
    for band in (rows[:40], rows[40:80], rows[80:]):
        across, down = (np.abs(np.diff(band, axis=axis)).mean() for axis in (1, 0))
        assert down > 0.5 * across
    detail = [np.abs(np.diff(rows[a : a + 20], axis=1)).mean() for a in (0, 100)]
    assert detail[0] < 0.3 * detail[1]


def test_a_crop_larger_than_its_picture_holds_all_of_it() -> None:
    picture = noise(200, 200)
    cropped, used = frame_face(picture, crop_at(-100, -150), 400)
    shift = np.rint(used[:, 2]).astype(int)
    np.testing.assert_array_equal(
        cropped[shift[1] : shift[1] + 200, shift[0] : shift[0] + 200], picture
    )
