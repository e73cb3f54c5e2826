"""F-SIM against the reference implementation: alignment, encoder, score."""

import json
import os
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from by_rule import GOLDEN, goldens, key_table
from iresnet import IResNet50
from metric_networks import apart, by_rule, shapes_on_meta, to_onnx
from moda_cli.errors import InputError, WeightsError
from moda_cli.face.landmarks import Points
from moda_cli.media import read_image, read_video
from moda_cli.media.pictures import Picture
from moda_cli.metrics.fsim import FacePoints, cosine, face_points, face_similarity, similarities
from moda_cli.metrics.networks.arcface import (
    FIVE_POINTS,
    FaceEncoder,
    align_face,
    alignment,
    encoder_input,
)
from moda_cli.weights import store

EXAMPLES = Path(__file__).parents[2] / "examples"

GAIN = 0.7  # of the goldens' tensors _g
FSIM = "eval_fsim.safetensors"


@pytest.mark.parametrize("path", goldens(FSIM))
def test_faces_are_aligned_as_in_the_reference(path: Path) -> None:
    golden = load_file(path)
    picture, crops = golden["image_rgb"], golden["crops_rgb"]
    for points, matrix, crop in zip(golden["points"], golden["matrices"], crops, strict=True):
        assert apart(alignment(points), matrix) < 1e-6  # the reference computes it in float32
        assert np.abs(align_face(picture, points).astype(int) - crop).max() <= 1
    rows = golden["net_input0"].shape[1]
    assert apart(encoder_input(crops[0])[0, :, :rows], golden["net_input0"]) < 1e-6


