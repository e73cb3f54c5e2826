"""F-SIM: likeness of the face in every frame to the reference's (EMO, arXiv:2402.17485).

The networks are our choice, the paper names none: InsightFace's buffalo_l, that is ArcFace
w600k_r50 (arXiv:1801.07698) on faces aligned by the points of SCRFD-10G (arXiv:2105.04714).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import InputError
from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.weights.onnx import read_network

# (5, 2) eyes, nose tip, mouth corners of a frame's largest face, the picture's left first, in
# pixels; None where there is no face.
FacePoints = Callable[[Picture], Points | None]

CROP_SIZE = 112
TEMPLATE = np.array(  # where the five points come in the crop
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)

CANVAS = 640  # pixels, the side of SCRFD's input
STRIDES = (8, 16, 32)  # pixels per cell of its three maps
ANCHORS = 2  # per cell
SURE = 0.5  # score of a face
OVERLAP = 0.4  # intersection over union of two boxes of one face


def alignment(points: Points) -> Points:
    """The (2, 3) similarity that takes five points (5, 2) closest to TEMPLATE, in least squares."""
    # turning and scaling the plane is one complex factor, so the fit is a line through the origin
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points.astype(np.float64), TEMPLATE))
    factor = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean()).real
    shift = w.mean() - factor * z.mean()
    a, b = factor.real, factor.imag
    return np.array([[a, -b, shift.real], [b, a, shift.imag]])


def align_face(picture: Picture, points: Points) -> Picture:
    """The crop (112, 112, 3) of a picture the encoder reads, black outside the picture."""
    crop = cv2.warpAffine(picture, alignment(points), (CROP_SIZE, CROP_SIZE))
    return np.asarray(crop, np.uint8)


class FaceEncoder:
    """ArcFace as ONNX through OpenCV; not safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for a file OpenCV cannot run."""
        self.network = read_network(path, "eval")

    def embed(self, crop: Picture) -> NDArray[np.float32]:
        """Identity (512,), not normalised, of an aligned crop (112, 112, 3)."""
        self.network.setInput(net_input(crop))
        return np.array(self.network.forward()[0], np.float32)


def net_input(crop: Picture) -> NDArray[np.float32]:
    """What the encoder is fed (1, 3, 112, 112): RGB in [-1, 1]."""
    return np.asarray(cv2.dnn.blobFromImage(crop, 1 / 127.5, mean=(127.5,) * 3), np.float32)


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


def similarities(
    encoder: FaceEncoder, find_points: FacePoints, reference: Picture, frames: Iterable[Picture]
) -> NDArray[np.float64]:
    """Cosine (T,) of every frame's identity with the reference's, NaN where there is no face.

    Raises InputError for a reference without a face.
    """

    def embed(frame: Picture) -> NDArray[np.float32] | None:
        points = find_points(frame)
        return None if points is None else encoder.embed(align_face(frame, points))

    wanted = embed(reference)
    if wanted is None:
        raise InputError("no face in the reference picture", hint="give one that shows the face")
    found = (embed(frame) for frame in frames)
    return np.array([np.nan if x is None else cosine(wanted, x) for x in found])


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of the angle between two vectors, in float64."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return float(a64 @ b64 / (np.linalg.norm(a64) * np.linalg.norm(b64)))


def face_similarity(cosines: NDArray[np.float64]) -> tuple[float, float]:
    """Score of a clip, the mean over its frames with a face, and the share without one.

    cosines: (T,), NaN where there is no face. Raises InputError if that is everywhere.
    """
    seen = np.isfinite(cosines)
    if not seen.any():
        raise InputError("no face in any frame", hint="F-SIM needs clips that show a face")
    return float(cosines[seen].mean()), float(1 - seen.mean())
