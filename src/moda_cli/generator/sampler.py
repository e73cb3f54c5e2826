"""From noise to motion: noise levels, guidance, Euler steps, overlapping windows, smoothing.

Knows a velocity function, never a network. Everything is in normalised motion z.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from moda_cli.config import ModelConfig, SamplerConfig

POSE_CHANNELS = slice(63, 70)  # what the release smooths: scale, translation, angles

Velocity = Callable[[Tensor, float], Tensor]  # (z, sigma) -> noise - motion, shaped like z
CountFrames = Callable[[int], int]  # how many of the first N frames there are


def euler_sigmas(steps: int) -> list[float]:
    """Noise levels: `steps` points from 1 down to 0.001, then 0. One network call per step."""
    return [*torch.linspace(1.0, 1e-3, steps).tolist(), 0.0]


@torch.inference_mode()
def sample_euler(velocity: Velocity, z: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Integrate dz/dsigma = velocity(z, sigma). z: (B, T, 70) noise in, normalised motion out."""
    for sigma, sigma_next in pairwise(sigmas):
        z = z + (sigma_next - sigma) * velocity(z, sigma)
    return z


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


def smooth_pose(z: Tensor) -> Tensor:
    """Centred mean of 3 frames (2 at the ends) of scale, translation and angles. z: (B, T, 70)."""
    pose = z[..., POSE_CHANNELS]
    total, count = pose.clone(), torch.ones(z.shape[-2], 1)
    total[..., 1:, :] += pose[..., :-1, :]
    total[..., :-1, :] += pose[..., 1:, :]
    count[1:] += 1
    count[:-1] += 1
    return torch.cat((z[..., : POSE_CHANNELS.start], total / count.to(z)), dim=-1)


def cross_fade(old: Tensor, new: Tensor) -> Tensor:
    """Blend (B, n, 70) overlaps: the first frame is all old, no frame is all new."""
    weight = torch.arange(old.shape[-2]).to(old)[:, None] / old.shape[-2]
    return (1 - weight) * old + weight * new


class Windows:
    """The overlapping windows of one clip in turn, and its motion as soon as it is final.

    As in the release: pose smoothing per window, the next window's `prev` is the smoothed frame
    just before it, overlaps cross-fade, and the whole clip's pose is smoothed again (one frame
    late here). prev: (1, 1, 70) normalised, the frame before the first. Where sound is still
    arriving, num_frames(stop) says how many of the first `stop` frames there are; it is asked of no
    more than a frame beyond the window.
    """

    def __init__(
        self, num_frames: int | CountFrames, prev: Tensor, *, window: int = 80, overlap: int = 16
    ) -> None:
        self.start = 0  # the frame at which the next window starts
        self.prev = prev  # (1, 1, 70) the frame before it
        self.over = False
        self._frames_to = num_frames if callable(num_frames) else partial(min, num_frames)
        self._window, self._overlap = window, overlap
        self._fading: Tensor | None = None  # the end of the last window, to blend with the next
        self._waiting = prev[:, :0]  # blended frames that still wait for a neighbour
        self._context = 0  # frames of `_waiting` that are out already

    def settle(self, z: Tensor) -> Tensor:
        """Take what was sampled for the next window (1, window, 70); what is final (1, n, 70)."""
        step, overlap = self._window - self._overlap, self._overlap
        z = smooth_pose(z)
        self.prev = z[:, step - 1 : step]
        z = z[:, : self._frames_to(self.start + self._window) - self.start]
        if self._fading is not None:
            z = torch.cat((cross_fade(self._fading, z[:, :overlap]), z[:, overlap:]), dim=1)
        self.start += step
        self.over = self._frames_to(self.start + overlap + 1) <= self.start + overlap
        settled = z if self.over else z[:, :step]
        self._fading = z[:, step:]
        waiting = torch.cat((self._waiting, settled), dim=1)
        final = smooth_pose(waiting)[:, self._context : None if self.over else -1]
        self._waiting, self._context = waiting[:, -2:], 1
        return final


@torch.inference_mode()
def sample_windows(
    velocity_of: Callable[[Sequence[int]], Velocity],
    clips: Sequence[Windows],
    sigmas: Sequence[float],
    draw_noise: Callable[[int], Tensor],
) -> Iterator[list[tuple[int, Tensor]]]:
    """Sample clips side by side, a window of each at a time; they end when they end.

    Yields (clip, its normalised motion (1, n, 70) that is final) of each clip that had a window.
    velocity_of(clips) is that of their windows, in this order; draw_noise(clip) gives the noise
    (1, window, 70) of the clip's next window.
    """
    while going := [number for number, clip in enumerate(clips) if not clip.over]:
        velocity = velocity_of(going)
        z = sample_euler(velocity, torch.cat([draw_noise(number) for number in going]), sigmas)
        yield [(number, clips[number].settle(z[row, None])) for row, number in enumerate(going)]


def modulate_lips(z: Tensor, reference: Tensor, lips: Sequence[int]) -> Tensor:
    """Widen lip motion away from its resting frame, as the release does.

    z: (T, 70); reference: (70) a frame of silence; lips: the lip keypoints. With q_t the squared
    distance of frame t's lip numbers from the reference, they move away from it by
    1 + (sigmoid(5 q_t) - 0.5) / (0.1 max q + 0.05).
    """
    return _widen(z, reference, lips, _lip_distance(z, reference, lips).max())


def modulate_lips_live(
    pieces: Iterable[Tensor], reference: Tensor, lips: Sequence[int]
) -> Iterator[Tensor]:
    """The same of motion (n, 70) as it comes: max q is that of the frames so far."""
    peak = torch.zeros(1)
    for z in pieces:
        peaks = torch.cat((peak, _lip_distance(z, reference, lips))).cummax(dim=0).values
        yield _widen(z, reference, lips, peaks[1:, None])
        peak = peaks[-1:]


def _lip_channels(lips: Sequence[int]) -> Tensor:
    return torch.tensor([3 * keypoint + axis for keypoint in lips for axis in range(3)])


def _lip_distance(z: Tensor, reference: Tensor, lips: Sequence[int]) -> Tensor:
    """q (T)."""
    return (z - reference)[:, _lip_channels(lips)].square().sum(dim=-1)


def _widen(z: Tensor, reference: Tensor, lips: Sequence[int], peak: Tensor) -> Tensor:
    channels = _lip_channels(lips)
    q = _lip_distance(z, reference, lips)[:, None]
    gain = 1 + (torch.sigmoid(5 * q) - 0.5) / (0.1 * peak + 0.05)
    z = z.clone()
    z[:, channels] = reference[channels] + (z[:, channels] - reference[channels]) * gain
    return z
