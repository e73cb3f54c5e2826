"""The mesh against its goldens, and on portraits in every state they come in."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from moda_cli.face.attention_mesh import LEFT_EYE, LIPS, RIGHT_EYE
from moda_cli.face.blazeface import detect, merge
from moda_cli.face.candidates import find_candidates
from moda_cli.face.landmarks import Points
from moda_cli.face.mediapipe import detector_state, mesh_state
from moda_cli.face.mesh import FOLDER, Mesh, fit_mesh, head_angles, mean_mesh, networks
from moda_cli.face.mesh_motion import EYES, MEASURES, measure_face, rest_measures
from moda_cli.face.search import find_faces
from moda_cli.media.pictures import read_image
from moda_cli.weights.tflite import Graph
from non_faces import non_faces

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "facemesh.safetensors"
SKIMAGE_DATA = Path(skimage.__file__).parent / "data"
NON_FACES = (
    "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "moon.png",
    "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
FACE_PX = 60  # width of a small face
Picture = NDArray[np.uint8]
Variant = tuple[str, Picture, Points]  # what was done, the picture, and (2, 3) where points went


def full_golden() -> dict[str, NDArray[np.float32]]:
    """All of the recipe's tensors, where its folder lies beside the media."""
    return load_file(Path(os.environ["MODA_MEDIA"]).parent / "facemesh" / "golden.safetensors")


def check_raw(golden: dict[str, NDArray[np.float32]], name: str) -> None:
    """Both networks' outputs: pixels of their squares and logits."""
    detector, mesh = networks()

    def image(key: str) -> torch.Tensor:
        return torch.from_numpy(golden[key]).permute(2, 0, 1)[None].float()

    with torch.inference_mode():
        boxes, scores = detector(image(f"detector.{name}.input_u8") / 127.5 - 1)
        points, flag = mesh(image(f"mesh.{name}.input_u8") / 255)
    found = {
        f"detector.{name}.regressors": boxes,
        f"detector.{name}.classificators": scores,
        f"mesh.{name}.output_mesh_identity": points.pop("mesh"),
        f"mesh.{name}.conv_faceflag": flag,
        **{f"mesh.{name}.output_{region}": tensor for region, tensor in points.items()},
    }
    for key, tensor in found.items():
        np.testing.assert_allclose(tensor.flatten(), golden[key], rtol=0, atol=2e-3, err_msg=key)


def test_raw_outputs_are_the_files_own() -> None:
    check_raw(load_file(GOLDEN), "noise")


@pytest.mark.media
def test_raw_outputs_for_portraits_are_the_files_own() -> None:
    for name in ("portrait1", "portrait6"):
        check_raw(full_golden(), name)


@pytest.mark.media
def test_the_shipped_weights_are_what_the_converter_makes() -> None:
    folder = Path(os.environ["MODA_MEDIA"]).parent / "facemesh"
    for name, file, state_of in (
        ("detector", "face_detection_short_range.tflite", detector_state),
        ("mesh", "face_landmark_with_attention.tflite", mesh_state),
    ):
        made, shipped = state_of(Graph(folder / file)), load_file(FOLDER / f"{name}.safetensors")
        assert made.keys() == shipped.keys()
        for key, tensor in made.items():
            np.testing.assert_array_equal(tensor.numpy(), shipped[key], err_msg=key)


def test_detections_of_one_face_are_merged_by_their_scores() -> None:
    def row(score: float, x: float, side: float) -> list[float]:
        return [score, x, 50, side, side, *np.repeat(x, 12)]

    rows = np.array([row(0.6, 52, 40), row(0.9, 50, 40), row(0.8, 120, 30), row(0.7, 51, 44)])
    one, other = merge(rows)
    assert one[0] == 0.9
    assert one[1] == pytest.approx((0.9 * 50 + 0.7 * 51 + 0.6 * 52) / 2.2)
    assert one[3] == pytest.approx((0.9 * 40 + 0.7 * 44 + 0.6 * 40) / 2.2)
    np.testing.assert_array_equal(other, rows[2])


