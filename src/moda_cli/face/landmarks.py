"""Where a face is in a picture, and the frame its parts are measured in."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FaceLandmarks:
    """The points a renderer needs, in pixels of one picture (x right, y down, pixel centres at .0).

    Left and right are the picture's. IOD, the distance between the pupils, is the unit of length of
    the face frame: origin midway between the pupils, x along the eye line, y down the face.
    """

    pupils: Points  # (2, 2) left, right
    mouth: Points  # (2,) middle of the lip seam
    corners: Points  # (2, 2) of the mouth, left, right
    chin: Points  # (2,)
    seam: Points  # (n, 2) the line between the lips from corner to corner
    score: float = np.inf  # confidence; infinite where the user gave the points
    cloud: Points | None = None  # (203, 2) all points of the landmark network where it ran

    @property
    def iod(self) -> float:
        """Distance between the pupils in pixels."""
        return float(np.linalg.norm(self.pupils[1] - self.pupils[0]))

    def to_face(self, points: Points) -> Points:
        """Face-frame coordinates (..., 2) in IOD of pixel coordinates (..., 2)."""
        axis = (self.pupils[1] - self.pupils[0]) / self.iod
        centred = (points - self.pupils.mean(axis=0)) / self.iod
        turn = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
        return np.asarray(centred @ turn)

    def to_picture(self, points: Points) -> Points:
        """Pixel coordinates (..., 2) of face-frame coordinates (..., 2) in IOD."""
        axis = (self.pupils[1] - self.pupils[0]) / self.iod
        turn = np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])
        return np.asarray(points @ turn * self.iod + self.pupils.mean(axis=0))

    def moved(self, affine: Points) -> "FaceLandmarks":
        """The same face after a (2, 3) similarity of the picture (resize, crop)."""
        names = ("pupils", "mouth", "corners", "chin", "seam", "cloud")
        fields = {name: getattr(self, name) for name in names}
        return replace(
            self,
            **{
                name: points @ affine[:, :2].T + affine[:, 2]
                for name, points in fields.items()
                if points is not None
            },
        )
