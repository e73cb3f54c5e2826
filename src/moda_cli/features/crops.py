"""Upright crops of a face and their grey levels, for the landmark fit."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.landmarks import Points

Plane = NDArray[np.float32]


def align(pupils: Points, unit: float, origin: tuple[float, float]) -> Points:
    """The (2, 3) similarity of a picture to an upright crop of `unit` pixels per IOD.

    The eyes become level; their middle comes `origin` IOD from the crop's left and top edges.
    """
    axis = pupils[1] - pupils[0]
    a, b = axis * unit / float(axis @ axis)
    turn = np.array([[a, b], [-b, a]])
    return np.column_stack((turn, np.array(origin) * unit - turn @ pupils.mean(axis=0)))


def warp(picture: NDArray[np.uint8], matrix: Points, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The crop of `size` (width, height) by a similarity (2, 3), area averaged where it shrinks."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.7:
        back = cv2.invertAffineTransform(matrix)
        edges = np.array([[0, 0], [size[0], 0], [0, size[1]], size]) @ back[:, :2].T + back[:, 2]
        margin = 2 / scale
        x0, y0 = np.clip(edges.min(axis=0) - margin, 0, None).astype(int)
        x1, y1 = np.ceil(edges.max(axis=0) + margin).astype(int)
        part = picture[y0:y1, x0:x1]
        small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = np.asarray(small, np.uint8)
        ratio = np.array([part.shape[1] / picture.shape[1], part.shape[0] / picture.shape[0]])
        shift = matrix[:, :2] @ ((ratio - 1) / 2 + (x0, y0)) + matrix[:, 2]
        matrix = np.column_stack((matrix[:, :2] * ratio, shift))
    crop = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def luminance(crop: NDArray[np.uint8]) -> Plane:
    """Grey levels (H, W) of a crop (H, W, 3): 0 to 1 from dark to bright there."""
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = gray.shape
    middle = gray[height // 8 : height * 3 // 4, width // 5 : width * 4 // 5]
    low, high = np.percentile(middle, (3, 97))
    return np.asarray(np.clip((gray - low) / max(high - low, 8.0), -0.3, 1.3), np.float32)
