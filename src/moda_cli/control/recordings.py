"""What can be done to recorded motion: scale, smooth, concat, retime, mix.

Each takes and returns a `Recording`, which `save_motion` writes and `--motion` renders.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from moda_cli.config import FPS, PARTS
from moda_cli.errors import UsageError, did_you_mean
from moda_cli.motion import (
    ARTICULATORS,
    EXPRESSION,
    MOTION_DIM,
    MOUTH_CHANNELS,
    POSE,
    SCALE,
    Recording,
    decode,
    encode,
    resample,
)

SPOKEN = [ARTICULATORS.index(name) for name in ("jaw", "spread", "round")]
SIDEWAYS = [3 * 11, 3 * 15]  # what of an expression turns the eyes, see `motion.encode_gaze`
SPEEDS = (0.1, 10.0)


def parse_take(text: str) -> tuple[str, ...]:
    """The parts that a text names, `lips,head`, in the order of PARTS.

    Raises UsageError for one that there is not, and for none.
    """
    named = text.replace(",", " ").split()
    for name in named or [text]:
        if name not in PARTS:
            hint = did_you_mean(name, PARTS, f"parts are {', '.join(PARTS)}")
            raise UsageError(f"take {name!r} is none of {', '.join(PARTS)}", hint=hint)
    return tuple(part for part in PARTS if part in named)


def spoken_part(expression: Tensor) -> Tensor:
    """What of expression offsets from a neutral (..., 63) speaking makes: the mouth but its smile.

    The smile, brows and lids reach into the mouth's keypoints; that is not taken along.
    """
    others = decode(expression)
    others[..., SPOKEN] = 0
    part = torch.zeros_like(expression)
    mouth = list(MOUTH_CHANNELS)
    part[..., mouth] = (expression - encode(others))[..., mouth]
    return part


def blend(motion: Tensor, other: Tensor, neutral: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Motion (T, 70) with a share of another's (T, 70) in each part; both leave one neutral (70).

    weights: by part, (T), 0 keeps the motion's own.
    """
    made = motion.clone()
    if "head" in weights:
        made[:, SCALE.start :] = torch.lerp(
            motion[:, SCALE.start :], other[:, SCALE.start :], weights["head"][:, None]
        )
    own, others = (each[:, EXPRESSION] - neutral[EXPRESSION] for each in (motion, other))
    spoken, spoken_others = spoken_part(own), spoken_part(others)
    still = (others - spoken_others) - (own - spoken)
    looks = torch.zeros_like(still)
    looks[:, SIDEWAYS] = still[:, SIDEWAYS]
    parts = {"lips": spoken_others - spoken, "face": still - looks, "gaze": looks}
    for name in set(weights) & set(parts):
        made[:, EXPRESSION] += weights[name][:, None] * parts[name]
    return made


def rebased(motion: Tensor, neutral: Tensor, onto: Tensor) -> Tensor:
    """Motion (T, 70) that leaves another neutral (70): the same offsets, its size in proportion."""
    moved = motion - neutral + onto
    moved[:, SCALE] = motion[:, SCALE] * (onto[SCALE] / neutral[SCALE])
    return moved


def evened(motion: Tensor, seconds: float) -> Tensor:
    """Rows (T, n) at 25 fps smoothed by a Gaussian of this deviation, centred, ends continued."""
    width = seconds * FPS
    reach = smoothing_reach(seconds)
    if not reach:
        return motion
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / width) ** 2)
    kernel = (kernel / kernel.sum()).to(motion)
    padded = torch.cat((motion[:1].expand(reach, -1), motion, motion[-1:].expand(reach, -1)))
    return F.conv1d(padded.T[:, None], kernel[None, None])[:, 0].T.contiguous()


def smoothing_reach(seconds: float) -> int:
    """Frames on either side that `evened` looks at."""
    return math.ceil(3 * seconds * FPS)