@pytest.mark.parametrize("turn", range(4))
def test_a_turned_picture_is_detected_where_its_face_is(turn: int) -> None:
    picture = read_image(ROOT / "examples" / "portrait.png")[:, 20:]
    upright = detect(networks()[0], picture)[0]
    turned = detect(networks()[0], np.rot90(picture, -turn).copy(), turn=turn)[0]
    back = np.array([[0, -1], [1, 0]])  # a quarter turn to the left, about the picture's middle
    middle, aim = ((np.array(shape[1::-1]) - 1) / 2 for shape in (
        np.rot90(picture, -turn).shape, picture.shape
    ))  # fmt: skip
    places = np.vstack((turned.centre, turned.points)) - middle
    for _ in range(turn):
        places = places @ -back.T
    np.testing.assert_allclose(
        places + aim, np.vstack((upright.centre, upright.points)), atol=0.02 * upright.side
    )


def test_the_mean_mesh_looks_straight_ahead_and_measures_turns() -> None:
    mean = mean_mesh()
    assert np.linalg.norm(mean[473] - mean[468]) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(head_angles(mean), 0, atol=1e-3)
    for axis, sign in enumerate((1, -1, 1)):
        for degrees in (25, -40):
            vector = np.zeros(3)
            vector[axis] = sign * np.deg2rad(degrees)
            turn = cv2.Rodrigues(vector)[0]
            wanted = np.zeros(3)
            wanted[axis] = degrees
            found = head_angles(80 * mean @ turn.T + 300)
            np.testing.assert_allclose(found, wanted, atol=0.01)
    looking_right = mean @ cv2.Rodrigues(np.array([0, -0.4, 0]))[0].T
    assert looking_right[1, 0] > 0.1  # the nose tip is to the picture's right
    assert head_angles(looking_right)[1] > 20


def variants(picture: Picture, mesh: Points) -> Iterator[Variant]:
    """A portrait with a face there, in the states of the pictures people bring."""
    height, width = picture.shape[:2]
    still = np.eye(2, 3)
    yield "as it is", picture, still
    mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0]])
    yield "mirrored", picture[:, ::-1].copy(), mirror
    for degrees in (10, 25, 90, 180):
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
        edges = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
        edges = edges @ turn[:, :2].T + turn[:, 2]
        turn[:, 2] -= edges.min(axis=0)
        size = np.ceil(np.ptp(edges, axis=0)).astype(int) + 1
        turned = cv2.warpAffine(picture, turn, size.tolist(), borderMode=cv2.BORDER_REPLICATE)
        yield f"rolled by {degrees}", np.asarray(turned, np.uint8), turn
    yield "dark", (0.4 * picture).astype(np.uint8), still
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    yield "grey", np.repeat(grey[..., None], 3, axis=2), still
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 15])[1]
    yield "JPEG at 15", np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8), still
    zoom = FACE_PX / np.ptp(mesh[:468, 0])
    size = (round(zoom * width), round(zoom * height))
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    ratio = np.array(size) / (width, height)
    shrink = np.column_stack((np.diag(ratio), (ratio - 1) / 2))
    yield "small", small, shrink
    y, x = np.mgrid[:3000, :3000]
    pattern = np.stack((128 + 60 * np.sin(x / 97 + y / 211), 110 + 50 * np.cos(y / 55), x / 20), -1)
    large = np.asarray(pattern, np.uint8)
    large[1201 : 1201 + size[1], 1733 : 1733 + size[0]] = small
    yield "pasted small", large, shrink + np.array([[0, 0, 1733], [0, 0, 1201]])


def partners() -> NDArray[np.intp]:
    """The index of every point's mirror image."""
    mean = mean_mesh()
    return np.linalg.norm(mean[:, None] * (-1, 1, 1) - mean, axis=-1).argmin(axis=1)


def check_variants(picture: Picture, mesh: Points) -> None:
    """One sure face in each, its points where those of `mesh` (478, 2) went."""
    for name, changed, affine in variants(picture, mesh):
        (face,) = find_candidates(changed)
        assert face.sure, name
        wanted = mesh @ affine[:, :2].T + affine[:, 2]
        if name == "mirrored":
            wanted = wanted[partners()]
        off = np.linalg.norm(face.mesh.points[:, :2] - wanted, axis=1).mean() / face.mesh.iod
        assert off <= (0.05 if name == "pasted small" else 0.03), (name, off)


