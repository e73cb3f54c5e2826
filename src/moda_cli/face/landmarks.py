"""Where a face is in a picture, and the frame its parts are measured in."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

LEFT_PUPIL, RIGHT_PUPIL = 468, 473  # the irises' centres
CORNERS = [61, 291]  # of the mouth
CHIN = 152
# The inner lips from corner to corner.
UPPER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_LIP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
LIP_MIDDLES = [13, 14]  # of the inner lips
LIP_EDGES = [*CORNERS, 0, 17]  # of the outer lips: left, right, top, bottom


def eye_line(pupils: Points) -> Points:
    """From the left pupil to the right (2,). Nearer than a pixel, they are level a pixel apart."""
    line = pupils[1] - pupils[0]
    return np.asarray(line if line @ line >= 1 else [1.0, 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class FaceLandmarks:
    """The mesh of a face in pixels of one picture (x right, y down, pixel centres at .0).

    Its indices are MediaPipe's. Left and right are the picture's where the face is upright. IOD,
    the distance between the pupils, is the unit of length of the face frame: origin midway between
    the pupils, x along the eye line, y down the face.
    """

    mesh: Points  # (478, 3); z, of the same unit, grows away from the viewer
    score: float | None = None  # probability of a face; None where the user gave the points
    cloud: Points | None = None  # (203, 2) all points of LivePortrait's network where it ran

    @property
    def pupils(self) -> Points:
        """(2, 2) left, right."""
        return self.mesh[[LEFT_PUPIL, RIGHT_PUPIL], :2]

    @property
    def seam(self) -> Points:
        """(13, 2) the line between the lips from corner to corner."""
        inner = (self.mesh[UPPER_LIP, :2] + self.mesh[LOWER_LIP, :2]) / 2
        return np.vstack((self.corners[0], inner, self.corners[1]))

    @property
    def mouth(self) -> Points:
        """(2,) the middle of the seam."""
        return np.asarray(self.mesh[LIP_MIDDLES, :2].mean(axis=0))

    @property
    def corners(self) -> Points:
        """(2, 2) of the mouth, left, right."""
        return self.mesh[CORNERS, :2]

    @property
    def chin(self) -> Points:
        """(2,) its lowest point."""
        return self.mesh[CHIN, :2]

    @property
    def opening(self) -> float:
        """Height of the gap between the lips at the middle of the mouth, in IOD."""
        upper, lower = self.mesh[LIP_MIDDLES, :2]
        return float(np.linalg.norm(lower - upper)) / self.iod

    @property
    def iod(self) -> float:
        """Distance between the pupils in pixels, 1 at least."""
        return float(np.linalg.norm(eye_line(self.pupils)))

    def to_face(self, points: Points) -> Points:
        """Face-frame coordinates (..., 2) in IOD of pixel coordinates (..., 2)."""
        axis = eye_line(self.pupils) / self.iod
        centred = (points - self.pupils.mean(axis=0)) / self.iod
        turn = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
        return np.asarray(centred @ turn)

    def to_picture(self, points: Points) -> Points:
        """Pixel coordinates (..., 2) of face-frame coordinates (..., 2) in IOD."""
        axis = eye_line(self.pupils) / self.iod
        turn = np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])
        return np.asarray(points @ turn * self.iod + self.pupils.mean(axis=0))

    def moved(self, affine: Points) -> "FaceLandmarks":
        """The same face after a (2, 3) similarity of the picture (resize, crop)."""
        mesh = np.column_stack(
            (
                self.mesh[:, :2] @ affine[:, :2].T + affine[:, 2],
                self.mesh[:, 2] * np.sqrt(abs(np.linalg.det(affine[:, :2]))),
            )
        )
        cloud = None if self.cloud is None else self.cloud @ affine[:, :2].T + affine[:, 2]
        return replace(self, mesh=mesh, cloud=cloud)
