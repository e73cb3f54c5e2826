"""Crops, the mask and paste-back against the released code's pixels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from by_rule import goldens
from moda_cli.face.crops import crop_image, halve, portrait_crop
from moda_cli.render.liveportrait.paste import PasteBack

Picture = NDArray[np.uint8]
FILES = [*goldens("lp_pasteA.safetensors"), *goldens("lp_pasteB.safetensors")]


def colour(picture: Picture) -> Picture:
    """Three channels, also of the first one that a cut file keeps."""
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def differences(ours: Picture, golden: Picture) -> NDArray[np.int64]:
    """Levels between a picture and a golden that may keep fewer rows and channels."""
    ours = ours[:: -(-len(ours) // len(golden))]
    if golden.ndim == 3:
        ours = ours[..., : golden.shape[2]]
    assert ours.shape == golden.shape
    return np.abs(ours.astype(np.int64) - golden)


def assert_pixels(ours: Picture, name: str, golden: dict[str, Picture]) -> None:
    off = differences(ours, golden[f"{name}.cv5"])
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3
    off = differences(ours, golden[f"{name}.cv410"])
    assert off.mean() <= 0.1
    assert off.max() <= 4


@pytest.mark.parametrize("path", FILES)
def test_the_crop_is_the_released_one(path: Path) -> None:
    golden = load_file(path)
    to_crop, from_crop = portrait_crop(golden["pts"])
    np.testing.assert_allclose(to_crop, golden["M_o2c"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(from_crop, golden["M_c2o"], rtol=0, atol=1e-3)
    crop = crop_image(colour(golden["image"]), golden["M_o2c"])
    assert_pixels(crop, "img_crop", golden)
    assert_pixels(halve(crop), "img_crop_256", golden)


@pytest.mark.parametrize("path", FILES)
def test_the_pasted_frame_is_the_released_one(path: Path) -> None:
    golden = load_file(path)
    canvas, generated = colour(golden["image"]), colour(golden["generated"])
    paste = PasteBack(canvas, golden["M_c2o"])
    assert_pixels(paste.mask, "mask", golden)
    assert_pixels(paste(generated), "result", golden)


def test_only_the_masked_pixels_change_and_the_canvas_is_kept() -> None:
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (300, 360, 3), np.uint8)
    before = canvas.copy()
    paste = PasteBack(canvas, np.array([[0.3, -0.1, 120], [0.1, 0.3, 60], [0, 0, 1]]))
    white, black = (paste(np.full((512, 512, 3), v, np.uint8)) for v in (255, 0))
    assert np.array_equal(canvas, before)
    assert 0 < (paste.mask > 0).mean() < 0.5
    for frame in (white, black):
        assert np.array_equal(frame[paste.mask == 0], canvas[paste.mask == 0])
    # 255 in mask and frame: exactly the frame, unmixed
    assert (white[paste.mask == 255] == 255).all()
    assert (black[paste.mask == 255] == 0).all()


def test_a_crop_beside_the_canvas_changes_nothing() -> None:
    canvas = np.full((64, 64, 3), 9, np.uint8)
    beside = PasteBack(canvas, np.array([[1.0, 0, 900], [0, 1, 0], [0, 0, 1]]))
    assert np.array_equal(beside(np.full((512, 512, 3), 200, np.uint8)), canvas)
