"""What could be a face in a picture, from whatever size and side it is seen."""

from dataclasses import dataclass, replace

import numpy as np

from moda_cli.face.blazeface import SIDE, Detection, detect
from moda_cli.face.mesh import (
    MARGIN,
    Mesh,
    crop_around,
    cut,
    fit_mesh,
    follow_mesh,
    measure,
    networks,
    square_crop,
)
from moda_cli.media.pictures import Picture

# The detector's square over the picture's longer side: the first that finds a sure face ends it.
SHARES = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
QUICK = 3  # of them, in a quick search
LEAST_SIDE = 96  # pixels of the smallest square: what is small there is too soft to animate
TURNED_FROM = 1 / 4  # smaller squares are looked at upright only
TRIED = 4  # meshes measured, of a level's doubtful detections
LOOK_MARGIN = 2.0  # side of the second look's square over the face's

LIKELY_SCORE = 0.7  # of the first look
# Faces have 0.86 and more at the second look, what only looks like one 0.77 and less.
SURE_SCORE = 0.8
SURE_FLAG = 0.9
SURE_DISTANCE = 0.06  # between the passes; faces stay below 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mesh and how surely the detector saw a face where it lies."""

    mesh: Mesh
    score: float  # probability

    @property
    def sure(self) -> bool:
        """Is it a face beyond doubt?"""
        return (
            self.score >= SURE_SCORE
            and self.mesh.flag >= SURE_FLAG
            and self.mesh.distance <= SURE_DISTANCE
        )


def find_candidates(picture: Picture, quick: bool = False) -> list[Candidate]:
    """The sure faces of a picture (H, W, 3) RGB, or what else it shows; the best first.

    quick: for frames of a video, whose faces are no smaller than a thirtieth of the longer side.

    A face upside down is a face to the detector, with its points in the wrong places: every turn
    of the picture is looked at, and the one that shows a face best has it. After the first level
    that finds a sure face one more is looked at, for smaller faces beside it.
    """
    longest = max(picture.shape[:2])
    found: list[Candidate] = []
    done = False
    for share in SHARES[:QUICK] if quick else SHARES:
        if done or (share < 1 and share * longest < LEAST_SIDE):
            break
        done = any(candidate.sure for candidate in found)
        turned = not done and share >= (1.0 if quick else TURNED_FROM)
        tried = 0
        for detection in _detections(picture, share, turned):
            if _known(detection, found) or (tried >= TRIED and detection.score < LIKELY_SCORE):
                continue
            tried += 1
            mesh = fit_mesh(picture, detection)
            found.append(Candidate(mesh, second_look(picture, mesh)))
    if sure := [candidate for candidate in found if candidate.sure]:
        return _distinct(sure)
    doubtful = _distinct(found)
    return doubtful if quick else [standing(picture, each) for each in doubtful[:1]] + doubtful[1:]


def standing(picture: Picture, candidate: Candidate) -> Candidate:
    """The same doubtful place with a mesh measured as if it stood upright, where that fits better.

    What is no face, an animal, looks to the detector like one in any turn; most stand.
    """
    points = candidate.mesh.points[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    square = square_crop((low + high) / 2, MARGIN * float((high - low).max()), np.array([1.0, 0.0]))
    mesh = follow_mesh(picture, measure(picture, square))
    better = mesh.distance < candidate.mesh.distance and mesh.flag >= candidate.mesh.flag
    return replace(candidate, mesh=mesh) if better else candidate


def second_look(picture: Picture, mesh: Mesh) -> float:
    """How surely the detector sees a face where a mesh lies, upright and of one size.

    Whatever size and turn a face was found at, this score has one scale; what only looked like
    a face at that size falls. It is 0 where the face is seen better turned another way.
    """
    network, _ = networks()
    crop = cut(picture, crop_around(mesh.points[:, :2], LOOK_MARGIN, SIDE), SIDE)
    scores = []
    for turn in range(4):
        seen = detect(network, crop, turn=turn)
        near = (each.score for each in seen if np.abs(each.centre - SIDE / 2).max() < SIDE / 4)
        scores.append(max(near, default=0.0))
    return scores[0] if scores[0] == max(scores) else 0.0


def _detections(picture: Picture, share: float, turned: bool) -> list[Detection]:
    """Detections of every turn, best first: a face has several, that of its own turn leads."""
    network, _ = networks()
    turns = range(4) if turned else range(1)
    seen = [each for turn in turns for each in detect(network, picture, share, turn)]
    return sorted(seen, key=lambda each: -each.score)


def _known(detection: Detection, found: list[Candidate]) -> bool:
    """Does a detection show a part of a face that is sure already?"""
    sure = (candidate.mesh for candidate in found if candidate.sure)
    return any(np.linalg.norm(detection.centre - mesh.middle) < 2 * mesh.iod for mesh in sure)


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates, best first, without those whose eyes are where a better one's are."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: -each.score):
        eyes = candidate.mesh.eyes
        if all(
            np.linalg.norm(eyes - other.mesh.eyes) > 0.5 * max(candidate.mesh.iod, other.mesh.iod)
            for other in kept
        ):
            kept.append(candidate)
    return kept
