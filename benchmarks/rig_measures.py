"""What the rig draws against what it was asked for, measured on its frames with the face mesh.

    python -m benchmarks.rig_measures PICTURE... [--variants grey stone mirror]

A row for each picture; lengths in distances between the irises (IOD). By the mesh: `r` and
`slope`: the seen opening of the lips (points 13 and 14) against the asked one. `labial`: the gap
that is left where m, b and p ask for closed lips. `blink`: what a blink leaves of the wider eye,
height over width. `line`: how far a small opening's upper edge lies from the inner lip at rest.
By the frames' own pixels (rig_pixels.py): `lips`: the slope, and `lips r`. `eye`: the share of an
open eye's contrast that a blink leaves. `seam`: how far the line the lips part along is from the
picture's darkest between them, where they are closed. `still`: how far points outside the mouth,
the eyes and the jaw move while the mouth speaks; `turned`: the same in a turned head.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from benchmarks.rig_pixels import LipTracker, eyes_left, moved, seam_distance
from numpy.typing import NDArray

from moda_cli.face.landmarks import UPPER_LIP, FaceLandmarks
from moda_cli.face.mesh import Mesh, follow_mesh, mean_mesh
from moda_cli.motion import ARTICULATORS, MOTION_DIM, encode
from moda_cli.render.rig.controls import LABIAL, controls
from moda_cli.render.rig.frame import FaceFrame
from moda_cli.render.rig.inner_lips import find_inner_lips
from moda_cli.render.rig.lip_line import BEYOND, CLOSED
from moda_cli.render.rig.points import LOWER_LIDS, UPPER_LIDS
from moda_cli.render.rig.rig import Rig

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]
NEUTRAL = torch.zeros(MOTION_DIM, dtype=torch.float64)
JAWS = (0.0, 4.0, 8.0, 12.0, 18.0, 24.0, 30.0, 36.0, 42.0, 48.0, 54.0, 60.0)
MOUTHS: list[dict[str, float]] = [{"jaw": 45}, {"jaw": 20, "round": 10}, {"jaw": 15, "spread": 8}]
# Forehead, brows, nose: neither the jaw nor a lid takes them along.
STILL = [10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 70, 63, 105, 66, 107, 336, 296, 334, 293, 300]


@dataclass(frozen=True, slots=True)
class Figures:
    """One portrait's row."""

    r: float
    slope: float
    labial: float
    blink: float
    line: float
    lips: float
    lips_r: float
    eye: float
    seam: float
    still: float
    turned: float


def motion(pitch: float = 0, yaw: float = 0, roll: float = 0, **units: float) -> torch.Tensor:
    """One row (1, 70): articulators in their units, the head in degrees."""
    row = NEUTRAL.clone()
    row[:63] += encode(torch.tensor([units.get(name, 0.0) for name in ARTICULATORS]).double())
    row[67:] += torch.tensor([pitch, yaw, roll]).double()
    return row[None]


class Measured:
    """The mesh of frames of one portrait."""

    def __init__(self, picture: Picture, face: FaceLandmarks) -> None:
        self.rig = Rig(picture, face, NEUTRAL)
        self._near = Mesh(face.mesh, 1.0)
        frame = self.face_frame = FaceFrame.of(face.mesh)
        self.iod = frame.iod
        self._down = float(np.linalg.norm(frame.axes[1, :2]))  # of the face's height that is seen

    def frame(self, **values: float) -> Picture:
        """A frame of `motion(**values)`."""
        return next(self.rig.render(motion(**values)))

    def mesh(self, frame: Picture) -> Points:
        """The mesh (478, 2) of a frame, IOD: the mean of what is seen in it and in its mirror."""
        other, width = mirrored_points(), frame.shape[1]
        near = self._near.points[other] * (-1, 1, 1) + (width - 1, 0, 0)
        seen = follow_mesh(np.ascontiguousarray(frame[:, ::-1]), Mesh(near, 1.0)).points[other, :2]
        both = follow_mesh(frame, self._near).points[:, :2], seen * (-1, 1) + (width - 1, 0)
        return np.asarray(np.mean(both, axis=0) / self.iod)

    def gap(self, mesh: Points) -> float:
        """Between the lips at the middle of the mouth, along the face."""
        return float(np.linalg.norm(mesh[14] - mesh[13])) / self._down


