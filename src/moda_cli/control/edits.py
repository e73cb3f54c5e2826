"""What is done to motion once it is sampled or read, piece by piece as it comes."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from moda_cli.config import FPS, RenderConfig
from moda_cli.control.blinks import CLOSED_LID, LONGEST, blink_starts, closure, without_blinks
from moda_cli.control.inserts import laid_over
from moda_cli.control.recordings import evened, smoothing_reach, spoken_part
from moda_cli.control.timeline import Timeline
from moda_cli.motion import ARTICULATORS, EXPRESSION, MOTION_DIM, POSE, decode, encode

LIDS = [ARTICULATORS.index(name) for name in ("lid_a", "lid_b")]

Rest = Callable[[int, int], Tensor]  # (first frame, how many) -> how far the mouth rests (n,)


class Edits:
    """The edits of one clip's motion; what is not asked for changes no bit.

    In this order: what a timeline lays over it, smoothing, how much of everything, the rest of the
    pauses, what is added to the head, blinks, and what is held.
    """

    def __init__(
        self,
        neutral: Tensor,
        timeline: Timeline,
        config: RenderConfig,
        rest: Rest | None = None,
        seed: int = 0,
    ) -> None:
        """neutral: (70) the motion at rest. rest: of the pauses, where the mouth is to close."""
        self._neutral, self._timeline, self._config, self._rest = neutral, timeline, config, rest
        self._widths = sorted(
            {float(entry.values["smooth"]) for entry in timeline.asking("smooth")} - {0.0}
        )
        rate = config.blink_rate
        self._blinks = blink_starts(rate, seed) if rate is not None else None
        self._asked = [round(entry.at * FPS) for entry in timeline.asking("blink")]
        self._held: dict[float, Tensor] = {}

    @property
    def reach(self) -> int:
        """Frames on either side that a frame depends on."""
        smoothing = max(map(smoothing_reach, self._widths), default=0)
        return max(smoothing, LONGEST + 1 if self._blinks else 0)

    def __call__(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same motion (n, 70) as edited; where edits reach ahead it comes so much later."""
        start = 0
        overlaid = laid_over(pieces, self._timeline, self._neutral)
        for before, piece, after in _with_neighbours(overlaid, self.reach):
            motion = self._even(torch.cat((before, piece, after)), start - len(before))
            motion = motion[len(before) :][: len(piece)]
            yield self.at_once(motion, start)
            start += len(piece)

    def at_once(self, motion: Tensor, start: int) -> Tensor:
        """Motion (n, 70) from frame `start` on, as edited by all that needs no other frames."""
        return self._hold(self._shape(motion, start), start)

    def _seconds(self, start: int, length: int) -> Tensor:
        return torch.arange(start, start + length).double() / FPS

    def _even(self, motion: Tensor, start: int) -> Tensor:
        """Without its own blinks, and smoothed; motion has its neighbours (n, 70)."""
        if self._blinks:
            lids = decode(motion[:, EXPRESSION] - self._neutral[EXPRESSION])[:, LIDS]
            motion = _with_lids(motion, without_blinks(lids) - lids)
        if not self._widths:
            return motion
        shares = self._timeline.shares("smooth", self._seconds(start, len(motion)), 0.0)
        kept = [shares[0.0].to(motion)[:, None] * motion] if 0.0 in shares else []
        smoothed = [
            share.to(motion)[:, None] * evened(motion, width)
            for width, share in shares.items()
            if width
        ]
        return torch.stack([*kept, *smoothed]).sum(dim=0) if smoothed else motion

    def _shape(self, motion: Tensor, start: int) -> Tensor:
        """Gains, rest, offsets and blinks of motion (n, 70)."""
        motion, config, length = motion.clone(), self._config, len(motion)
        seconds = self._seconds(start, length)
        gain = {name: self._curve(name, seconds) for name in ("lips", "face", "head", "idle")}
        resting = gain["idle"]
        if self._rest:
            resting = resting.maximum(self._rest(start, length)[:, None])
        face = config.expression_scale * gain["face"]
        lips = config.expression_scale * gain["lips"] * (1 - resting)
        expression = motion[:, EXPRESSION] - self._neutral[EXPRESSION]
        if not config.blink:
            lids = torch.zeros(length, len(ARTICULATORS)).to(motion)
            lids[:, LIDS] = decode(expression)[:, LIDS]
            motion[:, EXPRESSION] -= encode(lids)
            expression = expression - encode(lids)
        spoken = spoken_part(expression)
        motion[:, EXPRESSION] += (face - 1) * (expression - spoken) + (lips - 1) * spoken
        pose = motion[:, POSE] - self._neutral[POSE]
        motion[:, POSE] += (config.head_motion * gain["head"] - 1) * pose
        for axis, name in enumerate(("pitch", "yaw", "roll"), start=POSE.start):
            motion[:, axis] += self._curve(name, seconds)[:, 0]
        return self._blinked(motion, start)

    def _curve(self, name: str, seconds: Tensor) -> Tensor:
        return self._timeline.curve(name, seconds).float()[:, None]

    def _blinked(self, motion: Tensor, start: int) -> Tensor:
        stop = start + len(motion)
        starts = [*self._asked, *(self._blinks(stop) if self._blinks else ())]
        closed = closure(starts, start, len(motion))[:, None]
        if not closed.any():
            return motion
        lids = decode(motion[:, EXPRESSION] - self._neutral[EXPRESSION])[:, LIDS]
        return _with_lids(motion, closed * (CLOSED_LID - lids).clamp(min=0))

    def _hold(self, motion: Tensor, start: int) -> Tensor:
        if not self._timeline.asking("hold"):
            return motion
        shares = self._timeline.shares("hold", self._seconds(start, len(motion)), None)
        for at, share in shares.items():
            if at is not None:
                frame = self._held.setdefault(at, motion[int((share > 0).int().argmax())])
                motion = torch.lerp(motion, frame, share.to(motion)[:, None])
        return motion


def _with_lids(motion: Tensor, moved: Tensor) -> Tensor:
    """Motion (n, 70) whose lids go further down by these units (n, 2)."""
    articulators = torch.zeros(len(motion), len(ARTICULATORS)).to(motion)
    articulators[:, LIDS] = moved
    motion = motion.clone()
    motion[:, EXPRESSION] += encode(articulators)
    return motion


def _with_neighbours(
    pieces: Iterable[Tensor], reach: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows before, rows, rows after) of consecutive pieces, `reach` rows beside but at the ends.

    All rows come once as the middle ones, as soon as those after them are there.
    """
    empty = torch.empty(0, MOTION_DIM)
    if not reach:
        for piece in pieces:
            yield empty, piece, empty
        return
    before, waiting = empty, empty
    for piece in pieces:
        waiting = torch.cat((waiting, piece))
        if len(waiting) > reach:
            ready, waiting = waiting[:-reach], waiting[-reach:]
            yield before, ready, waiting
            before = torch.cat((before, ready))[-reach:]
    if len(waiting):
        yield before, waiting, empty
