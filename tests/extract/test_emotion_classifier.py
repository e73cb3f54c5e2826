"""The emotion classifier against the reference implementation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from by_rule import GOLDEN, goldens, key_table
from efficientnet import EfficientNetB0
from metric_networks import apart, by_rule, shapes_on_meta, to_onnx
from moda_cli.config import EMOTION_ALIASES, EMOTIONS
from moda_cli.errors import WeightsError
from moda_cli.extract.emotion_classifier import EmotionClassifier, classifier_input
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media import read_image
from moda_cli.weights import store

GAINS = {"": 1.0, "_g": 1.7}  # by the suffix of the goldens' tensors
TOLERANCES = {"": 1e-4, "_g": 2e-4}
HSEMOTION = "eval_hsemotion.safetensors"

Networks = dict[str, tuple[EfficientNetB0, EmotionClassifier]]


def test_names_and_shapes_are_the_published() -> None:
    assert shapes_on_meta(EfficientNetB0) == key_table("hsemotion.json")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    folder = tmp_path_factory.mktemp("hsemotion")
    pairs = {}
    for suffix, gain in GAINS.items():
        network = by_rule(EfficientNetB0, "hsemotion.json", gain)
        path = to_onnx(network, torch.zeros(1, 3, 224, 224), folder / f"enet{suffix}.onnx")
        pairs[suffix] = network, EmotionClassifier(path)
    return pairs


@pytest.mark.parametrize("suffix", GAINS)
@pytest.mark.parametrize("path", goldens(HSEMOTION))
def test_logits_are_the_references(networks: Networks, path: Path, suffix: str) -> None:
    golden = load_file(path)
    network, classifier = networks[suffix]
    for name in "abc":
        picture, wanted = golden[f"image_{name}"], golden[f"logits_{name}{suffix}"]
        assert apart(classifier.logits(picture), wanted) < TOLERANCES[suffix]
        with torch.inference_mode():  # tells the network by rule from OpenCV's reading of it
            features = network.features(torch.from_numpy(classifier_input(picture)))
            logits = network.classifier(features)[0]
        assert apart(logits, wanted) < TOLERANCES[suffix]
        if suffix:
            assert apart(features[0], golden[f"features_{name}_g"]) < 2e-4
            assert apart(classifier.probabilities(picture), golden[f"probs_{name}_g"]) < 2e-4


def test_faces_are_shrunk_without_antialiasing(networks: Networks) -> None:
    golden = load_file(GOLDEN / HSEMOTION)
    _, classifier = networks["_g"]
    assert apart(classifier.logits(golden["image_a"]), golden["logits_pil_a_g"]) > 1e-2


def test_classes_are_in_the_order_of_ours() -> None:
    with safe_open(GOLDEN / HSEMOTION, "np") as file:
        classes = file.metadata()["classes"].lower().split(",")
    ours = tuple(EMOTION_ALIASES.get(name, name) for name in classes)
    assert (*ours, "none") == EMOTIONS


def test_probabilities_are_the_references(networks: Networks) -> None:
    golden = load_file(GOLDEN / HSEMOTION)
    _, classifier = networks["_g"]
    for name in "abc":
        found = classifier.probabilities(golden[f"image_{name}"])
        assert apart(found, golden[f"probs_{name}_g"]) < 2e-4
        assert found.sum() == pytest.approx(1, abs=1e-6)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "enet.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(WeightsError, match=r"enet\.onnx"):
        EmotionClassifier(broken)


@pytest.mark.weights
@pytest.mark.media
def test_published_weights_read_a_mirrored_face_alike() -> None:
    classifier = EmotionClassifier(store.require("hsemotion")["hsemotion"])
    paths = sorted((Path(os.environ["MODA_MEDIA"]) / "portraits").glob("*.jpg"))
    assert len(paths) == 7
    for path in paths:
        picture = read_image(path)
        face = choose_face(find_faces(picture), "largest")
        x, y = face.to_picture(np.array([0.0, 0.5])).astype(int)
        half = round(1.3 * face.iod)
        crop = picture[max(y - half, 0) : y + half, max(x - half, 0) : x + half]
        seen = classifier.probabilities(crop)
        mirrored = classifier.probabilities(np.ascontiguousarray(crop[:, ::-1]))
        assert seen.max() > 0.2  # an eighth each would be no opinion
        assert np.abs(seen - mirrored).sum() < 0.6