def scale(
    recording: Recording, *, lips: float = 1.0, face: float = 1.0, head: float = 1.0
) -> Recording:
    """How far speech moves the mouth, the rest of the face, and the head, multiplied."""
    neutral, motion = recording.neutral, recording.motion.clone()
    expression = motion[:, EXPRESSION] - neutral[EXPRESSION]
    spoken = spoken_part(expression)
    motion[:, EXPRESSION] += (lips - 1) * spoken + (face - 1) * (expression - spoken)
    motion[:, POSE] += (head - 1) * (motion[:, POSE] - neutral[POSE])
    return Recording(motion, neutral, recording.absolute, recording.gaze)


def smooth(recording: Recording, seconds: float) -> Recording:
    """Evened out by a Gaussian of this standard deviation, without lag; gaze stays as it is.

    Raises UsageError for a negative time.
    """
    if not 0 <= seconds < math.inf:
        raise UsageError(f"{seconds} s is no time to smooth over", hint="give 0 or more")
    motion = evened(recording.motion, seconds)
    return Recording(motion, recording.neutral, recording.absolute, recording.gaze)


def concat(recordings: Iterable[Recording], fade: float = 0.4) -> Recording:
    """One after another, each blended into the next over `fade` seconds that they share.

    The neutral is the first's; the others' motion leaves it as it left their own. Raises UsageError
    for none at all.
    """
    first, *others = recordings or (None,)
    if first is None:
        raise UsageError("there is no motion to join", hint="give at least one recording")
    rows, absolute = _rows(first), first.absolute
    for other in others:
        joined = _rows(other, first.neutral)
        shared = min(round(fade * FPS), len(rows), len(joined))
        share = (torch.arange(shared) + 1)[:, None] / (shared + 1)
        share = share * share * (3 - 2 * share)
        faded = torch.lerp(rows[len(rows) - shared :], joined[:shared], share)
        rows = torch.cat((rows[: len(rows) - shared], faded, joined[shared:]))
        absolute = absolute and other.absolute
    return _recording(rows, first.neutral, absolute)


def retime(recording: Recording, speed: float) -> Recording:
    """Played `speed` times as fast. Raises UsageError for a speed that is not in 0.1-10."""
    low, high = SPEEDS
    if not low <= speed <= high:
        raise UsageError(f"speed {speed} is not in {low:g}-{high:g}")
    rows = torch.cat(list(resample([_rows(recording)], FPS, FPS * speed)))
    return _recording(rows, recording.neutral, recording.absolute)


def mix(
    recording: Recording,
    other: Recording,
    share: float = 1.0,
    take: Iterable[str] = PARTS,
) -> Recording:
    """A share of the other's motion in the parts that are taken; as long as the shorter.

    take: of `lips`, `face`, `head` and `gaze`. Raises UsageError for another part.
    """
    taken = parse_take(" ".join(take))
    count = min(len(recording.motion), len(other.motion))
    own, others = _rows(recording)[:count], _rows(other, recording.neutral)[:count]
    weights = dict.fromkeys(taken, torch.full((count,), float(share)))
    made = blend(own[:, :MOTION_DIM], others[:, :MOTION_DIM], recording.neutral, weights)
    gaze = own[:, MOTION_DIM:]
    if "gaze" in taken:
        gaze = torch.lerp(gaze, others[:, MOTION_DIM:], float(share))
    return _recording(torch.cat((made, gaze), dim=1), recording.neutral, recording.absolute)


def _rows(recording: Recording, onto: Tensor | None = None) -> Tensor:
    """Motion and gaze side by side (T, 72), leaving another neutral (70) where one is given."""
    motion, gaze = recording.motion, recording.gaze
    if onto is not None:
        motion = rebased(motion, recording.neutral, onto)
    return torch.cat((motion, torch.zeros(len(motion), 2) if gaze is None else gaze), dim=1)


def _recording(rows: Tensor, neutral: Tensor, absolute: bool) -> Recording:
    gaze = rows[:, MOTION_DIM:]
    looks = gaze if gaze.any() else None
    return Recording(rows[:, :MOTION_DIM].contiguous(), neutral, absolute, looks)
