"""Emotion of a face: HSEmotion's EfficientNet-B0 (arXiv:2203.13436) as ONNX through OpenCV."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.media.pictures import Picture
from moda_cli.weights.onnx import read_network

INPUT_SIZE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's
SD = np.array([0.229, 0.224, 0.225], np.float32)


class EmotionClassifier:
    """Reads the classes of config.EMOTIONS before `none`, in that order: the network's own.

    Not safe to share between threads.
    """

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for a file OpenCV cannot run."""
        self.network = read_network(path, "train")

    def logits(self, crop: Picture) -> NDArray[np.float32]:
        """Logits (8,) of one face: its box (H, W, 3), not aligned."""
        self.network.setInput(classifier_input(crop))
        return np.array(self.network.forward()[0], np.float32)

    def probabilities(self, crop: Picture) -> NDArray[np.float32]:
        """Probabilities (8,) of one face."""
        logits = self.logits(crop)
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum(), np.float32)


def classifier_input(crop: Picture) -> NDArray[np.float32]:
    """What the network is fed (1, 3, 224, 224)."""
    # without antialiasing, like the ONNX package; the torch one shrinks with it
    resized = cv2.resize(crop, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR)
    scaled = (resized.astype(np.float32) / 255 - MEAN) / SD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])
