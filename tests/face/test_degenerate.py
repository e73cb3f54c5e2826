"""Any geometry of any picture: points outside, on one another, on a line; crops without a picture.

Each step answers, with numbers, or with an InputError.
"""

from contextlib import suppress

import cv2
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from moda_cli.config import RenderConfig
from moda_cli.errors import InputError
from moda_cli.extract.stretches import face_box
from moda_cli.face.candidates import find_candidates
from moda_cli.face.crops import (
    align,
    crop_image,
    halve,
    limit_picture,
    portrait_crop,
    smooth_crops,
    upright_crop,
    warp,
)
from moda_cli.face.framing import frame_face
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh import crop_around, cut, head_angles
from moda_cli.face.overlay import draw_landmarks
from moda_cli.face.portrait import frame_portrait, limit_portrait
from moda_cli.face.search import face_crop, face_from_points, fault_of
from moda_cli.metrics.networks.arcface import align_face, alignment
from moda_cli.render.liveportrait.paste import PasteBack, TensorPaste

Points = NDArray[np.float64]
Picture = NDArray[np.uint8]
FAR, NEAR = (3000.0, (0.0, 1e-6, 1e-3, 1.0, 40.0, 1e4)), (100.0, (0.0, 1e-3, 1.0, 40.0))


@st.composite
def clouds(
    draw: st.DrawFn,
    counts: tuple[int, ...] = (5, 203),
    within: tuple[float, tuple[float, ...]] = FAR,
) -> Points:
    """Points (n, 2): a cloud anywhere within reach, however small, on a line or on one spot."""
    reach, spreads = within
    count, spread = draw(st.sampled_from(counts)), draw(st.sampled_from(spreads))
    along = draw(st.sampled_from([0.0, 1.0]))  # 0: all points on one line
    middle = np.array(draw(st.tuples(st.floats(-reach, reach), st.floats(-reach, reach))))
    points = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(count, 2))
    return np.asarray(middle + spread * points * [1.0, along])


def pictures() -> st.SearchStrategy[Picture]:
    side = st.sampled_from([1, 2, 3, 17, 96])
    return st.builds(
        lambda h, w, k: np.random.default_rng(k).integers(0, 256, (h, w, 3), np.uint8),
        side, side, st.integers(0, 9),
    )  # fmt: skip


def faces(within: tuple[float, tuple[float, ...]] = FAR) -> st.SearchStrategy[FaceLandmarks]:
    """A mesh on a cloud, with or without LivePortrait's points on another."""
    return st.builds(
        lambda mesh, cloud: FaceLandmarks(np.column_stack((mesh, mesh[:, :1])), 0.9, cloud),
        clouds((478,), within),
        st.none() | clouds((203,), within),
    )


@given(points=clouds(), picture=pictures())
def test_any_points_of_any_picture_give_a_crop_and_a_frame(
    points: Points, picture: Picture
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


@given(face=faces(), picture=pictures())
def test_any_face_has_its_frame_its_crops_and_its_faults(
    face: FaceLandmarks, picture: Picture
) -> None:
    assert face.iod >= 1
    assert np.isfinite(face.opening)
    feet = face.mesh[[152, 61, 291], :2]
    back = face.to_picture(face.to_face(feet))
    np.testing.assert_allclose(back, feet, rtol=1e-6, atol=1e-6)
    crops = [
        upright_crop(face, 224, 1.5, -0.1),
        face_crop(face, 512),
        crop_around(face.mesh[:, :2]),
    ]
    for to_crop in crops:
        assert np.isfinite(to_crop).all()
        assert np.isfinite(cv2.invertAffineTransform(to_crop)).all()
        assert abs(np.linalg.det(to_crop[:, :2])) > 0
    assert cut(picture, crops[-1]).shape == (192, 192, 3)
    assert np.isfinite(head_angles(face.mesh)).all()
    assert np.isfinite(alignment(face.mesh[:5, :2])).all()
    assert align_face(picture, face.mesh[:5, :2]).shape == (112, 112, 3)
    fault_of(face, picture)
    limited, moved = limit_portrait(picture, face)
    assert limited.size
    assert np.isfinite(moved.mesh).all()


@given(face=faces(NEAR), picture=pictures(), whole=st.booleans())
def test_any_face_near_a_picture_is_framed_and_drawn(
    face: FaceLandmarks, picture: Picture, whole: bool
) -> None:
    framed, moved = frame_portrait(picture, face, RenderConfig(full_frame=whole, size=64))
    assert max(framed.shape[:2]) == 64
    assert np.isfinite(moved.mesh).all()
    framed, to_crop = frame_face(picture, face_crop(face, 64), 64)
    assert framed.shape == (64, 64, 3)
    assert np.isfinite(to_crop).all()
    assert warp(picture, align(face.pupils, 24, (1.2, 0.8)), (58, 70)).shape == (70, 58, 3)
    assert draw_landmarks(picture, [face], face).shape == picture.shape


@given(
    points=clouds((3,), NEAR) | st.just(np.array([[150, 150], [250, 150], [200, 250.0]])),
    picture=pictures() | st.just(np.full((400, 400, 3), 90, np.uint8)),
)
def test_any_given_points_are_a_face_or_refused(points: Points, picture: Picture) -> None:
    with suppress(InputError):
        assert np.isfinite(face_from_points(picture, points).mesh).all()


@given(picture=pictures())
def test_any_picture_is_searched(picture: Picture) -> None:
    for candidate in find_candidates(picture, quick=True):
        assert np.isfinite(candidate.mesh.points).all()
        assert np.isfinite((candidate.score, candidate.mesh.distance)).all()


@given(rows=clouds((1, 2, 40)), side=st.floats(1, 1e4), picture=pictures())
def test_any_crops_of_a_stretch_are_smoothed_and_hold_a_face(
    rows: Points, side: float, picture: Picture
) -> None:
    crops = np.column_stack((rows, np.full(len(rows), side)))
    assert np.isfinite(smooth_crops(crops)).all()
    assert face_box(picture, *crops[0]).size
