"""A crop shows what its picture holds, and beyond that nothing with streaks."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from moda_cli.config import ASPECTS
from moda_cli.face.candidates import find_candidates
from moda_cli.face.framing import extended, frame_face, frame_shape
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.media.pictures import Picture, read_image


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


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_rolled_crop_that_does_not_fit_is_levelled_about_its_middle(quarter: int) -> None:
    """To the nearest quarter turn: a head that lies stays upright in its crop."""
    picture, side = noise(300, 400), 390
    centre, middle = np.array([199.5, 149.5]), np.full(2, (side - 1) / 2)
    angle = np.pi / 2 * quarter + 0.7
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    _, used = frame_face(picture, np.column_stack([linear, middle - linear @ centre]), side)
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter]
    zoom = np.hypot(*used[0, :2])
    assert 1.3 <= zoom < 1.34  # as large as fits
    np.testing.assert_allclose(used[:, :2], zoom * np.array([[cos, sin], [-sin, cos]]), atol=1e-9)
    np.testing.assert_allclose(used[:, :2] @ centre + used[:, 2], middle, atol=1e-6)


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


EXAMPLE = Path(__file__).parents[2] / "examples" / "portrait.png"


def found(picture: Picture) -> FaceLandmarks:
    (candidate,) = find_candidates(picture)
    return FaceLandmarks(candidate.mesh.points)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_a_shape_inside_a_wide_picture_shows_only_the_picture(aspect: str, side: str) -> None:
    drawn = read_image(EXAMPLE)
    pad = {"left": (0, 900), "right": (900, 0), "middle": (450, 450)}[side]
    picture = np.asarray(cv2.copyMakeBorder(drawn, 300, 100, *pad, cv2.BORDER_REPLICATE), np.uint8)
    face = found(picture)
    framed, shift = frame_shape(picture, face, ASPECTS[aspect])
    height, width = framed.shape[:2]
    wide, high = ASPECTS[aspect]
    assert width / height == pytest.approx(wide / high, rel=0.01)
    x, y = -shift[:, 2].astype(int)
    np.testing.assert_array_equal(framed, picture[y : y + height, x : x + width])
    low, top = face.moved(shift).mesh[:, :2].min(axis=0)
    right, bottom = face.moved(shift).mesh[:, :2].max(axis=0)
    assert min(low, top, width - right, height - bottom) > 0.2 * (right - low)


@pytest.mark.parametrize("aspect", ["9:16", "16:9"])
def test_a_head_that_fills_its_picture_is_kept_and_what_is_added_is_no_second_one(
    aspect: str,
) -> None:
    picture = read_image(EXAMPLE)
    face = found(picture)
    framed, shift = frame_shape(picture, face, ASPECTS[aspect])
    height, width = framed.shape[:2]
    wide, high = ASPECTS[aspect]
    assert width / height == pytest.approx(wide / high, rel=0.01)
    x, y = shift[:, 2].astype(int)
    kept = framed[max(y, 0) : y + 512, max(x, 0) : x + 512]
    np.testing.assert_array_equal(
        kept, picture[max(-y, 0) :, max(-x, 0) :][: len(kept), : kept.shape[1]]
    )
    assert len(find_candidates(framed)) == 1
    made_up = framed[: y - 30] if aspect == "9:16" else framed[:300, : x - 30]
    assert made_up.size
    assert made_up.min() > 110  # light as the background, without the dark hair mirrored
    assert np.abs(np.diff(framed.astype(int), axis=0 if y > 0 else 1))[:20].max() < 60


def test_what_is_added_to_a_cut_out_is_nothing() -> None:
    drawn = read_image(EXAMPLE)
    picture = np.dstack((drawn, np.full(drawn.shape[:2], 255, np.uint8)))
    framed, shift = frame_shape(picture, found(drawn), ASPECTS["16:9"])
    x = int(shift[0, 2])
    assert (framed[:, :x, 3] == 0).all()
    assert (framed[:, x : x + 512, 3] == 255).all()
