"""The portrait: its picture as the video shows it, its face, and what the networks see in it."""

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moda_cli import media
from moda_cli.config import ASPECTS, CROP_SIZE, MAX_SIDE, ClipConfig, RenderConfig
from moda_cli.errors import InputError, ModaError
from moda_cli.face import search as faces
from moda_cli.face.crops import (
    crop_image,
    halve,
    limit_picture,
    limited_size,
    portrait_crop,
)
from moda_cli.face.extractors import Extractors
from moda_cli.face.framing import frame_face, frame_shape
from moda_cli.face.kept import candidates_once, extract_once
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.overlay import draw_landmarks
from moda_cli.media.pictures import Picture, opaque
from moda_cli.motion import Source

log = logging.getLogger(__name__)

OPEN_MOUTH = 0.20  # IOD between the lips of the portrait; farther apart they do not meet
SMALL_IOD = 60.0  # pixels between the eyes from which a face is sharp enough


@dataclass(frozen=True, slots=True)
class Portrait:
    """A portrait ready to be animated, its face in pixels of `picture`."""

    picture: Picture  # (H, W, 3), or (H, W, 4) RGBA, even-sided: the video's canvas
    face: FaceLandmarks
    source: Source | None = None  # what LivePortrait's M says of the face
    feature_volume: Tensor | None = None  # and its F, (1, 32, 16, 64, 64)
    from_crop: NDArray[np.float32] | None = None  # (3, 3): the networks' crop to a whole picture


def read_portrait(
    clip: ClipConfig,
    landmarks: LandmarkNetwork | None,
    extractors: Extractors | None,
    *,
    released: bool,
    seen_before: Path,
) -> Portrait:
    """Read a clip's portrait, find its face, frame it, and write what `clip` asks to see of it.

    landmarks: what the extractors' crop is made from, there where they are. released: frame it as
    the release does, for LivePortrait's renderer; its networks see the same whatever the size of
    the video. seen_before: the folder that keeps what networks saw.
    Raises InputError for what cannot be read or shows no usable face, UsageError for malformed
    points or choices.
    """
    picture = media.read_image(clip.portrait, clip.background)
    canvas, picture = picture, opaque(picture)
    face = find_face(picture, clip, seen_before)
    if extractors is not None:
        assert landmarks is not None
        face = replace(face, cloud=landmarks.cloud(picture, face))
    if not released:
        warn_small(clip, face)
        _warn_open(clip, face)
    seen, seen_face = limit_portrait(picture, face) if released else (picture, face)
    if clip.save_crop:
        media.write_image(clip.save_crop, crop_image(seen, faces.face_crop(seen_face, CROP_SIZE)))
    if extractors is None:
        return Portrait(*frame_portrait(canvas, face, clip.render))

    assert seen_face.cloud is not None
    to_crop, from_crop = portrait_crop(seen_face.cloud)
    crop = crop_image(seen, to_crop)
    volume, source = extract_once(extractors, halve(crop), seen_before)
    if not released:
        return Portrait(*frame_portrait(canvas, face, clip.render), source)
    if not clip.render.full_frame:
        shown = resized(crop, clip.render.size or CROP_SIZE)
        return Portrait(
            shown, seen_face.moved(to_crop[:2] * len(shown) / CROP_SIZE), source, volume
        )
    if clip.render.size or clip.render.aspect:
        seen, placed = _framed(seen, seen_face, clip.render)
        seen_face = seen_face.moved(placed)
        from_crop = np.asarray(np.vstack((placed, (0, 0, 1))) @ from_crop, np.float32)
    return Portrait(seen, seen_face, source, volume, from_crop)


def search_ahead(clip: ClipConfig, seen_before: Path) -> None:
    """Search a clip's portrait, so that `find_face` has it at once; what is wrong is said then."""
    with suppress(ModaError):
        picture = media.read_image(clip.portrait, clip.background)
        if clip.face_points is None:
            candidates_once(picture, seen_before)


def _warn_open(clip: ClipConfig, face: FaceLandmarks) -> None:
    """Say that a mouth will look worse than it could."""
    if face.opening > OPEN_MOUTH:
        what = "it will not close on m, b and p; a portrait with the lips together speaks better"
        log.warning("the mouth in %s is wide open: %s", clip.portrait, what)


