"""All landmarks of one face, from a face box or from points the user gave, and their score."""

import numpy as np
from numpy.typing import NDArray

from moda_cli.face.cascade import FaceBox
from moda_cli.face.landmarks import FaceLandmarks, Points
from moda_cli.face.lips import Mouth, fit_mouth
from moda_cli.face.pupils import MIN_STRENGTH, find_eyes

CHIN = (1.09, 0.57)  # chin y = 1.09 mouth y + 0.57 IOD, residual deviation 0.07
CHIN_LEAN = 1.2  # chin x = 1.2 mouth x: both leave the midline as the head turns

# The least evidence of a face.
MIN_SUPPORT = 13.0  # agreeing cascade windows
SURE_SUPPORT = 50.0  # windows that make up for eyes without an iris
MIN_DEPTH = 0.2  # of the lip seam
MIN_CONTRAST = 0.15  # of the seam within the corners against beyond them
MIN_IOD = 30.0  # pixels; a smaller face is too soft to animate


def fit_face(picture: NDArray[np.uint8], box: FaceBox) -> FaceLandmarks:
    """The landmarks of a box in a picture (H, W, 3).

    Their score is the scarcest evidence as a share of the least a face needs: 1 passes the gate.
    """
    eyes = find_eyes(picture, box)
    mouth = fit_mouth(picture, eyes.pupils)
    evidence = (
        box.support / MIN_SUPPORT,
        max(eyes.strength / MIN_STRENGTH, box.support / SURE_SUPPORT),
        mouth.depth / MIN_DEPTH,
        mouth.contrast / MIN_CONTRAST,
        float(np.linalg.norm(eyes.pupils[1] - eyes.pupils[0])) / MIN_IOD,
    )
    return assemble(eyes.pupils, mouth, min(evidence))


def fit_points(picture: NDArray[np.uint8], pupils: Points, middle: Points) -> FaceLandmarks:
    """The landmarks of a face with known pupils (2, 2) and mouth centre (2,), in pixels."""
    frame = FaceLandmarks(pupils, middle, pupils, middle, pupils)
    at = frame.to_face(middle)
    return assemble(pupils, fit_mouth(picture, pupils, at).moved_to(at), np.inf)


def assemble(pupils: Points, mouth: Mouth, score: float) -> FaceLandmarks:
    """Landmarks in pixels of pupils in pixels and a mouth in the face frame; the chin follows."""
    x, y = mouth.middle
    chin = np.array([CHIN_LEAN * x, CHIN[0] * y + CHIN[1]])
    frame = FaceLandmarks(pupils, pupils[0], pupils, pupils[0], pupils)
    seam = frame.to_picture(mouth.seam)
    middle = frame.to_picture(mouth.middle)
    return FaceLandmarks(pupils, middle, seam[[0, -1]], frame.to_picture(chin), seam, score)
