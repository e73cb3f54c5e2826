"""Crops of a face: LivePortrait's (released code), and any by a similarity."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import CROP_SIZE, FPS
from moda_cli.face.landmarks import FaceLandmarks, Points, eye_line
from moda_cli.media.pictures import Picture

Matrix = NDArray[np.float32]  # (3, 3)

RELEASED_SIDE = 1920  # pixels of a portrait's longer side at most, in MoDA's release
# LivePortrait's framing (arXiv:2407.03168, released code), in face extents and in crop sides.
FRAME_SCALE, FRAME_VY = 2.3, -0.125
SMOOTHING_S = 1.0  # sd of the Gaussian over a video's crops: drift is followed, nods are not
AVERAGED_BELOW = 0.7  # scale of a crop
# Points whose means are the eyes and the mouth, in the landmark sets known by their length.
AXIS_POINTS = {
    5: ((0,), (1,), (3, 4)),
    106: ((33, 35, 40, 39), (87, 89, 94, 93), (52, 61)),
    203: ((0, 6, 12, 18), (24, 30, 36, 42), (48, 66)),
}


def limited_size(width: int, height: int, longest: int = RELEASED_SIDE) -> tuple[int, int]:
    """Width and height with the longer at most `longest`."""
    if max(width, height) <= longest:
        return width, height
    shorter = max(1, int(min(width, height) * (longest / max(width, height))))
    return (longest, shorter) if width > height else (shorter, longest)


def limit_picture(picture: Picture, longest: int = RELEASED_SIDE, multiple: int = 2) -> Picture:
    """The picture (H, W, 3) with its longer side at most `longest`, cut to sides the video needs.

    Never enlarged; a side shorter than `multiple` leaves the picture uncut.
    """
    height, width = picture.shape[:2]
    size = limited_size(width, height, longest)
    if size != (width, height):
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        width, height = size
    height, width = height - height % multiple, width - width % multiple
    return picture[:height, :width] if height and width else picture


def portrait_crop(
    points: NDArray[np.floating],
    dsize: int = CROP_SIZE,
    scale: float = FRAME_SCALE,
    vy: float = FRAME_VY,
    rotate: bool = True,
) -> tuple[Matrix, Matrix]:
    """LivePortrait's square crop of a face: picture to crop and back, (3, 3) float32 each.

    points: (5 | 106 | 203, 2) landmarks in pixels. scale: side over the face's extent. vy: shift
    down the face, in sides. Float32 with acos throughout, as released: near upright the angle
    comes in steps of 3e-4 rad, which an exact computation would miss by a quarter of a pixel.
    """
    points = points.astype(np.float32)
    eye_a, eye_b, mouth = (
        points[list(members)].mean(axis=0) for members in AXIS_POINTS[len(points)]
    )
    down = mouth - (eye_a + eye_b) / 2
    length = np.linalg.norm(down)
    down = down / length if length > 1e-3 else np.array([0, 1], np.float32)
    axes = np.array([[down[1], -down[0]], down])  # across and down the face
    angle = np.arccos(np.clip(axes[0, 0], -1, 1))
    angle = -angle if axes[0, 1] < 0 else angle

    mean = points.mean(axis=0)
    along = (points - mean) @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    # points on one spot make a crop of one pixel
    side = max((high - low).max() * np.float32(scale), np.float32(1))
    middle = (low + high) / 2
    centre = mean + axes[0] * middle[0] + axes[1] * middle[1] + axes[1] * np.float32(vy) * side

    zoom = np.float32(dsize) / side
    turned = angle if rotate else np.float32(0)
    a, b = zoom * np.cos(turned), zoom * np.sin(turned)
    shift_x = np.float32(dsize / 2) - (a * centre[0] + b * centre[1])
    shift_y = np.float32(dsize / 2) - (a * centre[1] - b * centre[0])
    to_crop = np.array([[a, b, shift_x], [-b, a, shift_y], [0, 0, 1]], np.float32)
    return to_crop, np.asarray(np.linalg.inv(to_crop), np.float32)


def upright_crop(
    face: FaceLandmarks, size: int, scale: float = FRAME_SCALE, vy: float = FRAME_VY
) -> Points:
    """Like `portrait_crop` but (2, 3), from pupils and chin alone."""
    chin = float(face.to_face(face.chin)[1])
    extent = max(chin + 0.35, 2.1)  # brows to chin or cheek to cheek, IOD
    side = scale * extent
    centre = np.array([0.0, (chin - 0.35) / 2 + vy * side])
    corners = centre + side / 2 * np.array([[-1, -1], [1, -1], [-1, 1]])
    target = np.array([[0, 0], [size, 0], [0, size]]) - 0.5
    source = face.to_picture(corners)
    return np.asarray(
        cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32)), np.float64
    )


def crop_image(picture: Picture, to_crop: NDArray[np.floating], size: int = CROP_SIZE) -> Picture:
    """The (size, size, 3) crop by a matrix of `portrait_crop`, black outside the picture."""
    return np.asarray(cv2.warpAffine(picture, to_crop[:2], (size, size)), np.uint8)


def halve(crop: Picture) -> Picture:
    """Means of 2 x 2 pixels, rounded half up: (2 H, 2 W, 3) to the (H, W, 3) the networks read."""
    height, width = crop.shape[:2]
    half = (width // 2, height // 2)
    return np.asarray(cv2.resize(crop, half, interpolation=cv2.INTER_AREA), np.uint8)


def align(pupils: Points, unit: float, origin: tuple[float, float]) -> Points:
    """The (2, 3) similarity of a picture to an upright crop of `unit` pixels per IOD.

    The eyes become level; their middle comes `origin` IOD from the crop's left and top edges.
    """
    axis = eye_line(pupils)
    a, b = axis * unit / float(axis @ axis)
    turn = np.array([[a, b], [-b, a]])
    return np.column_stack((turn, np.array(origin) * unit - turn @ pupils.mean(axis=0)))


def warp(
    picture: Picture,
    matrix: Points,
    size: tuple[int, int],
    border: int = cv2.BORDER_REPLICATE,
) -> Picture:
    """The crop of `size` (width, height) by a similarity (2, 3), area averaged where it shrinks."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < AVERAGED_BELOW:
        back = cv2.invertAffineTransform(matrix)
        edges = np.array([[0, 0], [size[0], 0], [0, size[1]], size]) @ back[:, :2].T + back[:, 2]
        limit = np.array(picture.shape[1::-1])
        x0, y0 = np.clip(edges.min(axis=0) - 2 / scale, 0, limit - 1).astype(int)
        x1, y1 = np.ceil(np.maximum(edges.max(axis=0) + 2 / scale, (x0 + 1, y0 + 1))).astype(int)
        part = picture[y0:y1, x0:x1]
        sides = np.array(part.shape[1::-1])
        small = np.maximum(1, np.rint(scale * sides)).astype(int)
        picture = np.asarray(cv2.resize(part, small.tolist(), interpolation=cv2.INTER_AREA))
        ratio = sides / small
        shift = matrix[:, :2] @ ((ratio - 1) / 2 + (x0, y0)) + matrix[:, 2]
        matrix = np.column_stack((matrix[:, :2] * ratio, shift))
    return np.asarray(cv2.warpAffine(picture, matrix, size, borderMode=border), np.uint8)


