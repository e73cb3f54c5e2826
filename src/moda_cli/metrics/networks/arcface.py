"""ArcFace (arXiv:1801.07698): who a face is, from a crop aligned by its five points.

The weights are InsightFace's w600k_r50, as ONNX through OpenCV.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.weights.onnx import read_network

ALIGNED_SIDE = 112  # pixels
FIVE_POINTS = np.array(  # where the five points come in the crop
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def alignment(points: Points) -> Points:
    """The (2, 3) similarity closest to taking points (5, 2) to FIVE_POINTS, in least squares.

    Points on one spot leave its scale open: it is 0 then.
    """
    # turning and scaling the plane is one complex factor, so the fit is a line through the origin
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points.astype(np.float64), FIVE_POINTS))
    spread = float(np.vdot(z - z.mean(), z - z.mean()).real)
    factor = np.vdot(z - z.mean(), w - w.mean()) / max(spread, 1e-9)
    shift = w.mean() - factor * z.mean()
    a, b = factor.real, factor.imag
    return np.array([[a, -b, shift.real], [b, a, shift.imag]])


def align_face(picture: Picture, points: Points) -> Picture:
    """The crop (112, 112, 3) of a picture the encoder reads, black outside the picture."""
    crop = cv2.warpAffine(picture, alignment(points), (ALIGNED_SIDE, ALIGNED_SIDE))
    return np.asarray(crop, np.uint8)


class FaceEncoder:
    """ArcFace as ONNX through OpenCV; not safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for a file OpenCV cannot run."""
        self.network = read_network(path, "eval")

    def embed(self, crop: Picture) -> NDArray[np.float32]:
        """Identity (512,), not normalised, of an aligned crop (112, 112, 3)."""
        self.network.setInput(encoder_input(crop))
        return np.array(self.network.forward()[0], np.float32)


def encoder_input(crop: Picture) -> NDArray[np.float32]:
    """What the encoder is fed (1, 3, 112, 112): RGB in [-1, 1]."""
    return np.asarray(cv2.dnn.blobFromImage(crop, 1 / 127.5, mean=(127.5,) * 3), np.float32)
