"""A followed face made steady: what a mesh trembles by is taken off, and no movement comes late."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import Points
from moda_cli.face.mesh import IRIS_CENTRES, RIGID, head_angles
from moda_cli.face.track import Sight
from moda_cli.media.pictures import Picture

REACH = 3  # frames on either side that a face is made steady with
# Of a quadratic fitted to seven frames (Savitzky and Golay 1964): a head that moves evenly, or
# gathers speed, stays where it is; what remains of trembling is its half.
FITTED = np.array([-2, 3, 6, 7, 6, 3, -2]) / 21
TREMBLING = 0.012  # IOD that a point which rests is seen off its place
NEAR = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / 2.0) ** 2)  # weights of what may be averaged
EASE_S = 0.24  # over which a face that comes or goes is taken over or let go
# Degrees within which a filmed face is drawn on; less than a still one's, which may be chosen.
MOST_YAW, MOST_PITCH = 45.0, 35.0


@dataclass(frozen=True, slots=True)
class Steady:
    """A face in one frame.

    mesh: (478, 3) pixels. share: 0..1, how far it is there: it rises and falls softly where the
    face comes, goes or turns away. person: as in `Sight`.
    """

    mesh: Points
    share: float
    person: int


def let_go(drawn: Picture, filmed: Picture, share: float) -> None:
    """Mix what was filmed into what is drawn (H, W, 3) below half a share, see `Steady`."""
    if share < 0.5:
        drawn[:] = cv2.addWeighted(drawn, 2 * share, filmed, 1 - 2 * share, 0)


def steadied(sights: Iterable[Sight | None], fps: float) -> Iterator[Steady | None]:
    """The same sights, a bounded number of frames later: a window of meshes is all that is held."""
    ease = max(1, round(EASE_S * fps))
    side = max(REACH, ease)
    window: deque[Sight | None] = deque([None] * side)
    # before the first frame and after the last there is no loss to ease into
    present: deque[bool] = deque([True] * side)

    def middle() -> Steady | None:
        seen = window[side]
        if seen is None or not present[side]:
            return None
        gone = [abs(k - side) for k, there in enumerate(present) if not there]
        x = min(min(gone, default=ease + 1) / (ease + 1), 1.0)
        near = list(window)[side - REACH : side + REACH + 1]
        return Steady(_steady(near), x * x * (3 - 2 * x), seen.person)

    for sight, whole in chain(
        ((sight, _is_whole(sight)) for sight in sights), [(None, True)] * side
    ):
        window.append(sight)
        present.append(whole)
        if len(window) > 2 * side:
            yield middle()
            window.popleft()
            present.popleft()


def _is_whole(sight: Sight | None) -> bool:
    """Is a face there, and turned so little that its mouth can be drawn?"""
    if sight is None:
        return False
    pitch, yaw, _ = head_angles(sight.mesh.points)
    return abs(yaw) <= MOST_YAW and abs(pitch) <= MOST_PITCH


def _steady(near: Sequence[Sight | None]) -> Points:
    """The middle one's mesh, from those of the same person beside it without a gap."""
    meshes = _one_persons(near)
    rigid = meshes[REACH, RIGID, 0] + 1j * meshes[REACH, RIGID, 1]
    rigid -= rigid.mean()
    places = [_place(mesh, rigid) for mesh in meshes]
    still = np.stack([_moved(mesh, at.inverse) for mesh, at in zip(meshes, places, strict=True)])
    iod = abs(complex(*np.diff(meshes[REACH, IRIS_CENTRES, :2], axis=0)[0]))
    apart = np.linalg.norm((still - still[REACH])[..., :2], axis=-1) / iod  # (7, 478)
    weight = NEAR[:, None] * np.exp(-0.5 * (apart / TREMBLING) ** 2)
    mean = (still * weight[..., None]).sum(axis=0) / weight.sum(axis=0)[:, None]
    turn, middle = (FITTED @ np.array([getattr(at, part) for at in places])
                    for part in ("turn", "middle"))  # fmt: skip
    return _moved(mean, _Place(turn, middle))


def _one_persons(near: Sequence[Sight | None]) -> Points:
    """A mesh for each of the frames (7, 478, 3); where there is none, as if it moved on evenly."""
    middle = near[REACH]
    assert middle is not None
    meshes = {0: middle.mesh.points}
    for step in (-1, 1):
        for k in range(1, REACH + 1):
            sight = near[REACH + step * k]
            if sight is None or sight.person != middle.person:
                break
            meshes[step * k] = sight.mesh.points

    def mesh(k: int) -> Points:
        if k in meshes:
            return meshes[k]
        return 2 * meshes[0] - meshes[-k] if -k in meshes else meshes[0]

    return np.stack([mesh(k) for k in range(-REACH, REACH + 1)])


@dataclass(frozen=True, slots=True)
class _Place:
    """A similarity of the plane: z -> turn * z + middle."""

    turn: complex
    middle: complex

    @property
    def inverse(self) -> "_Place":
        return _Place(1 / self.turn, -self.middle / self.turn)


def _place(mesh: Points, rigid: NDArray[np.complex128]) -> _Place:
    """What brings `rigid` closest to the same points of a mesh: those that no expression moves."""
    points = mesh[RIGID, 0] + 1j * mesh[RIGID, 1]
    middle = points.mean()
    turn = (rigid.conj() @ (points - middle)) / (rigid.conj() @ rigid).real
    return _Place(complex(turn), complex(middle))


def _moved(mesh: Points, place: _Place) -> Points:
    z = (mesh[:, 0] + 1j * mesh[:, 1]) * place.turn + place.middle
    return np.column_stack((z.real, z.imag, mesh[:, 2] * abs(place.turn)))