def warn_small(clip: ClipConfig, face: FaceLandmarks) -> None:
    """Say that a face will look worse than it could."""
    if face.iod < SMALL_IOD:
        size = f"{face.iod:.0f} pixels between the eyes"
        log.warning("the face in %s is small: %s; a larger one is sharper", clip.portrait, size)


def find_face(picture: Picture, clip: ClipConfig, seen_before: Path) -> FaceLandmarks:
    """The face to animate, and the overlay of what was found where `clip` asks for one.

    seen_before: as in `read_portrait`.
    Raises InputError where there is no face, UsageError for malformed points or choices.
    """
    try:
        if clip.face_points is not None:
            found = faces.FaceSearch((faces.face_from_points(picture, clip.face_points),))
        else:
            found = faces.judge(candidates_once(picture, seen_before), picture, clip.force)
        if clip.show_landmarks:
            drawn = draw_landmarks(picture, found.faces, found.refused)
            media.write_image(clip.show_landmarks, drawn)
        which = "largest" if clip.face_points else clip.face
        face = faces.choose_face(found, which, clip.show_landmarks)
    except InputError as error:
        raise InputError(f"{clip.portrait}: {error}", hint=error.hint) from None
    if len(found.faces) > 1:
        number = found.faces.index(face) + 1
        how = f"number {number} from the left is animated, --face N takes another"
        log.info("%s shows %d faces: %s", clip.portrait, len(found.faces), how)
    return face


def frame_portrait(
    picture: Picture, face: FaceLandmarks, config: RenderConfig
) -> tuple[Picture, FaceLandmarks]:
    """The portrait as the video shows it, even-sided, and its face: whole, or the face's crop.

    Unless a size is asked for, a small face is enlarged as far as the longest side allows.
    """
    framed, placed = _framed(picture, face, config)
    return framed, face.moved(placed)


def _framed(
    picture: Picture, face: FaceLandmarks, config: RenderConfig
) -> tuple[Picture, NDArray[np.float64]]:
    """The same picture, and the (2, 3) map from the one that was given to it."""
    if not config.full_frame:
        side = config.size or CROP_SIZE
        return frame_face(picture, faces.face_crop(face, side), side)
    shift = np.eye(2, 3)
    if config.aspect:
        picture, shift = frame_shape(picture, face, ASPECTS[config.aspect])
    height, width = picture.shape[:2]
    shape = np.array(ASPECTS[config.aspect] if config.aspect else (width, height))
    longest = max(height, width)
    side = config.size or min(MAX_SIDE, longest * max(1.0, SMALL_IOD / face.iod))
    if config.aspect and not config.size:  # the shape is met exactly
        side = 2 * shape.max() * max(1, round(side / (2 * shape.max())))
    sides = np.maximum(2, 2 * np.rint(shape / shape.max() * side / 2)).astype(int)
    if tuple(sides) == (width, height):
        return picture, shift
    method = cv2.INTER_AREA if side < longest else cv2.INTER_CUBIC
    framed = cv2.resize(picture, sides.tolist(), interpolation=method)
    factors = sides / (width, height)
    scaled = _scaled(factors)
    scaled[:, 2] += scaled[:, :2] @ shift[:, 2]
    return np.asarray(framed, dtype=np.uint8), scaled


def limit_portrait(picture: Picture, face: FaceLandmarks) -> tuple[Picture, FaceLandmarks]:
    """The picture as the release limits it, and its face."""
    height, width = picture.shape[:2]
    factors = np.array(limited_size(width, height)) / (width, height)
    return limit_picture(picture), face.moved(_scaled(factors))


def resized(crop: Picture, side: int) -> Picture:
    """A square picture with sides of another length."""
    method = cv2.INTER_AREA if side < len(crop) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (side, side), interpolation=method), np.uint8)


def _scaled(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The (2, 3) map of a resize: the picture's corner, at -0.5, stays in place."""
    return np.column_stack((np.diag(factors), (factors - 1) / 2))
