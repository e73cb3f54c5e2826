"""F-SIM: likeness of the face in every frame to the reference's (EMO, arXiv:2402.17485).

The network is our choice, the paper names none: InsightFace's ArcFace w600k_r50
(arXiv:1801.07698), on faces aligned by five points of their mesh.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import InputError
from moda_cli.face.landmarks import CORNERS, LEFT_PUPIL, RIGHT_PUPIL, Points
from moda_cli.face.mesh import NOSE_TIP
from moda_cli.face.search import find_faces
from moda_cli.media.pictures import Picture
from moda_cli.metrics.networks.arcface import FaceEncoder, align_face

# (5, 2) eyes, nose tip, mouth corners of a frame's largest face, the picture's left first, in
# pixels; None where there is no face.
FacePoints = Callable[[Picture], Points | None]


def face_points(picture: Picture) -> Points | None:
    """The five points of a picture's largest face by its mesh; FacePoints."""
    faces = find_faces(picture, quick=True).faces
    if not faces:
        return None
    mesh = max(faces, key=lambda face: face.iod).mesh[:, :2]
    return np.asarray(mesh[[LEFT_PUPIL, RIGHT_PUPIL, NOSE_TIP, *CORNERS]])


def similarities(
    encoder: FaceEncoder, find_points: FacePoints, reference: Picture, frames: Iterable[Picture]
) -> NDArray[np.float64]:
    """Cosine (T,) of every frame's identity with the reference's, NaN where there is no face.

    Raises InputError for a reference without a face.
    """

    def embed(frame: Picture) -> NDArray[np.float32] | None:
        points = find_points(frame)
        return None if points is None else encoder.embed(align_face(frame, points))

    wanted = embed(reference)
    if wanted is None:
        raise InputError("no face in the reference picture", hint="give one that shows the face")
    found = (embed(frame) for frame in frames)
    return np.array([np.nan if x is None else cosine(wanted, x) for x in found])


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of the angle between two vectors, in float64."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return float(a64 @ b64 / (np.linalg.norm(a64) * np.linalg.norm(b64)))


def face_similarity(cosines: NDArray[np.float64]) -> tuple[float, float]:
    """Score of a clip, the mean over its frames with a face, and the share without one.

    cosines: (T,), NaN where there is no face. Raises InputError if that is everywhere.
    """
    seen = np.isfinite(cosines)
    if not seen.any():
        raise InputError("no face in any frame", hint="F-SIM needs clips that show a face")
    return float(cosines[seen].mean()), float(1 - seen.mean())
