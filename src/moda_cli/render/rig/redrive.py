"""The renderer without weights on a video: each frame keeps all but a mouth that speaks anew."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.face.film import Film
from moda_cli.face.landmarks import LIP_MIDDLES, Points
from moda_cli.face.steady import Steady, let_go
from moda_cli.media.pictures import Picture
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode
from moda_cli.render.rig.arrays import Field, floats, smoothstep
from moda_cli.render.rig.controls import controls
from moda_cli.render.rig.expression import Aperture, Expression
from moda_cli.render.rig.frame import Grid, Rect
from moda_cli.render.rig.head import Head, head_box
from moda_cli.render.rig.likeness import PLACES, Calm, Likeness, Lips, undoing
from moda_cli.render.rig.lip_line import find_lips
from moda_cli.render.rig.mouth import Mouth
from moda_cli.render.rig.own_mouth import Seam
from moda_cli.render.rig.palette import Palette, find_palette
from moda_cli.render.rig.rig import Rig
from moda_cli.render.rig.side_by_side import Task, side_by_side
from moda_cli.render.rig.still import Still

_MOVED = {  # of ARTICULATORS, by part of the face
    "lips": ("jaw", "spread", "round", "smile"),
    "brows": ("brow_up", "brow_frown"),
    "head": (),
}
_BOX = (-1.5, -0.35, 1.5, 0.95)  # IOD: of the face that lips move; the last is below the chin
_BROWS_TOP = -1.1
_PARTED = (0.012, 0.05)  # IOD between the lips over which they begin to count as parted
_INSET = 0.02  # IOD behind the edges of parted lips, from where on nothing of a film's teeth shows
_SEAM = 0.8  # of how far lips are closed: a line as dark as between lips that rest
_SLOW_S = 2.0  # on either side, within which a chin comes up to where it rests
_SMILE_S = 1.0  # deviation of the mean that tells a smile from speech
_CLOSED = 0.04  # IOD between lips that say little of it
_RESTING = 6  # frames in which a mouth is most closed: their mean is its rest
_PEOPLE = 32  # whose likeness is kept


@dataclass(frozen=True, slots=True)
class Person:
    """What is drawn alike in all frames of somebody."""

    known: Likeness
    palette: Palette


class FilmedRig(Rig):
    """One frame of a film: its own speech is undone, then it moves as any rig."""

    def __init__(
        self, picture: Picture, face: Steady, person: Person, calm: Calm, parts: frozenset[str]
    ) -> None:
        self._picture, self._alpha = np.ascontiguousarray(picture), None
        known, mesh = person.known, face.mesh
        self._frame = frame = known.frame(mesh)
        self._to_plane = frame.to_plane
        self.grid = Grid(picture.shape, _box(known, mesh, parts), frame.iod)
        surface, radius = known.surface(self.grid, frame)
        self._head = Head(self.grid, frame, surface, radius, known.reach)
        own = Lips.of(frame.to_face(mesh))
        speaks = float("lips" in parts)  # or they stay as they are, nothing is seen between them
        parted = float(smoothstep(floats((own.gap - _PARTED[0]) / (_PARTED[1] - _PARTED[0]))))
        parted *= speaks
        # what closes them is `undo`, whatever is asked
        self.lips = replace(find_lips(self.grid, surface, frame, mesh, parted, _INSET), closes=0.0)
        behind = floats((1 - PLACES**8) * (parted * max(_INSET, 1 / frame.iod)))
        edges = replace(own, curves=own.curves + floats([0, -1, 1, 0])[:, None] * behind)
        undo, amplitudes = undoing(edges, known.lips, self.lips, calm)
        share = face.share * speaks
        self._undone = {name: share * amount for name, amount in amplitudes.items()}
        makers = (undo.upper, undo.lower)
        self._expression = Expression(
            self.grid, frame, surface, self.lips, mesh, makers, known.room
        )
        rest = known.posed(frame)
        middle = self.lips.edges.shape[1] // 2
        self._dropped = floats(self.lips.edges[1, middle] - rest[LIP_MIDDLES[1], :2])
        seam = Seam(frame, self.lips, person.palette)
        self._mouth = Mouth(picture, frame, self.lips, rest, person.palette, seam)
        self._still = Still(self._picture, self.grid.rect, once=True)
        x0, y0, x1, y1 = self.grid.rect
        pixels = np.dstack(np.meshgrid(np.arange(x1 - x0), np.arange(y1 - y0)))
        self._pixels = floats(pixels)

    def draw(self, control: dict[str, float], pose: NDArray[np.float64], share: float) -> Picture:
        """The frame as controls ask for it, (H, W, 3); share: 0..1, see `Steady`."""
        drawn = self._draw(control, pose)
        x0, y0, x1, y1 = self.grid.rect
        part = (slice(y0, y1), slice(x0, x1))
        let_go(drawn[part], self._picture[part], share)
        return drawn

    def _eyes_painted(self, picture: Picture, control: dict[str, float]) -> list[Rect]:
        return []  # they look and blink as filmed

    def _moved(self, control: dict[str, float]) -> tuple[Field, Aperture] | None:
        moved = self._expression.forward(control, self._undone)
        if moved is None:
            return None
        field, aperture = moved
        seam = _SEAM * aperture.closed
        return field, replace(aperture, drop=aperture.drop + self._dropped, closed=seam)


class RedrivenRig:
    """Draws speech on a film, frame after frame. neutral: (70) the motion of a mouth at rest."""

    def __init__(self, film: Film, neutral: Tensor) -> None:
        self._film, self._neutral = film, neutral.double()
        self._frames = film.frames()
        self._people: dict[int, Person] = {}
        self._lips = lru_cache(1024)(self._lips_of)
        kept = {name for part in film.parts for name in _MOVED[part]}
        self._kept = torch.tensor([name in kept for name in ARTICULATORS])

    def render(self, motion: Tensor, gaze: Tensor | None = None) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), the film's next ones.

        gaze: of no use here, a filmed face looks where it looks.
        """
        yield from side_by_side(self._tasks(motion.double() - self._neutral))

    def _tasks(self, offset: Tensor) -> Iterator[Task]:
        articulators = (decode(offset[:, EXPRESSION]) * self._kept).numpy().round(6)
        turns = offset[:, POSE].numpy() * float("head" in self._film.parts)
        for asked, pose in zip(articulators, turns, strict=True):
            number, picture, face = next(self._frames)
            if face is None:
                yield partial(self._film.shown, picture)
                continue
            person = self._person(number, picture, face)
            calm = self._calm(number, face.person)
            yield partial(self._drawn, picture, face, person, calm, asked, pose)

    def _drawn(
        self,
        picture: Picture,
        face: Steady,
        person: Person,
        calm: Calm,
        asked: NDArray[np.float64],
        pose: NDArray[np.float64],
    ) -> Picture:
        rig = FilmedRig(picture, face, person, calm, self._film.parts)
        frame = rig.draw(controls(asked * face.share), pose * face.share, face.share)
        return self._film.shown(frame)

    def _person(self, number: int, picture: Picture, face: Steady) -> Person:
        if face.person not in self._people:
            if len(self._people) == _PEOPLE:
                self._people.clear()
                self._lips.cache_clear()
            closed = self._film.resting(number, face.person, _RESTING).values()
            known = Likeness([near.mesh for near in closed])
            person = Person(known, find_palette(picture, face.mesh))
            self._people[face.person] = person
        return self._people[face.person]

    def _lips_of(self, number: int, person: int) -> Lips | None:
        """A person's lips in a frame, which may not be there or show another."""
        try:
            face = self._film.faces[number]
        except IndexError:
            return None
        if face is None or face.person != person:
            return None
        known = self._people[person].known
        return Lips.of(known.frame(face.mesh).to_face(face.mesh))

    def _calm(self, number: int, person: int) -> Calm:
        reach = round(_SLOW_S * self._film.fps)
        numbers = np.arange(max(0, number - reach), number + reach + 1)
        seen = {k: lips for k in numbers if (lips := self._lips(k, person))}
        near = np.exp(-0.5 * ((np.array([*seen]) - number) / (_SMILE_S * self._film.fps)) ** 2)
        gaps, widths, levels, chins = np.array(
            [(lips.gap, lips.half_width, lips.level, lips.chin) for lips in seen.values()]
        ).T
        return Calm(
            float(np.average(widths, weights=near)),
            float(np.average(levels, weights=near * np.exp(-gaps / _CLOSED))),
            float(np.quantile(chins, 0.1)),
        )


def _box(known: Likeness, mesh: Points, parts: frozenset[str]) -> Points:
    """Corners (2, 2) in pixels of what moves in a frame."""
    frame = known.frame(mesh)
    if "head" in parts:
        return head_box(frame)
    x0, y0, x1, y1 = _BOX
    top, bottom = (_BROWS_TOP if "brows" in parts else y0), known.lips.chin + y1
    corners = frame.pixels(np.array([[x, y] for x in (x0, x1) for y in (top, bottom)]))
    return np.stack([corners.min(axis=0), corners.max(axis=0)])
