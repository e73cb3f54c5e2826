"""Framing a face within its picture: no crop shows what the picture does not hold, or makes it up
as what a camera out of focus would see."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.crops import warp
from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture

_LEAST_ZOOM = 0.6  # of a crop's side, where it still holds a whole face, before anything is made up
_BLUR = 0.3  # of what is made up, per pixel of distance from the picture


def frame_face(picture: Picture, to_crop: Points, side: int) -> tuple[Picture, Points]:
    """The (side, side, 3) crop nearest to the wanted (2, 3) similarity, and its own similarity.

    A crop that reaches beyond the picture is moved inside, then made smaller, then turned as the
    picture is; what is still missing is filled in.
    """
    height, width = picture.shape[:2]
    to_crop = _moved_inside(to_crop, side, width, height)
    for turned in (to_crop, _levelled(to_crop, side)):
        for zoom in np.linspace(1, _LEAST_ZOOM, 17):
            smaller = _moved_inside(_zoomed(turned, side, float(zoom)), side, width, height)
            if not _beyond(smaller, side, width, height).any():
                return warp(picture, smaller, (side, side)), smaller
    missing = np.ceil(_beyond(to_crop, side, width, height)).astype(int)
    left, top, right, bottom = missing.tolist()
    moved = to_crop.copy()
    moved[:, 2] -= to_crop[:, :2] @ (left, top)
    return warp(extended(picture, left, top, right, bottom), moved, (side, side)), to_crop


def _corners(to_crop: Points, side: int) -> Points:
    """The crop's corners (4, 2) in the picture."""
    back = cv2.invertAffineTransform(to_crop)
    reach = np.array([[-0.5, -0.5], [side - 0.5, -0.5], [-0.5, side - 0.5], [side - 0.5] * 2])
    return np.asarray(reach @ back[:, :2].T + back[:, 2])


def _beyond(to_crop: Points, side: int, width: int, height: int) -> Points:
    """How far (4,) in pixels a crop reaches beyond the left, top, right and bottom edge."""
    corners = _corners(to_crop, side)
    low, high = corners.min(axis=0) + 0.5, corners.max(axis=0) - (width - 0.5, height - 0.5)
    return np.asarray(np.maximum(np.concatenate([-low, high]), 0))


def _moved_inside(to_crop: Points, side: int, width: int, height: int) -> Points:
    """The crop moved towards the picture as far as its other edges allow."""
    corners = _corners(to_crop, side)
    low, high = corners.min(axis=0) + 0.5, corners.max(axis=0) - (width - 0.5, height - 0.5)
    shift = np.where(low < 0, np.clip(-low, 0, np.maximum(-high, 0)), 0)
    shift = np.where(high > 0, -np.clip(high, 0, np.maximum(low, 0)), shift)
    moved = to_crop.copy()
    moved[:, 2] -= to_crop[:, :2] @ shift
    return moved


def _zoomed(to_crop: Points, side: int, share: float) -> Points:
    """The crop of `share` of the length about the same middle."""
    middle = (side - 1) / 2
    zoomed = to_crop / share
    zoomed[:, 2] += middle * (1 - 1 / share)
    return zoomed


def _levelled(to_crop: Points, side: int) -> Points:
    """The crop turned by the nearest quarter turn only, about the same middle."""
    (cos, sin), middle = to_crop[0, :2], (side - 1) / 2
    quarter = np.round(np.arctan2(sin, cos) / (np.pi / 2)) * np.pi / 2
    a, b = np.hypot(cos, sin) * np.array([np.cos(quarter), np.sin(quarter)])
    linear = np.array([[a, b], [-b, a]])
    centre = np.linalg.solve(to_crop[:, :2], np.full(2, middle) - to_crop[:, 2])
    return np.column_stack([linear, middle - linear @ centre])


def extended(picture: Picture, left: int, top: int, right: int, bottom: int) -> Picture:
    """The picture with so many pixels added on each side: mirrored, and softer the farther out."""
    height, width = picture.shape[:2]
    if max(left, top, right, bottom) == 0:
        return picture
    mirrored = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    wide = np.asarray(mirrored, np.uint8)
    x = np.arange(-left, width + right)
    y = np.arange(-top, height + bottom)
    out_x = np.maximum(np.maximum(-x, x - (width - 1)), 0)
    out_y = np.maximum(np.maximum(-y, y - (height - 1)), 0)
    wanted = _BLUR * np.hypot(out_x[None], out_y[:, None]).astype(np.float32)
    out = wide.astype(np.float32)
    sigma = 1.0
    while sigma < wanted.max():
        weight = np.clip((wanted - sigma / 2) / (sigma / 2), 0, 1)[..., None]
        out += (_blurred(wide, sigma) - out) * weight
        sigma *= 2
    return np.rint(out).clip(0, 255).astype(np.uint8)


def _blurred(picture: Picture, sigma: float) -> NDArray[np.float32]:
    """Softened by a Gaussian of `sigma` pixels, a wide one on a smaller copy."""
    shrink = max(1, int(sigma // 4))
    size = picture.shape[1::-1]
    small = cv2.resize(picture, [max(2, n // shrink) for n in size], interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small.astype(np.float32), (0, 0), sigma / shrink)
    return np.asarray(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR), np.float32)