@cache
def mirrored_points() -> NDArray[np.intp]:
    """(478,) which of a mesh's points each is in a mirror."""
    points = mean_mesh()
    away = np.linalg.norm(points[:, None] * (-1, 1, 1) - points, axis=-1)
    return np.asarray(away.argmin(axis=1))


def eye_opening(mesh: Points) -> Points:
    """Of both eyes, (2,): height over width."""
    shares = []
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        width = np.linalg.norm(mesh[upper[-1]] - mesh[upper[0]])
        shares.append(np.linalg.norm(mesh[lower[3:6]] - mesh[upper[3:6]], axis=1).mean() / width)
    return np.array(shares)


def asked_gap(jaw: float) -> float:
    """The opening of the lips that jaw units ask for, IOD."""
    return max(controls(np.array([jaw * (name == "jaw") for name in ARTICULATORS]))["jaw"], 0.0)


def measure(picture: Picture, face: FaceLandmarks) -> Figures:
    """The figures of one portrait (H, W, 3) RGB."""
    shown = Measured(picture, face)
    still, mesh = shown.frame(), shown.mesh
    rest = mesh(still)
    frames = [shown.frame(jaw=jaw) for jaw in JAWS]
    asked = [asked_gap(jaw) for jaw in JAWS]
    opened = [mesh(frame) for frame in frames]
    seen = [shown.gap(points) for points in opened]
    lips = LipTracker(still, find_inner_lips(picture, shown.face_frame, face.mesh))
    tracked = [lips.gap(frame, gap) for frame, gap in zip(frames, asked, strict=True)]
    edge = opened[JAWS.index(12.0)][UPPER_LIP] - rest[UPPER_LIP]
    blink = shown.frame(lid_a=14, lid_b=14)
    seam = shown.rig.lips.edges.mean(axis=0)[BEYOND:-BEYOND]
    closed = shown.rig.lips.gap < CLOSED

    def taken(mouths: Sequence[dict[str, float]], **turn: float) -> float:
        before = shown.frame(**turn)
        points = mesh(before)[STILL] * shown.iod
        after = [shown.frame(**mouth, **turn) for mouth in mouths]
        return max(moved(before, spoken, points, shown.iod) for spoken in after)

    return Figures(
        r=correlation(asked, seen),
        slope=slope(asked, seen),
        labial=shown.gap(mesh(shown.frame(jaw=LABIAL))),
        blink=float(eye_opening(mesh(blink)).max()),
        line=float(np.linalg.norm(edge[2:-2], axis=1).mean()),
        lips=slope(asked, tracked),
        lips_r=correlation(asked, tracked),
        eye=float(eyes_left(still, blink, face.mesh).max()),
        seam=seam_distance(picture, seam, shown.face_frame) if closed else math.nan,
        still=taken(MOUTHS),
        turned=taken(MOUTHS, yaw=7.0, pitch=3.0, roll=2.0),
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.polyfit(x, y, 1)[0])


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def varied(picture: Picture, variant: str) -> Picture:
    """`picture` (H, W, 3) as it is, grey, like pale stone, or mirrored."""
    if variant == "mirror":
        return np.ascontiguousarray(picture[:, ::-1])
    if variant in ("grey", "stone"):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
        if variant == "stone":
            grey = 255 * (np.clip((grey - grey.mean()) * 0.6 + 150, 0, 255) / 255) ** 0.9
            grey = grey * np.float32([1, 0.97, 0.92])
        return np.ascontiguousarray(np.broadcast_to(np.rint(grey), picture.shape), np.uint8)
    return picture


def main() -> None:
    from moda_cli.face.search import choose_face, find_faces

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--variants", nargs="*", default=["as it is"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':28}" + "".join(f"{field.name:>9}" for field in fields(Figures)))
    for path in options.pictures:
        for variant in options.variants:
            picture = varied(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]), variant)
            figures = measure(picture, choose_face(find_faces(picture), "largest"))
            row = "".join(f"{value:9.3f}" for value in astuple(figures))
            print(f"{path.name[:16]:17}{variant:11}{row}", flush=True)


if __name__ == "__main__":
    main()
