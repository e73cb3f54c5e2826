"""The mesh of a face: 478 points in pixels, and how the head is turned.

The indices are those of MediaPipe's face mesh; "left" is the picture's left.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from moda_cli.face.attention_mesh import (
    LEFT_EYE,
    LEFT_IRIS,
    LIPS,
    RIGHT_EYE,
    RIGHT_IRIS,
    SIDE,
    AttentionMesh,
)
from moda_cli.face.blazeface import BlazeFace, Detection
from moda_cli.face.crops import warp
from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.weights.state import load_strict, unfilled

FOLDER = Path(__file__).parents[1] / "assets" / "facemesh"
MARGIN = 1.5  # side of a crop over the longer side of the face in it
EYE_CORNERS = [33, 263]  # the outer ones
IRIS_CENTRES = [LEFT_IRIS[0], RIGHT_IRIS[0]]
NOSE_TIP, BRIDGE = 1, [6, 168, 197, 195]
# Points that neither speech nor expression moves much: eye corners, the nose's bridge, the
# forehead's middle.
RIGID = [33, 133, 362, 263, 6, 168, 197, 10, 151, 9]


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """A face's points and what speaks for them."""

    points: Points  # (478, 3) pixels, pixel centres at .0; z of the same unit grows away
    flag: float = 1.0  # probability that the crop showed a face
    distance: float = 0.0  # mean, between the two passes' points, in distances between the irises

    @property
    def eyes(self) -> Points:
        """The middle (2,) between the irises."""
        return np.asarray(self.points[IRIS_CENTRES, :2].mean(axis=0))

    @property
    def middle(self) -> Points:
        """The middle (2,) of all points."""
        return np.asarray(self.points[:, :2].mean(axis=0))

    @property
    def iod(self) -> float:
        """Distance between the irises' centres in pixels."""
        left, right = self.points[IRIS_CENTRES, :2]
        return float(np.linalg.norm(right - left))


@cache
def networks() -> tuple[BlazeFace, AttentionMesh]:
    """The detector and the mesh network of the package, float32 on the CPU."""
    with unfilled():
        detector, mesh = BlazeFace(), AttentionMesh()
    for name, network in (("detector", detector), ("mesh", mesh)):
        path = FOLDER / f"{name}.safetensors"
        load_strict(network, load_file(path), str(path))
    return detector.eval(), mesh.eval()


def fit_mesh(picture: Picture, detection: Detection) -> Mesh:
    """The mesh of a detected face of a picture (H, W, 3) RGB, measured twice.

    The second crop is made from the first points, and so neither from the box nor from the turn
    the face was found at.
    """
    eyes = detection.points[1] - detection.points[0]
    first = measure(picture, square_crop(detection.centre, MARGIN * detection.side, eyes))
    return follow_mesh(picture, first)


def follow_mesh(picture: Picture, near: Mesh) -> Mesh:
    """The mesh of a face of a picture (H, W, 3) RGB that is near another of its meshes."""
    found = measure(picture, crop_around(near.points[:, :2]))
    moved = np.linalg.norm((found.points - near.points)[:, :2], axis=1).mean()
    return replace(found, distance=float(moved / max(found.iod, 1e-6)))


def crop_around(points: Points, margin: float = MARGIN, size: int = SIDE) -> Points:
    """The (2, 3) map of a picture to a square crop of a face with these points (478, 2).

    margin: the crop's side over the longer one of the points' box, which is level in the crop.
    """
    axis = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
    turn = _level(axis)
    along = points @ turn.T
    low, high = along.min(axis=0), along.max(axis=0)
    return square_crop(turn.T @ ((low + high) / 2), margin * float((high - low).max()), axis, size)


def square_crop(centre: Points, side: float, axis: Points, size: int = SIDE) -> Points:
    """The (2, 3) map to a crop of `size` pixels of a square, in which `axis` becomes level.

    side: of the square in pixels, taken for 1 where it is less.
    """
    linear = _level(axis) * size / max(side, 1.0)
    return np.column_stack((linear, (size - 1) / 2 - linear @ centre))


def _level(axis: Points) -> Points:
    length = float(np.linalg.norm(axis))
    across, down = axis / length if length > 1e-9 else (1.0, 0.0)
    return np.array([[across, down], [-down, across]])


@torch.inference_mode()
def measure(picture: Picture, to_crop: Points) -> Mesh:
    """What the network sees of a picture (H, W, 3) in a crop by a (2, 3) map."""
    _, network = networks()
    crop = cut(picture, to_crop)
    named, logit = network(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)
    found = {name: points[0].double().numpy() for name, points in named.items()}
    points = np.zeros((478, 3))
    points[:468] = found["mesh"]
    points[list(LIPS), :2] = found["lips"]
    for eye, iris, side in ((LEFT_EYE, LEFT_IRIS, "left"), (RIGHT_EYE, RIGHT_IRIS, "right")):
        points[list(eye), :2] = found[f"{side}_eye"]
        points[iris, :2] = found[f"{side}_iris"]
        points[iris, 2] = points[list(eye[:16]), 2].mean()
    back = cv2.invertAffineTransform(to_crop)
    points[:, :2] = (points[:, :2] - 0.5) @ back[:, :2].T + back[:, 2]
    points[:, 2] *= np.hypot(*back[:, 0])
    return Mesh(points, float(torch.sigmoid(logit)))


def cut(picture: Picture, to_crop: Points, size: int = SIDE) -> Picture:
    """The crop (size, size, 3) by a (2, 3) similarity, black outside the picture."""
    return warp(picture, to_crop, (size, size), cv2.BORDER_CONSTANT)


@cache
def mean_mesh() -> Points:
    """The mean frontal face (478, 3), symmetric, in distances between the irises' centres.

    Their middle is the origin; x grows to the right, y down, z away from the viewer.
    """
    return np.asarray(load_arrays(FOLDER / "mean.safetensors")["mean"], np.float64)


def similarity(source: Points, target: Points) -> tuple[float, Points, Points]:
    """Scale, rotation (3, 3) and shift (3,) that bring points (n, 3) closest to others.

    target ~ scale * source @ rotation.T + shift (Umeyama 1991).
    """
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    u, values, vt = np.linalg.svd((target - aim).T @ (source - middle))
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((values * signs).sum() / ((source - middle) ** 2).sum())
    return scale, rotation, aim - scale * rotation @ middle


def head_rotation(points: Points) -> Points:
    """The head's rotation (3, 3) from looking straight ahead: mesh ~ mean mesh @ rotation.T."""
    return similarity(mean_mesh()[RIGID], points[RIGID])[1]


def head_points(points: Points) -> Points:
    """The eyes' middles and the nose's bridge (3, 2) in pixels: neither gaze nor speech moves them.

    They are means of eye corners and of points on the bridge.
    """
    return np.array(
        [points[members, :2].mean(axis=0) for members in ([33, 133], [362, 263], BRIDGE)]
    )


def head_angles(points: Points) -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees: down, to the picture's right, clockwise."""
    return angles_of(head_rotation(points))


def angles_of(turn: Points) -> tuple[float, float, float]:
    """The same of a rotation (3, 3)."""
    pitch = np.arcsin(np.clip(-turn[1, 2], -1, 1))
    yaw, roll = np.arctan2(-turn[0, 2], turn[2, 2]), np.arctan2(turn[1, 0], turn[0, 0])
    return float(np.degrees(pitch)), float(np.degrees(yaw)), float(np.degrees(roll))
