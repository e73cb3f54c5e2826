"""From noise to motion: noise levels, Euler steps, overlapping windows, smoothing.

Knows a velocity function, never a network. Everything is in normalised motion z.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

POSE_CHANNELS = slice(63, 70)  # what the release smooths: scale, translation, angles

Velocity = Callable[[Tensor, float], Tensor]  # (z, sigma) -> noise - motion, shaped like z
CountFrames = Callable[[int], int]  # how many of the first N frames there are


def euler_sigmas(steps: int, last: float | None = 1e-3) -> list[float]:
    """Noise levels: `steps` points from 1 down to `last`, then 0. One network call per step.

    last: the release's; None makes all steps of one size.
    """
    return [*torch.linspace(1.0, last or 1 / steps, steps).tolist(), 0.0]


@torch.inference_mode()
def sample_euler(velocity: Velocity, z: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Integrate dz/dsigma = velocity(z, sigma). z: (B, T, 70) noise in, normalised motion out."""
    for sigma, sigma_next in pairwise(sigmas):
        z = z + (sigma_next - sigma) * velocity(z, sigma)
    return z


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
) -> Iterator[list[tuple[int, Tensor, bool]]]:
    """Sample clips side by side, a window of each at a time; they end when they end.

    Yields (clip, its normalised motion (1, n, 70) that is final, on the CPU, whether the clip is
    over) of each that had a window. velocity_of(clips) is that of their windows, in this order;
    draw_noise(clip) gives the noise (1, window, 70) of the clip's next window.
    """
    while going := [number for number, clip in enumerate(clips) if not clip.over]:
        velocity = velocity_of(going)
        z = sample_euler(velocity, torch.cat([draw_noise(number) for number in going]), sigmas)
        pieces = [clips[number].settle(z[row, None]).cpu() for row, number in enumerate(going)]
        yield [(k, piece, clips[k].over) for k, piece in zip(going, pieces, strict=True)]
