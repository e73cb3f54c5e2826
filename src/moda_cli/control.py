"""What is asked for when, such as `0:neutral,2.5:happy`, and what is done to motion."""

import torch
from torch import Tensor

from moda_cli.config import EMOTION_ALIASES, EMOTIONS, FPS, RenderConfig
from moda_cli.errors import UsageError
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode, encode

FADE_S = 0.4  # a change of class is blended over this long, centred on its moment

Timeline = tuple[tuple[float, int], ...]  # (from this second on, class), the first from 0


def parse_emotion(text: str) -> Timeline:
    """The timeline a user wrote.

    Raises UsageError for an unknown class, or for times that are not ascending from 0.
    """
    hint = f"use one of {', '.join(EMOTIONS)}, or a timeline such as 0:neutral,2.5:happy"
    timeline: list[tuple[float, int]] = []
    for part in text.split(","):
        at, _, name = part.strip().rpartition(":")
        name = EMOTION_ALIASES.get(name.strip().lower(), name.strip().lower())
        if name not in EMOTIONS:
            raise UsageError(f"unknown emotion {name!r} in --emotion {text!r}", hint=hint)
        try:
            seconds = float(at) if at else 0.0
        except ValueError:
            raise UsageError(f"{at!r} in --emotion {text!r} is not a time", hint=hint) from None
        if not seconds >= 0 or (timeline and not seconds > timeline[-1][0]):
            raise UsageError(f"the times in --emotion {text!r} do not ascend", hint=hint)
        timeline.append((seconds, EMOTIONS.index(name)))
    return ((0.0, timeline[0][1]), *timeline[1:])


def emotion_shares(timeline: Timeline, start: int, length: int) -> dict[int, Tensor]:
    """Share (length,) of each class in frames [start, start + length); shares sum to 1."""
    seconds = torch.arange(start, start + length) / FPS
    reached = [torch.ones(length)]
    reached += [((seconds - at) / FADE_S + 0.5).clamp(0, 1) for at, _ in timeline[1:]]
    shares: dict[int, Tensor] = {}
    for k, (_, label) in enumerate(timeline):
        after = reached[k + 1] if k + 1 < len(timeline) else torch.zeros(length)
        shares[label] = shares.get(label, torch.zeros(length)) + reached[k] * (1 - after)
    total = torch.stack(list(shares.values())).sum(dim=0)
    return {label: share / total for label, share in shares.items() if share.any()}


def edit_motion(motion: Tensor, neutral: Tensor, config: RenderConfig) -> Tensor:
    """Motion (T, 70) with head motion, expression and blinks as the user wants them."""
    motion = motion.clone()
    expression = motion[:, EXPRESSION] - neutral[EXPRESSION]
    if not config.blink:
        lids = decode(expression)
        lids[:, [k for k, name in enumerate(ARTICULATORS) if not name.startswith("lid")]] = 0
        expression = expression - encode(lids)
    if config.expression_scale != 1 or not config.blink:
        motion[:, EXPRESSION] = neutral[EXPRESSION] + config.expression_scale * expression
    if config.head_motion != 1:
        motion[:, POSE] = neutral[POSE] + config.head_motion * (motion[:, POSE] - neutral[POSE])
    return motion
