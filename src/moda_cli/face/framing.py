"""Framing a face within its picture: no crop shows what the picture does not hold, or makes it up
as what a camera out of focus would see."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.crops import warp
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.media.pictures import Picture

_LEAST_ZOOM = 0.6  # of a crop's side, where it still holds a whole face, before anything is made up
_HEAD = np.array([[0.3, 0.45], [0.3, 0.25]])  # left and top, right and bottom of it beyond its face
_EYES, _LOWEST_EYES = 0.42, 0.6  # of a frame's height
_PERSON = np.array([0.6, 0.6])  # beyond the face, where hair may be; below it all is the person's
_SMALL = 64  # pixels of the longer side on which what is behind is guessed
_EDGE = 0.04  # of the frame's shorter side, over which the made up part loses the mirrored person
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


def frame_shape(
    picture: Picture, face: FaceLandmarks, shape: tuple[int, int]
) -> tuple[Picture, Points]:
    """The part of a picture (H, W, 3 or 4) that has a shape (width, height), and its (2, 3) shift.

    It is the largest inside the picture, placed by the face. Where that would cut the head, it
    reaches beyond: the picture is extended, by transparency where it has some.
    """
    height, width = picture.shape[:2]
    ratio = shape[0] / shape[1]
    low, high = face.mesh[:, :2].min(axis=0), face.mesh[:, :2].max(axis=0)
    left, top = np.maximum(low - _HEAD[0] * (high - low), 0)
    right, bottom = np.minimum(high + _HEAD[1] * (high - low), (width, height))
    wide = max(min(width, height * ratio), right - left, (bottom - top) * ratio)
    size = np.array([round(wide), round(wide / ratio)])
    # the head's middle at the frame's, its eyes above
    x, y = np.array([(left + right) / 2, face.pupils[:, 1].mean()]) - size * (0.5, _EYES)
    y = np.clip(y, bottom - size[1], top)
    over = np.maximum(size - (width, height), 0)
    x0 = round(float(np.clip(x, min(0, width - size[0]), max(0, width - size[0]))))
    if over[1]:  # more above a bust than below it, where it is cut off
        y = -np.clip(_LOWEST_EYES * size[1] - face.pupils[:, 1].mean(), 0, over[1])
    y0 = round(float(np.clip(y, min(0, height - size[1]), max(0, height - size[1]))))
    x1, y1 = x0 + int(size[0]), y0 + int(size[1])
    inside = (slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width)))
    beyond = [max(0, end) for end in (-x0, -y0, x1 - width, y1 - height)]
    framed = extended(picture[inside], *beyond)
    if picture.shape[2] == 4:
        framed[_outside(picture[inside].shape, *beyond) > 0, 3] = 0
    elif any(beyond):  # at the edge the picture goes on; farther out there is no second head,
        # while below there is more of the clothes
        without = extended(_behind(picture, low, high)[inside], *beyond)
        away = _outside(picture[inside].shape, *beyond) / (_EDGE * min(size))
        away[len(away) - beyond[3] :] = away[len(away) - beyond[3] - 1]
        share = np.clip(away, 0, 1).astype(np.float32)[..., None]
        framed = np.rint(framed + (without.astype(np.float32) - framed) * share).astype(np.uint8)
    return framed, np.array([[1, 0, -x0], [0, 1, -y0]], float)


def _behind(picture: Picture, low: Points, high: Points) -> Picture:
    """The picture with what may be behind the person whose face lies from `low` to `high`."""
    height, width = picture.shape[:2]
    shrink = _SMALL / max(height, width)
    size = [max(2, round(side * shrink)) for side in (width, height)]
    left, top = ((low - _PERSON * (high - low)) * shrink).astype(int).clip(1)  # never the edges
    right = int((high[0] + _PERSON[0] * (high[0] - low[0])) * shrink)
    hidden = np.zeros((size[1], size[0]), np.uint8)
    hidden[top:, left : min(right, size[0] - 1)] = 255
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    guessed = cv2.resize(cv2.inpaint(small, hidden, 3, cv2.INPAINT_TELEA), (width, height))
    share = cv2.resize(hidden, (width, height)).astype(np.float32)[..., None] / 255
    return np.rint(picture + (guessed.astype(np.float32) - picture) * share).astype(np.uint8)


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
    if max(left, top, right, bottom) == 0:
        return picture
    mirrored = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    wide = np.asarray(mirrored, np.uint8)
    wanted = _BLUR * _outside(picture.shape, left, top, right, bottom)
    out = wide.astype(np.float32)
    sigma = 1.0
    while sigma < wanted.max():
        weight = np.clip((wanted - sigma / 2) / (sigma / 2), 0, 1)[..., None]
        out += (_blurred(wide, sigma) - out) * weight
        sigma *= 2
    return np.rint(out).clip(0, 255).astype(np.uint8)


def _outside(
    shape: tuple[int, ...], left: int, top: int, right: int, bottom: int
) -> NDArray[np.float32]:
    """How far from a picture of this shape each pixel of the extended one is; 0 inside."""
    height, width = shape[:2]
    x, y = np.arange(-left, width + right), np.arange(-top, height + bottom)
    out_x = np.maximum(np.maximum(-x, x - (width - 1)), 0)
    out_y = np.maximum(np.maximum(-y, y - (height - 1)), 0)
    return np.hypot(out_x[None], out_y[:, None]).astype(np.float32)


def _blurred(picture: Picture, sigma: float) -> NDArray[np.float32]:
    """Softened by a Gaussian of `sigma` pixels, a wide one on a smaller copy."""
    shrink = max(1, int(sigma // 4))
    size = picture.shape[1::-1]
    small = cv2.resize(picture, [max(2, n // shrink) for n in size], interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small.astype(np.float32), (0, 0), sigma / shrink)
    return np.asarray(cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR), np.float32)
