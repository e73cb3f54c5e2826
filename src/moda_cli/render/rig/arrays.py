"""Small array helpers of the rig. Arrays are float32 unless said otherwise."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[Any]  # float32; OpenCV's stubs know no element types
Field = NDArray[Any]  # (rows, cols, 2) float32 x, y displacement, in grid steps unless said


def floats(values: ArrayLike) -> Floats:
    """`values` as a float32 array."""
    return np.asarray(values, np.float32)


LUMA = floats([0.299, 0.587, 0.114])


def smoothstep(x: Floats) -> Floats:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def bump(
    x: Floats, y: Floats, centre: tuple[float, float], sx: float, sy: float | Floats
) -> Floats:
    """A Gaussian of height 1 brought to exactly 0 at three deviations."""
    edge = np.float32(np.exp(-4.5))
    bell = np.exp(-0.5 * (((x - centre[0]) / sx) ** 2 + ((y - centre[1]) / sy) ** 2))
    return np.asarray(np.maximum(bell - edge, 0) / (1 - edge))


def soft_clamp(x: float, limit: float) -> float:
    """x up to 0.6 limit, then bending so that it never passes +-limit."""
    knee = 0.6 * limit
    rest = limit - knee
    if abs(x) <= knee:
        return x
    return float(np.copysign(knee + rest * np.tanh((abs(x) - knee) / rest), x))


def sample(
    picture: NDArray[Any], at: Floats, how: int = cv2.INTER_LINEAR, outside: float | None = None
) -> NDArray[Any]:
    """`picture` (H, W[, C]) at x, y positions (h, w, 2), its edge or `outside` beyond it."""
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    value = [outside or 0.0] * 4
    warped: NDArray[Any] = cv2.remap(picture, at, None, how, borderMode=border, borderValue=value)  # type: ignore[call-overload]
    return warped


def sample_each(pictures: Floats, at: Floats) -> Floats:
    """Each of `pictures` (n, H, W, C) at its own x, y positions (n, h, w, 2), its edge beyond it.

    One sampling of the pictures in a column, for what is sampled often and small.
    """
    count, height, width = pictures.shape[:3]
    low = np.arange(count, dtype=np.float32)[:, None, None] * height
    x = at[..., 0].clip(0, width - 1)
    y = at[..., 1].clip(0, height - 1) + low
    column = np.stack([x, y], axis=-1).reshape(-1, at.shape[2], 2)
    laid = sample(pictures.reshape(-1, width, pictures.shape[3]), column)
    return laid.reshape(*at.shape[:3], -1)


def carried_on(
    picture: NDArray[Any], known: Floats, scales: Sequence[tuple[float, float, float]]
) -> Floats:
    """What `picture` (h, w, 3) is like everywhere, from where it is `known` (h, w), 0..1.

    scales: Gaussians, each pixels across and down and how much it counts; the finest counts most
    where it reaches something known.
    """
    seen = known > 0
    mean = np.median(picture[seen], axis=0) if seen.any() else np.zeros(3)
    total = np.full((*known.shape, 1), 1e-4, np.float32)
    colour = floats(mean) * total
    for across, down, counts in scales:
        laid = cv2.GaussianBlur(picture * known[..., None], (0, 0), across, sigmaY=down)
        weight = cv2.GaussianBlur(known, (0, 0), across, sigmaY=down)[..., None]
        colour, total = colour + counts * laid, total + counts * weight
    return floats(colour / total)