@given(
    turn=st.floats(-3.1, 3.1),
    scale=st.floats(0.2, 5),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_a_moved_face_gives_the_same_crop(
    turn: float, scale: float, shift: tuple[float, float]
) -> None:
    turned = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = alignment(FIVE_POINTS @ turned.T + shift)
    np.testing.assert_allclose(matrix[:, :2] @ turned, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(matrix[:, :2] @ shift + matrix[:, 2], 0, atol=1e-8)


def test_alignment_is_the_least_squares_similarity() -> None:
    for points in load_file(GOLDEN / FSIM)["points"].astype(np.float64):
        rows = [((x, -y, 1, 0), (y, x, 0, 1)) for x, y in points]
        a, b, right, down = np.linalg.lstsq(np.concatenate(rows), FIVE_POINTS.ravel(), rcond=None)[
            0
        ]
        expected = [[a, -b, right], [b, a, down]]
        np.testing.assert_allclose(alignment(points), expected, rtol=1e-9)


@pytest.mark.parametrize("path", goldens(FSIM))
def test_clips_score_as_in_the_reference(path: Path) -> None:
    golden = load_file(path)
    cosines = np.array([cosine(golden["ref_emb"], x) for x in golden["frame_emb"]])
    # the embeddings were stored rounded to float32
    np.testing.assert_allclose(cosines, golden["cosine"], atol=1e-7, rtol=0)
    has_face = golden["frame_has_face"].astype(bool)
    score, faceless = face_similarity(np.where(has_face, golden["cosine"], np.nan))
    assert score == pytest.approx(golden["clip_score"].item(), abs=1e-9)
    assert faceless == pytest.approx(np.mean(~has_face))
    everything, _ = face_similarity(golden["cosine"])
    assert everything == pytest.approx(golden["clip_score_all"].item(), abs=1e-9)
    assert everything != pytest.approx(score, abs=1e-5)


def test_encoder_names_and_shapes_are_the_published() -> None:
    assert shapes_on_meta(IResNet50) == key_table("arcface_iresnet50.json")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FaceEncoder:
    network = by_rule(IResNet50, "arcface_iresnet50.json", GAIN)
    path = tmp_path_factory.mktemp("arcface") / "arcface.onnx"
    to_onnx(network, torch.zeros(1, 3, 112, 112), path)
    loaded = FaceEncoder(path)
    path.unlink()  # 174 MB
    return loaded


@pytest.mark.slow
def test_embeddings_through_opencv_are_the_references(encoder: FaceEncoder) -> None:
    golden = load_file(GOLDEN / FSIM)
    embeddings = [encoder.embed(crop) for crop in golden["crops_rgb"]]
    assert apart(embeddings, golden["iresnet50_emb_g"]) < 1e-4
    cosines = [[cosine(a, b) for b in embeddings] for a in embeddings]
    assert apart(cosines, golden["iresnet50_cosine_g"]) < 1e-4


@pytest.mark.slow
def test_a_clip_is_compared_with_the_reference_picture(encoder: FaceEncoder) -> None:
    golden = load_file(GOLDEN / FSIM)
    picture, (first, second, _) = golden["image_rgb"], golden["points"]
    blank = np.zeros_like(picture)
    moved = np.roll(picture, (9, -14), axis=(0, 1))

    def find_points(frame: Picture) -> Points | None:
        if not frame.any():
            return None
        if frame is moved:
            return np.add(first, (-14, 9))
        return second if frame is other else first

    other = picture.copy()
    cosines = similarities(encoder, find_points, picture, iter([picture, blank, moved, other]))
    np.testing.assert_allclose(cosines[[0, 1]], [1, np.nan], atol=1e-6)
    assert cosines[2] > 1 - 1e-3  # the same face elsewhere
    expected = golden["iresnet50_cosine_g"][0, 1]
    assert cosines[3] == pytest.approx(expected, abs=1e-4)  # another crop of the picture
    with pytest.raises(InputError, match="reference picture"):
        similarities(encoder, find_points, blank, [picture])


def test_clips_without_a_face_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no face in any frame"):
        face_similarity(np.full(4, np.nan))
    broken = tmp_path / "w600k_r50.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"w600k_r50\.onnx"):
        FaceEncoder(broken)


def test_a_face_is_aligned_by_its_mesh() -> None:
    picture = read_image(EXAMPLES / "portrait.png")
    truth = json.loads((EXAMPLES / "portrait.json").read_text())
    points = face_points(picture)
    assert points is not None
    wanted = np.vstack((truth["pupils"], truth["corners"]))
    iod = np.linalg.norm(wanted[1] - wanted[0])
    assert np.linalg.norm(points[[0, 1, 3, 4]] - wanted, axis=1).max() < 0.05 * iod
    in_crop = points @ alignment(points)[:, :2].T + alignment(points)[:, 2]
    assert np.abs(in_crop - FIVE_POINTS).max() < 6  # pixels of 112: a face is not the template's
    assert face_points(np.zeros_like(picture)) is None


@pytest.fixture(scope="module")
def published() -> tuple[FaceEncoder, FacePoints]:
    return FaceEncoder(store.require("arcface")["arcface"]), face_points


def portraits() -> list[Picture]:
    paths = sorted((Path(os.environ["MODA_MEDIA"]) / "portraits").glob("*.jpg"))
    assert len(paths) == 7
    return [read_image(path) for path in paths]


@pytest.mark.weights
@pytest.mark.media
def test_published_weights_tell_people_apart(published: tuple[FaceEncoder, FacePoints]) -> None:
    pictures = portraits()
    for i, picture in enumerate(pictures):
        darker = cv2.convertScaleAbs(picture, alpha=0.7)
        smaller = cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        frames = [picture, darker, smaller, *pictures[:i], *pictures[i + 1 :]]
        same, others = np.split(similarities(*published, picture, frames), [3])
        assert same.min() > 0.8
        assert others.max() < 0.5


@pytest.mark.weights
@pytest.mark.media
def test_published_weights_know_the_talker_and_blur_costs(
    published: tuple[FaceEncoder, FacePoints],
) -> None:
    path = Path(os.environ["MODA_MEDIA"]) / "video" / "talker_25fps.mp4"
    reference, *frames = islice(read_video(path), 0, 100, 10)
    blurred = [cv2.GaussianBlur(frame, None, 8) for frame in frames]
    score, faceless = face_similarity(similarities(*published, reference, frames))
    assert score > 0.6
    assert faceless < 0.2
    assert face_similarity(similarities(*published, reference, blurred))[0] < score
    another = face_similarity(similarities(*published, portraits()[0], frames))[0]
    assert another < score - 0.3
