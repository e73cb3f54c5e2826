"""SCRFD (arXiv:2105.04714): the five points of a picture's largest face.

The weights are InsightFace's SCRFD-10G, as ONNX through OpenCV.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.weights.onnx import read_network

CANVAS = 640  # pixels, the side of SCRFD's input
STRIDES = (8, 16, 32)  # pixels per cell of its three maps
ANCHORS = 2  # per cell
SURE = 0.5  # score of a face
OVERLAP = 0.4  # intersection over union of two boxes of one face


class Scrfd:
    """FacePoints by SCRFD as ONNX through OpenCV; not safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for a file OpenCV cannot run."""
        self.network = read_network(path, "eval")
        self.names = self.network.getUnconnectedOutLayersNames()

    def __call__(self, picture: Picture) -> Points | None:
        height, width = picture.shape[:2]
        longer = max(height, width)
        small = cv2.resize(picture, (width * CANVAS // longer, height * CANVAS // longer))
        canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        self.network.setInput(cv2.dnn.blobFromImage(canvas, 1 / 128, mean=(127.5,) * 3))
        outputs = [np.asarray(x, np.float32) for x in self.network.forward(self.names)]
        points = largest_face(outputs)
        return None if points is None else points / (small.shape[0] / height)


def largest_face(outputs: Sequence[NDArray[np.float32]]) -> Points | None:
    """Five points (5, 2) on the canvas of the largest face in SCRFD's nine outputs, in any order.

    Per stride and anchor (cells row by row): a score, the distances (4) of the box's sides from
    the cell's corner, and the offsets (10) of the points, in units of the stride.
    """
    found = []
    for stride in STRIDES:
        cells = CANVAS // stride
        anchors = ANCHORS * cells**2
        score, sides, offsets = (
            next(x.reshape(anchors, -1) for x in outputs if x.shape[-2:] == (anchors, width))
            for width in (1, 4, 10)
        )
        seen = np.flatnonzero(score[:, 0] >= SURE)
        corner = np.stack((seen // ANCHORS % cells, seen // ANCHORS // cells), axis=1).astype(float)
        left_top, right_bottom = corner - sides[seen, :2], corner + sides[seen, 2:]
        points = np.tile(corner, 5) + offsets[seen]
        faces = np.hstack((left_top, right_bottom - left_top, points)) * stride
        found.append(np.hstack((faces, score[seen])))
    rows: NDArray[np.float64] = np.concatenate(found)  # x, y, width, height, points, score
    kept = cv2.dnn.NMSBoxes(rows[:, :4].tolist(), rows[:, -1].tolist(), SURE, OVERLAP)
    if not len(kept):
        return None
    distinct = rows[np.asarray(kept, np.intp)]
    return distinct[distinct[:, 2:4].prod(axis=1).argmax(), 4:14].reshape(5, 2)
