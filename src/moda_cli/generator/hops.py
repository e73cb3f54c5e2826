"""Motion a few frames at a time: windows that go on from the motion before them.

A window is the frames that are known, the new ones, and some to come whose sound is heard as well,
so that lips get ready for it; these are made again by the next window. Where sound is known further
ahead, as of a text that was spoken faster than it is shown, a window may hear that too. What a
frame is sampled from is drawn once, whatever windows it lies in: so they agree on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from moda_cli.config import FPS, ModelConfig, SamplerConfig
from moda_cli.errors import UsageError
from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.sampler import euler_sigmas, smooth_pose
from moda_cli.generator.takes import Start, frame_noise, physical
from moda_cli.media.waves import Wave, num_frames
from moda_cli.motion import MOUTH_CHANNELS

MENDED = 7  # frames over which a window is led from where its predecessor ended to its own way
COMING = 10  # frames beyond a hop that are heard where they are known: lips gain little of more
NOTHING: Wave = np.zeros(0, np.float32)

Shares = Callable[[int, int], Mapping[int, Tensor]]  # (first frame, frames) -> (frames,) by emotion


class Ear(Protocol):
    """What a model hears of a sound that is pushed; some of it can be taken back."""

    def push(self, frames: Wave) -> None:
        """The samples of the next frames (n * 640,)."""

    def take_back(self, frames: int) -> None:
        """Forget the last frames, as if others were pushed in their place."""

    def last(self, length: int) -> Tensor:
        """Features (length, layers, channels) of the last frames."""


@dataclass(frozen=True, slots=True)
class Hop:
    """How far a window goes beyond what is known: its new frames, and frames to come."""

    new: int = 4
    ahead: int = 2
    work_s: float = 0.11  # for its motion and its first picture to be made

    @classmethod
    def of(cls, model: MotionGenerator) -> Self:
        """What suits a model: one that makes long windows alone makes more frames at a time."""
        if not model.network.config.known:
            return cls(new=8)
        return cls(new=3, work_s=0.08) if model.device.type == "cuda" else cls()

    @property
    def delay_s(self) -> float:
        """From a sound's time to the frame that shows it."""
        return (self.new + self.ahead) / FPS + self.work_s

    def known(self, shape: ModelConfig, coming: int = 0) -> int:
        """Frames at a window's start whose motion is known; coming: heard beyond those ahead.

        As many as the model may be told (`ModelConfig.known`). Other models' windows are always as
        long as they were trained, and slide: what they share with the motion before is led to it.
        Raises UsageError for windows that are shorter than a hop.
        """
        known = shape.known or shape.window - self.new - self.ahead - coming
        if known < 1:
            frames = self.new + self.ahead
            raise UsageError(
                f"windows of {shape.window} frames are too short to answer while somebody speaks",
                hint=f"take mini, moda, or a model whose windows have more than {frames}",
            )
        return known


class HopSampler:
    """The motion of one face, (hop.new) frames at every call; it begins at its start.

    coming: frames beyond those of the hop whose sound it can hear where that is known.
    """

    def __init__(
        self,
        model: MotionGenerator,
        config: SamplerConfig,
        hop: Hop,
        start: Start,
        ear: Callable[[int], Ear],
        lips: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        """ear(frames) is one that has heard so many silent frames.

        lips(z) does what is to be done with new frames (n, 70), normalised. Raises UsageError for
        windows that are shorter than a hop.
        """
        self.hop = hop
        self._model, self._shape, self._start, self._lips = model, model.network.config, start, lips
        self._known = hop.known(self._shape)  # at most
        self.coming = COMING if self._shape.known else min(COMING, self._known - 1)
        self.ear = ear(self._known + hop.ahead)
        self._sigmas = euler_sigmas(config.steps or self._shape.steps, self._shape.last_sigma)
        live = self._shape
        if live.audio_scale_live is not None:
            live = replace(live, audio_scale=live.audio_scale_live)
        self._terms = guidance_terms(config, live)
        self._generator = torch.Generator().manual_seed(config.seed)
        fade = (1 - torch.arange(1, MENDED + 1) / MENDED)[:, None]
        still = torch.ones(self._shape.motion_dim)
        still[list(MOUTH_CHANNELS)] = 0  # lips are the sound's
        self._fade = (fade * still).to(model.device)
        self._made = start.prev.repeat(self._known + 1, 1)  # (known + 1, 70) normalised
        # of the known frames, then of those to come
        self._noise = frame_noise(self._shape, self._known, self._generator)

    @torch.inference_mode()
    def step(self, wave: Wave, shares: Shares, coming: Wave = NOTHING) -> Tensor:
        """The next frames (new, 70), physical.

        wave: (640 new,) the sound up to the last frame ahead; coming: (640 n,) what follows it, n
        frames that are `self.coming` at most. shares(first, count): the share (count,) of each
        emotion in frames from `first` on, counted from the first new one.
        """
        model, extra = self._model, num_frames(len(coming))
        known = self.hop.known(self._shape, extra)
        window = known + self.hop.new + self.hop.ahead + extra
        self.ear.push(np.concatenate((wave, coming)))
        audio = self.ear.last(window)
        self.ear.take_back(extra)
        told = self._made[-known - 1 :]
        prev = told[:1]
        if self._shape.known:
            prev = told[torch.arange(1, window + 1).clamp(max=known)]
        device = model.device
        evaluated = Window(
            audio.to(device),
            shares(-known, window),
            self._start.identity.to(device),
            prev.to(device),
            self._terms,
        )
        velocity = guided_velocity(model.network, [evaluated], self._sigmas, model.forward)
        noise, given = self._noise_of(known, window).to(device), told[None, 1:].to(device)
        z = noise
        for sigma, after in pairwise(self._sigmas):
            z = z + (after - sigma) * velocity(z, sigma)
            off = given[:, -1:] - z[:, known - 1 : known]
            z[:, :known] = (1 - after) * given + after * noise[:, :known]
        mended = min(MENDED, window - known)
        z[:, known : known + mended] += self._fade[:mended] * off
        new = smooth_pose(smooth_pose(z))[0, known : known + self.hop.new].cpu()  # as of a file
        self._made = torch.cat((self._made, new))[-self._known - 1 :]
        self._noise = self._noise[self.hop.new :]
        return physical(model, self._lips(new), self._start)

    def _noise_of(self, known: int, window: int) -> Tensor:
        """What a window's frames are sampled from (1, window, 70)."""
        first = self._known - known
        missing = max(0, first + window - len(self._noise))
        more = frame_noise(self._shape, missing, self._generator)
        self._noise = torch.cat((self._noise, more))
        return self._noise[None, first : first + window]