@pytest.mark.slow
def test_the_drawn_portrait_is_found_in_every_state() -> None:
    picture = read_image(ROOT / "examples" / "portrait.png")
    check_variants(picture, find_candidates(picture)[0].mesh.points[:, :2])


@pytest.mark.media
@pytest.mark.parametrize("number", range(1, 8))
def test_portraits_are_found_as_in_the_golden_in_every_state(number: int) -> None:
    golden = full_golden()
    picture = read_image(Path(os.environ["MODA_MEDIA"]) / "portraits" / f"{number}.jpg")
    wanted = golden[f"portrait{number}.pass2.mesh"][:, :2] - 0.5  # its pixels' centres are at .5
    (detection,) = detect(networks()[0], picture)
    assert detection.score == pytest.approx(
        golden[f"portrait{number}.detector.score"].item(), abs=0.01
    )
    mesh: Mesh = fit_mesh(picture, detection)
    assert np.linalg.norm(mesh.points[:, :2] - wanted, axis=1).mean() <= 0.01 * mesh.iod
    assert mesh.flag > 0.99
    check_variants(picture, wanted)


def test_a_real_photograph_is_accepted() -> None:
    (face,) = find_candidates(read_image(SKIMAGE_DATA / "astronaut.png"))
    assert face.sure
    pupils = face.mesh.points[[468, 473], :2]
    assert np.abs(pupils - [[203, 101], [246, 103]]).max() < 2  # as MediaPipe has them


@pytest.mark.slow
@pytest.mark.parametrize("name", NON_FACES)
def test_pictures_without_a_face_have_none(name: str) -> None:
    found = find_faces(read_image(SKIMAGE_DATA / name))
    assert not found.faces
    assert found.why


@pytest.mark.slow
def test_what_only_looks_like_a_face_is_none() -> None:
    pictures = non_faces()
    assert len(pictures) >= 20
    assert not [name for name, picture in pictures.items() if find_faces(picture).faces]


def test_degenerate_pictures_have_no_face() -> None:
    for shape in ((1, 1, 3), (8, 400, 3), (64, 64, 3), (300, 2, 3)):
        assert not find_candidates(np.full(shape, 127, np.uint8))


def mirrored() -> NDArray[np.int_]:
    """For each point of a mesh the one in its place on the other side (478,)."""
    mean = mean_mesh()
    away = np.linalg.norm((mean * [-1, 1, 1])[:, None] - mean, axis=-1)
    assert away.min(axis=1).max() < 1e-3
    return away.argmin(axis=1)


def test_what_is_measured_again_is_one_side_and_its_mirrored_other() -> None:
    other = mirrored()
    assert tuple(other[list(LEFT_EYE)]) == RIGHT_EYE
    assert sorted(other[list(LIPS)]) == sorted(LIPS)
    assert {len(set(part)) for part in (LEFT_EYE, RIGHT_EYE)} == {71}


def test_a_mirrored_face_measures_the_same_mirrored() -> None:
    """Every index of a point on one side has its counterpart on the other."""
    mean, flipped = mean_mesh(), np.array([-1.0, 1, 1])
    face = 100 * (mean + np.random.default_rng(0).normal(0, 0.03, mean.shape))
    one, two = (
        dict(zip(MEASURES, measure_face(mesh), strict=True))
        for mesh in (face, (face * flipped)[mirrored()])
    )
    one["eye_a"], one["eye_b"] = one["eye_b"], one["eye_a"]
    for name in ("look_x", "yaw", "roll"):
        one[name] = -one[name]
    assert two == pytest.approx(one, abs=1e-3)


def test_a_face_is_not_at_rest_while_its_eyes_are_shut() -> None:
    measures = np.zeros((100, len(MEASURES)))
    measures[:, EYES], measures[:, MEASURES.index("gap")] = 0.2, 0.1
    measures[40:60, EYES], measures[40:60, MEASURES.index("gap")] = 0.01, 0
    frames, rest = rest_measures(measures)
    assert not ((frames >= 40) & (frames < 60)).any()
    np.testing.assert_allclose(rest, measures[0])
