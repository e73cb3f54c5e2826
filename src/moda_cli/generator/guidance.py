"""Guidance: which network evaluations make a window's velocity, and that velocity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moda_cli.config import NO_EMOTION, ModelConfig, SamplerConfig
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.sampler import Velocity


@dataclass(frozen=True, slots=True)
class Term:
    """One network evaluation of a guided velocity: its weight and the conditions it keeps."""

    weight: float
    audio: bool = True
    emotion: bool = True


def guidance_terms(config: SamplerConfig, model: ModelConfig) -> list[Term]:
    """The velocity as a weighted sum of network evaluations; the weights sum to 1.

    Joint, as the release: v_null + S (v_full - v_null). With a per-condition scale, paper Eq. 8:
    v_full + (a - 1)(v_full - v_no_audio) + (e - 1)(v_full - v_no_emotion). What `config` leaves
    open is the model's.
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
    return [
        Term(1 - audio, audio=False),
        Term(1 - emotion, emotion=False),
        Term(audio + emotion - 1),
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """What a window's motion depends on, beside its noise."""

    audio: Tensor  # (N, layers, channels)
    emotions: Mapping[int, Tensor]  # the share (N,) of each class; shares sum to 1 in every frame
    identity: Tensor  # (63)
    prev: Tensor  # (1, 70) normalised, the frame before
    terms: Sequence[Term]  # the guidance


def guided_velocity(
    network: MMDiT,
    windows: Sequence[Window],
    sigmas: Sequence[float],
    forward: Callable[..., Tensor] | None = None,
) -> Velocity:
    """The guided velocity of B windows at these noise levels, all evaluations in one batch.

    An emotion timeline blends the velocities of its classes. What does not change from step to
    step is computed here, once. forward: the network's own, or a faster equal.
    """
    forward = forward or network
    evaluations = [_evaluations(window) for window in windows]
    counts = [len(own) for own in evaluations]
    kept, labels, weights = zip(*(each for own in evaluations for each in own), strict=True)
    device = windows[0].audio.device
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    at = torch.tensor(rows, device=device)  # the window of each evaluation

    heard = torch.stack([window.audio for window in windows])[at]
    keep = torch.tensor(kept, device=device)[:, None, None, None]
    given = network.embed(
        torch.where(keep, heard, network.null_features(heard)),
        torch.tensor(labels, device=device),
        torch.stack([window.identity for window in windows])[at],
    )
    prev = torch.stack([window.prev for window in windows])[at]
    weight = torch.stack(weights).to(heard)[..., None]  # (evaluations, N, 1)
    timesteps = 1000 * torch.tensor(sigmas, device=device)
    adaln = dict(zip(sigmas, network.schedule(timesteps, given).unbind(), strict=True))

    def velocity(z: Tensor, sigma: float) -> Tensor:
        each = weight * forward(z[at], prev, adaln[sigma], given)
        return torch.stack([own.sum(dim=0) for own in each.split(counts)])

    return velocity


def _evaluations(window: Window) -> list[tuple[bool, int, Tensor]]:
    """A window's network evaluations: audio kept, emotion class, weight (N,)."""
    weights: dict[tuple[bool, int], Tensor] = {}
    for label, share in window.emotions.items():
        for term in window.terms:
            key = (term.audio, label if term.emotion else NO_EMOTION)
            weights[key] = weights.get(key, torch.zeros_like(share)) + term.weight * share
    return [(*key, weight) for key, weight in weights.items() if weight.any()]