def crop_square(cloud: Points) -> tuple[float, float, float]:
    """Centre x, y and side in pixels of LivePortrait's crop of these landmarks, unturned."""
    to_crop, from_crop = portrait_crop(cloud, rotate=False)
    x, y = from_crop[:2, :2] @ np.full(2, CROP_SIZE / 2) + from_crop[:2, 2]
    return float(x), float(y), CROP_SIZE / float(to_crop[0, 0])


def smooth_crops(crops: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices (T, 2, 3) into 512 px crops that follow slow drift alone; (T, 3) as measured.

    The crops do not turn with the head: its roll stays in the motion.
    """
    frames = np.arange(len(crops))
    reach = np.arange(-round(3 * SMOOTHING_S * FPS), round(3 * SMOOTHING_S * FPS) + 1)
    weights = np.exp(-0.5 * (reach / (SMOOTHING_S * FPS)) ** 2)
    near = frames[:, None] + reach
    present = weights * ((near >= 0) & (near < len(crops)))
    present /= present.sum(axis=1, keepdims=True)
    values = np.column_stack((crops[:, :2], np.log(crops[:, 2])))
    smooth = (present[:, :, None] * values[near.clip(0, len(crops) - 1)]).sum(axis=1)
    matrices = np.zeros((len(crops), 2, 3))
    zoom = CROP_SIZE / np.exp(smooth[:, 2])
    matrices[:, 0, 0] = matrices[:, 1, 1] = zoom
    matrices[:, :, 2] = CROP_SIZE / 2 - zoom[:, None] * smooth[:, :2]
    return matrices
