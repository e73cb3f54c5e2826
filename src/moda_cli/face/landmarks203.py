"""LivePortrait's 203 face points, from which its released crop is made, through cv2.dnn."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import WeightsError
from moda_cli.face.crops import crop_image, portrait_crop, upright_crop
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Picture
from moda_cli.weights import store
from moda_cli.weights.onnx import read_network

LANDMARKS = "face_landmarks"  # the component
CROP_SIDE, CROP_SCALE, CROP_VY = 224, 1.5, -0.1  # the network's view of a face


class LandmarkNetwork:
    """The network of an ONNX file.

    Raises WeightsError for a file that OpenCV cannot run, or that gives no finite points.
    """

    def __init__(self, path: Path) -> None:
        self._network = read_network(path, "moda")

    def cloud(self, picture: Picture, face: FaceLandmarks) -> Points:
        """The 203 points (203, 2) in pixels of a face of a picture (H, W, 3).

        Twice: the second crop is built from the first points, as the release builds it, and so
        from nothing else that was known of the face.
        """
        start = upright_crop(face, CROP_SIDE, CROP_SCALE, CROP_VY)
        from_start = np.asarray(cv2.invertAffineTransform(start), np.float64)
        first = self._points(crop_image(picture, start, CROP_SIDE), from_start)
        to_crop, from_crop = portrait_crop(first, CROP_SIDE, CROP_SCALE, CROP_VY)
        return self._points(crop_image(picture, to_crop, CROP_SIDE), from_crop)

    def _points(self, crop: Picture, from_crop: NDArray[np.floating]) -> Points:
        self._network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255), "input")
        shares = np.asarray(self._network.forward("856"), np.float64).reshape(-1, 2)
        points = CROP_SIDE * shares @ from_crop[:2, :2].T + from_crop[:2, 2]
        if not np.isfinite(points).all():
            raise WeightsError(
                "the landmark network's points are not finite",
                hint="run `moda download --verify`, then `moda download`",
            )
        return np.asarray(points, np.float64)


def load_landmarks() -> LandmarkNetwork:
    """The downloaded network. Raises WeightsError where it is missing or damaged."""
    return LandmarkNetwork(store.require(LANDMARKS)[LANDMARKS])
