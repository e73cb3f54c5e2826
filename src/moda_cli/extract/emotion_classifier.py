"""Emotion of a face: HSEmotion's EfficientNet-B0 (arXiv:2203.13436) as ONNX through OpenCV."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import NO_EMOTION
from moda_cli.errors import InputError
from moda_cli.weights.onnx import read_network

Crop = NDArray[np.uint8]  # (H, W, 3) RGB: a face's box, not aligned

INPUT_SIZE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's
SD = np.array([0.229, 0.224, 0.225], np.float32)
CERTAIN = 0.5  # probability from which a class labels a clip


class EmotionClassifier:
    """Reads the classes of config.EMOTIONS before `none`, in that order: the network's own.

    Not safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for a file OpenCV cannot run."""
        self.network = read_network(path, "train")

    def logits(self, crop: Crop) -> NDArray[np.float32]:
        """Logits (8,) of one face."""
        self.network.setInput(net_input(crop))
        return np.array(self.network.forward()[0], np.float32)

    def probabilities(self, crop: Crop) -> NDArray[np.float32]:
        """Probabilities (8,) of one face."""
        logits = self.logits(crop)
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum(), np.float32)

    def clip_probabilities(self, crops: Iterable[Crop]) -> NDArray[np.float32]:
        """Probabilities (8,) averaged over a clip's faces. Raises InputError without any."""
        every = [self.probabilities(crop) for crop in crops]
        if not every:
            raise InputError("no face to read an emotion from")
        return np.asarray(np.mean(every, axis=0, dtype=np.float64), np.float32)


def net_input(crop: Crop) -> NDArray[np.float32]:
    """What the network is fed (1, 3, 224, 224)."""
    # without antialiasing, like the ONNX package; the torch one shrinks with it
    resized = cv2.resize(crop, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR)
    scaled = (resized.astype(np.float32) / 255 - MEAN) / SD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def emotion_label(probabilities: NDArray[np.float32]) -> int:
    """Class of a clip from its probabilities (8,): the likeliest if it is certain, else none."""
    best = int(probabilities.argmax())
    return best if probabilities[best] >= CERTAIN else NO_EMOTION
