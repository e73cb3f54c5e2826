"""Crops and paste-back of points outside, on one another, on a line, of a matrix without a crop."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from moda_cli.face.crops import align, crop_image, halve, limit_picture, portrait_crop
from moda_cli.render.liveportrait.paste import PasteBack, TensorPaste

Points = NDArray[np.float64]


@st.composite
def clouds(draw: st.DrawFn) -> Points:
    """Five or 203 points: a cloud anywhere, however small, on a line or on one spot."""
    count = draw(st.sampled_from([5, 203]))
    spread = draw(st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 40.0, 1e4]))
    along = draw(st.sampled_from([0.0, 1.0]))  # 0: all points on one line
    middle = np.array(draw(st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000))))
    points = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(count, 2))
    return np.asarray(middle + spread * points * [1.0, along])


def pictures() -> st.SearchStrategy[NDArray[np.uint8]]:
    side = st.sampled_from([1, 2, 3, 17, 96])
    return st.builds(
        lambda h, w, k: np.random.default_rng(k).integers(0, 256, (h, w, 3), np.uint8),
        side, side, st.integers(0, 9),
    )  # fmt: skip


@given(points=clouds(), picture=pictures())
def test_any_points_of_any_picture_give_a_crop_and_a_frame(
    points: Points, picture: NDArray[np.uint8]
) -> None:
    to_crop, from_crop = portrait_crop(points)
    assert np.isfinite(to_crop).all()
    assert np.isfinite(from_crop).all()
    crop = crop_image(picture, to_crop)
    assert halve(crop).shape == (256, 256, 3)
    assert limit_picture(picture, 64).size
    paste = PasteBack(picture, from_crop)
    frame = paste(crop)
    assert frame.shape == picture.shape
    unchanged = paste.mask == 0
    assert np.array_equal(frame[unchanged], picture[unchanged])
    batch = torch.from_numpy(np.stack((crop, crop)))
    assert TensorPaste(paste, torch.device("cpu"))(batch).shape == (2, *picture.shape)


@given(points=clouds(), unit=st.sampled_from([1.0, 24.0, 64.0]))
def test_any_pupils_are_aligned(points: Points, unit: float) -> None:
    matrix = align(points[:2], unit, (1.2, 0.8))
    assert np.isfinite(matrix).all()
    middle = matrix[:, :2] @ points[:2].mean(axis=0) + matrix[:, 2]
    np.testing.assert_allclose(middle, [1.2 * unit, 0.8 * unit], rtol=0, atol=1e-6)
