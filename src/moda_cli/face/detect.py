"""Faces by YuNet and their 203 points by LivePortrait's landmark network, both through cv2.dnn."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import WeightsError
from moda_cli.face.crops import crop_image, portrait_crop, upright_crop
from moda_cli.face.landmark_fit import MIN_IOD
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Picture
from moda_cli.weights import store

FACE = ("face_detector", "face_landmarks")  # components
YUNET_SIDE = 640  # the 2023 file's fixed input; with it every OpenCV engine runs it
# Longer side of the picture inside that input: YuNet learned faces of 10 to 300 px, so a portrait
# that is nearly all face is looked at once more at half the size.
REDUCED_SIDES = (640, 320)
SURE = 0.9  # YuNet score that passes the gate, OpenCV's own default
SEEN = 0.5  # and that makes a box worth reporting
OVERLAP = 0.3  # intersection over union of two boxes of one face

CROP_SIDE, CROP_SCALE, CROP_VY = 224, 1.5, -0.1  # the landmark network's view of a face
PUPILS, MOUTH_CORNERS, LIP_MIDDLES = [197, 198], [48, 66], [90, 102]
LIP_UPPER = list(range(84, 97))  # inner ring, from the corner under pupil 197 to the other
LIP_LOWER = [84, *range(107, 95, -1)]

# How far below the pupils the mouth is, in IOD: 1.04 +- 0.1 on frontal faces. Yaw shortens the eye
# line by its cosine, so 2 is some 60 degrees; pitch shortens the drop.
DROP = (0.5, 2.0)


class FaceDetector:
    """The two networks, loaded from ONNX files.

    Raises WeightsError for a file that OpenCV cannot run, or that gives no finite points.
    """

    def __init__(self, yunet: Path, landmarks: Path) -> None:
        path, side = yunet, (YUNET_SIDE, YUNET_SIDE)
        try:
            with quiet():
                self._yunet = cv2.FaceDetectorYN.create(str(path), "", side, SEEN, OVERLAP, 5000)
                path = landmarks
                self._network = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise WeightsError(
                f"{path} is not a network OpenCV can run: {error.err}",
                hint="run `moda download --verify`, then `moda download`",
            ) from None

    def faces(self, picture: Picture) -> Iterator[FaceLandmarks]:
        """The faces of a picture (H, W, 3); a score of 1 passes the gate.

        If YuNet is sure of none, its best guess alone.
        """
        boxes = self.boxes(picture)
        sure = boxes[boxes[:, 4] >= SURE]
        for x, y, width, height, score in sure if len(sure) else boxes[:1]:
            zoom = CROP_SIDE / (1.5 * max(width, height))
            middle = CROP_SIDE / 2 - zoom * np.array([x + width / 2, y + height / 2])
            start = np.column_stack((zoom * np.eye(2), middle))
            face = landmarks_of(self.cloud(picture, start))
            yield replace(face, score=min(float(score) / SURE, plausibility(face)))

    def boxes(self, picture: Picture) -> NDArray[np.float64]:
        """YuNet's boxes (n, 5) x, y, width, height, score in pixels, the best score first."""
        height, width = picture.shape[:2]
        boxes = []
        for side in REDUCED_SIDES:
            scale = min(1.0, side / max(height, width))
            size = (max(1, round(scale * width)), max(1, round(scale * height)))
            canvas = np.zeros((YUNET_SIDE, YUNET_SIDE, 3), np.uint8)
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            canvas[: size[1], : size[0]] = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
            found = self._yunet.detect(canvas)[1]
            rows = np.zeros((0, 15)) if found is None else found.astype(np.float64)
            ratio = np.array([width, height, width, height]) / (size * 2)
            boxes.append(np.column_stack((rows[:, :4] * ratio, rows[:, 14])))
        both = np.concatenate(boxes)
        kept = cv2.dnn.NMSBoxes(both[:, :4].tolist(), both[:, 4].tolist(), SEEN, OVERLAP)
        return both[np.asarray(kept, np.intp)]

    def measured(self, picture: Picture, face: FaceLandmarks) -> FaceLandmarks:
        """A face of a picture (H, W, 3), given roughly, as the landmark network has it."""
        start = upright_crop(face, CROP_SIDE, CROP_SCALE, CROP_VY)
        return landmarks_of(self.cloud(picture, start))

    def cloud(self, picture: Picture, start: Points) -> Points:
        """The 203 points (203, 2) of the face that a (2, 3) matrix takes into a 224 px crop.

        Twice: the second crop is built from the first points, and so neither from the way the face
        was found nor from its roll.
        """
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


def load_detector() -> FaceDetector | None:
    """The face networks where they are downloaded."""
    detector, landmarks = map(store.installed, FACE)
    return FaceDetector(detector, landmarks) if detector and landmarks else None


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV 5 warns on stderr about every FaceDetectorYN it makes; OpenCV 4 does not."""
    logging = getattr(cv2.utils, "logging", None)
    level = logging and logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        if logging:
            logging.setLogLevel(level)


def landmarks_of(cloud: Points) -> FaceLandmarks:
    """What a renderer needs of the 203 points (203, 2) in pixels."""
    mouth = cloud[LIP_MIDDLES].mean(axis=0)
    middles = (cloud[LIP_UPPER] + cloud[LIP_LOWER]) / 2
    corners = cloud[MOUTH_CORNERS]
    pupils, seam = cloud[PUPILS], np.vstack((corners[0], middles, corners[1]))
    below = mouth - pupils.mean(axis=0)
    across = np.array([below[1], -below[0]])  # to the picture's right in an upright face
    pupils, seam = (
        points if (points[-1] - points[0]) @ across >= 0 else points[::-1]
        for points in (pupils, seam)
    )
    axis = pupils[1] - pupils[0]
    chin = cloud[(cloud @ np.array([-axis[1], axis[0]])).argmax()]
    return FaceLandmarks(pupils, mouth, seam[[0, -1]], chin, seam, cloud=cloud)


def plausibility(face: FaceLandmarks) -> float:
    """At least 1 where a face is large enough and not turned too far to be animated.

    MIN_IOD is a face that the 512 px crop magnifies some 3.5 times.
    """
    if face.iod < MIN_IOD:
        return face.iod / MIN_IOD
    drop = float(face.to_face(face.mouth)[1])
    return min(face.iod / MIN_IOD, drop / DROP[0], DROP[1] / max(drop, 1e-6))
