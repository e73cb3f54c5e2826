"""LivePortrait's crop geometry against the released code."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

from by_rule import GOLDEN
from moda_cli.face.crops import crop_image, halve, limit_picture, portrait_crop, warp

CROPS = load_file(GOLDEN / "lp_crop.safetensors")


def cases() -> Iterator[object]:
    for number in range(57):
        case = {
            name: CROPS[f"crop{number:02d}.{name}"]
            for name in ("pts", "params", "rect", "M_o2c", "M_c2o", "pt_crop")
        }
        yield pytest.param(case, id=f"{len(case['pts'])} points {np.degrees(case['rect'][4]):.1f}")


def apply(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = matrix.astype(np.float64)
    return np.asarray(points @ wide[:2, :2].T + wide[:2, 2])


@pytest.mark.parametrize("case", list(cases()))
def test_crops_are_the_released_ones(case: dict[str, NDArray[np.float32]]) -> None:
    dsize, scale, vx, vy, rotate = case["params"]
    assert vx == 0
    to_crop, from_crop = portrait_crop(case["pts"], int(dsize), scale, vy, bool(rotate))
    assert to_crop.dtype == from_crop.dtype == np.float32
    np.testing.assert_allclose(to_crop, case["M_o2c"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(from_crop, case["M_c2o"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(apply(to_crop, case["pts"]), case["pt_crop"], rtol=0, atol=1e-3)
    corners = np.array([[0, 0], [dsize, 0], [dsize, dsize], [0, dsize]])
    np.testing.assert_allclose(
        apply(from_crop, corners), apply(case["M_c2o"], corners), rtol=0, atol=1e-3
    )
    centre = apply(from_crop, np.array([dsize / 2, dsize / 2]))
    np.testing.assert_allclose(centre, case["rect"][:2], rtol=0, atol=1e-3)
    side = np.linalg.norm(from_crop[:2, 0]) * dsize
    np.testing.assert_allclose(side, case["rect"][2], rtol=1e-6)


def test_eyes_on_the_mouth_leave_the_crop_upright() -> None:
    to_crop, _ = portrait_crop(CROPS["degenerate.pts"])
    np.testing.assert_allclose(to_crop, CROPS["degenerate.M_o2c"], rtol=0, atol=1e-3)


@given(
    angle=st.floats(-np.pi, np.pi),
    zoom=st.floats(0.3, 4),
    x=st.floats(-500, 500),
    y=st.floats(0, 900),
)
def test_the_crop_moves_with_the_face(angle: float, zoom: float, x: float, y: float) -> None:
    points = CROPS["crop19.pts"].astype(np.float64)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    moved = points @ np.array([[cos, sin], [-sin, cos]]) + [x, y]
    plain, turned = (apply(portrait_crop(p.astype(np.float32))[0], p) for p in (points, moved))
    assert np.abs(plain - turned).max() < 0.5  # the angle's steps of 3e-4 rad


@pytest.mark.parametrize("number", range(6))
def test_large_pictures_are_reduced_and_cut(number: int) -> None:
    height, width, longest, multiple, *size = CROPS[f"limit{number}.params"].tolist()
    picture = CROPS.get(f"limit{number}.image", np.zeros((height, width, 3), np.uint8))
    limited = limit_picture(picture, longest, multiple)
    assert list(limited.shape[:2]) == size
    if f"limit{number}.result" in CROPS:
        assert np.array_equal(limited, CROPS[f"limit{number}.result"])


def test_the_default_limit_is_the_release_s() -> None:
    assert limit_picture(np.zeros((1081, 2400, 3), np.uint8)).shape == (864, 1920, 3)
    assert limit_picture(np.zeros((801, 601, 3), np.uint8)).shape == (800, 600, 3)


def test_a_crop_samples_the_picture_at_its_matrix() -> None:
    """A plane is the same plane in the crop, and nothing lies outside the picture."""
    y, x = np.mgrid[:400, :500]
    picture = np.dstack((x / 2, y / 2, np.full(x.shape, 255.0))).round().astype(np.uint8)
    to_crop, from_crop = portrait_crop(
        np.array([[120, 90], [290, 130], [190, 200], [110, 260], [230, 290]])
    )
    crop = crop_image(picture, to_crop)
    at = apply(from_crop, np.dstack(np.meshgrid(np.arange(512), np.arange(512))).astype(float))
    inside = ((at > 1) & (at < [498, 398])).all(axis=-1)
    assert inside.mean() > 0.5
    assert np.abs(crop[inside][:, :2] - at[inside] / 2).max() < 1.01
    outside = ((at < -1) | (at > [500, 400])).any(axis=-1)
    assert outside.any()
    assert not crop[outside].any()


@pytest.mark.parametrize("zoom", [0.1, 0.35, 0.9])
def test_a_reduced_crop_is_where_its_matrix_says(zoom: float) -> None:
    y, x = np.mgrid[:640, :800]
    picture = np.dstack((x, y, y)) / 4
    turn = zoom * np.array([[0.8, 0.6], [-0.6, 0.8]])
    matrix = np.column_stack((turn, [20, 15] - turn @ [400, 300]))
    crop = warp(picture.round().astype(np.uint8), matrix, (40, 30))
    there = np.dstack(np.meshgrid(np.arange(40), np.arange(30))) - matrix[:, 2]
    at = there @ np.linalg.inv(turn).T
    inside = ((at > 20) & (at < [780, 620])).all(axis=-1)
    off = (crop[..., :2] * 4.0 - at)[inside]
    assert inside.mean() > 0.5
    assert np.abs(off.mean(axis=0)).max() < 0.6  # pixels of the picture


def test_halving_averages_blocks() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    blocks = crop.astype(int).reshape(256, 2, 256, 2, 3).sum(axis=(1, 3))
    assert np.array_equal(halve(crop), (blocks + 2) >> 2)
