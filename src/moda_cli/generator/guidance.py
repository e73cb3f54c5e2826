"""Guidance: which network evaluations make a window's velocity, and that velocity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from moda_cli.config import NO_EMOTION, ModelConfig, SamplerConfig
from moda_cli.generator.mmdit import Conditions, MMDiT
from moda_cli.generator.sampler import Velocity
from moda_cli.motion import MOTION_DIM, MOUTH_CHANNELS


@dataclass(frozen=True, slots=True)
class Term:
    """One network evaluation of a guided velocity: its weight and the conditions it keeps.

    It counts at noise levels from `above` on, and in all channels or the mouth's.
    """

    weight: float
    audio: bool = True
    emotion: bool = True
    above: float = 0.0
    mouth: bool = False


def guidance_terms(config: SamplerConfig, model: ModelConfig) -> list[Term]:
    """The velocity as a weighted sum of network evaluations; the weights sum to 1.

    Joint, as the release: v_null + S (v_full - v_null). With a per-condition scale, paper Eq. 8:
    v_full + (a - 1)(v_full - v_no_audio) + (e - 1)(v_full - v_no_emotion). What `config` leaves
    open is the model's, and where the audio's part counts.
    """
    scales = (config.audio_scale, config.emotion_scale)
    joint = config.guidance
    if joint is None and scales == (None, None):
        joint = model.guidance
    if joint is not None:
        return [Term(1 - joint, audio=False, emotion=False), Term(joint)]
    audio, emotion = (
        next(scale for scale in candidates if scale is not None)
        for candidates in (
            (config.audio_scale, model.audio_scale, 1.0),
            (config.emotion_scale, 1.0),
        )
    )
    above, mouth = model.audio_scale_above, model.audio_scale_mouth
    return [
        Term(1 - audio, audio=False, above=above, mouth=mouth),
        Term(audio - 1, above=above, mouth=mouth),
        Term(1 - emotion, emotion=False),
        Term(emotion),
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """What a window's motion depends on, beside its noise."""

    audio: Tensor  # (N, layers, channels)
    emotions: Mapping[int, Tensor]  # the share (N,) of each class; shares sum to 1 in every frame
    identity: Tensor  # (63)
    prev: Tensor  # (1, 70) normalised, the frame before
    terms: Sequence[Term]  # the guidance


@dataclass(frozen=True, slots=True)
class _Batch:
    """The network evaluations of B windows at some noise levels."""

    at: Tensor  # (E,) the window of each
    counts: Sequence[int]  # evaluations of each window
    weight: Tensor  # (E, N, 1 or 70)
    prev: Tensor
    given: Conditions
    adaln: Mapping[float, Tensor]  # by noise level


def guided_velocity(
    network: MMDiT,
    windows: Sequence[Window],
    sigmas: Sequence[float],
    forward: Callable[..., Tensor] | None = None,
) -> Velocity:
    """The guided velocity of B windows at a sampler's noise levels, which end with 0.

    All evaluations of a step are one batch. For a model whose solver is of second order it is what
    makes an Euler step Adams-Bashforth's: led on from the step before. forward: the network's own,
    or a faster equal.
    """
    forward = forward or network
    steps = {sigma: after - sigma for sigma, after in pairwise(sigmas)}
    thresholds = {term.above for window in windows for term in window.terms}
    alike: dict[tuple[float, ...], list[float]] = {}  # noise levels at which the same terms count
    for sigma in steps:
        alike.setdefault(tuple(a for a in thresholds if a <= sigma), []).append(sigma)
    batches: dict[float, _Batch] = {}
    for levels in alike.values():
        batches |= dict.fromkeys(levels, _batch(network, windows, levels))
    before: tuple[Tensor, float] | None = None

    def velocity(z: Tensor, sigma: float) -> Tensor:
        nonlocal before
        batch, step = batches[sigma], steps[sigma]
        each = forward(z[batch.at], batch.prev, batch.adaln[sigma], batch.given)
        own = (batch.weight * each).split(batch.counts)
        here = torch.stack([evaluated.sum(dim=0) for evaluated in own])
        led = here + step / before[1] / 2 * (here - before[0]) if before else here
        if network.config.second_order:
            before = here, step
        return led

    return velocity


def _batch(network: MMDiT, windows: Sequence[Window], sigmas: Sequence[float]) -> _Batch:
    """The evaluations at noise levels at which the same terms count, and all that no step changes.

    An emotion timeline blends the velocities of its classes.
    """
    evaluations = [_evaluations(window, sigmas[0]) for window in windows]
    counts = [len(own) for own in evaluations]
    kept, labels, weights = zip(*(each for own in evaluations for each in own), strict=True)
    device = windows[0].audio.device
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    at = torch.tensor(rows, device=device)

    heard = torch.stack([window.audio for window in windows])[at]
    keep = torch.tensor(kept, device=device)[:, None, None, None]
    given = network.embed(
        torch.where(keep, heard, network.null_features(heard)),
        torch.tensor(labels, device=device),
        torch.stack([window.identity for window in windows])[at],
    )
    timesteps = 1000 * torch.tensor(sigmas, device=device)
    return _Batch(
        at,
        counts,
        torch.stack(torch.broadcast_tensors(*weights)).to(heard),
        torch.stack([window.prev for window in windows])[at],
        given,
        dict(zip(sigmas, network.schedule(timesteps, given).unbind(), strict=True)),
    )


def _evaluations(window: Window, sigma: float) -> list[tuple[bool, int, Tensor]]:
    """A window's network evaluations: audio kept, emotion class, weight (N, 1 or 70)."""
    mouth = torch.zeros(MOTION_DIM)
    mouth[list(MOUTH_CHANNELS)] = 1
    weights: dict[tuple[bool, int], Tensor] = {}
    for label, share in window.emotions.items():
        for term in (term for term in window.terms if term.above <= sigma):
            key = (term.audio, label if term.emotion else NO_EMOTION)
            own = term.weight * share[:, None] * (mouth if term.mouth else 1)
            weights[key] = weights.get(key, torch.zeros(1)) + own
    return [(*key, weight) for key, weight in weights.items() if weight.any()]
