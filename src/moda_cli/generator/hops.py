"""Motion a few frames at a time: short windows that go on from the motion before them.

A window is the frames that are known, the new ones, and some to come whose sound is heard as well,
so that lips get ready for it; these are made again by the next window. What a frame is sampled from
is drawn once, whatever windows it lies in: so they agree on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from moda_cli.config import SamplerConfig
from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.sampler import euler_sigmas, smooth_pose
from moda_cli.generator.takes import frame_noise
from moda_cli.motion import MOUTH_CHANNELS

MENDED = 7  # frames over which a window is led from where its predecessor ended to its own way


@dataclass(frozen=True, slots=True)
class Hop:
    """How far a window goes beyond what is known: its new frames, and frames to come."""

    new: int = 4
    ahead: int = 3


class HopSampler:
    """The motion of one face, (hop.new) frames at every call; it begins at rest.

    For models that may be told the first frames of a window (`ModelConfig.known`).
    """

    def __init__(self, model: MotionGenerator, config: SamplerConfig, hop: Hop) -> None:
        self._model, self._hop, self._shape = model, hop, model.network.config
        self._sigmas = euler_sigmas(config.steps or self._shape.steps, self._shape.last_sigma)
        self._terms = guidance_terms(config, self._shape)
        self._generator = torch.Generator().manual_seed(config.seed)
        rest = model.stats.normalise(model.stats.neutral)
        fade = (1 - torch.arange(1, hop.new + hop.ahead + 1) / MENDED).clamp(min=0)[:, None]
        still = torch.ones(self._shape.motion_dim)
        still[list(MOUTH_CHANNELS)] = 0  # lips are the sound's
        self._fade = (fade * still).to(model.device)
        self._made = rest.repeat(self._shape.known + 1, 1)  # (known + 1, 70) normalised
        # of the known frames, then of those to come
        self._noise = frame_noise(self._shape, self._shape.known, self._generator)

    @property
    def window(self) -> int:
        """Frames whose sound is heard: `ModelConfig.known` before the new ones, and those ahead."""
        return self._shape.known + self._hop.new + self._hop.ahead

    @torch.inference_mode()
    def step(self, audio: Tensor, emotions: Mapping[int, Tensor]) -> Tensor:
        """The next frames (new, 70), physical.

        audio: features of the window (window, layers, channels). emotions: the share (window,) of
        each class.
        """
        model, known = self._model, self._shape.known
        missing = self.window - len(self._noise)
        more = frame_noise(self._shape, missing, self._generator)
        self._noise = torch.cat((self._noise, more))
        told = self._made
        prev = told[torch.arange(1, self.window + 1).clamp(max=known)]
        device = model.device
        window = Window(
            audio.to(device),
            emotions,
            model.stats.identity.to(device),
            prev.to(device),
            self._terms,
        )
        velocity = guided_velocity(model.network, [window], self._sigmas, model.forward)
        noise, given = self._noise[None].to(device), told[None, 1:].to(device)
        z = noise
        for sigma, after in pairwise(self._sigmas):
            z = z + (after - sigma) * velocity(z, sigma)
            off = given[:, -1:] - z[:, known - 1 : known]
            z[:, :known] = (1 - after) * given + after * noise[:, :known]
        z[:, known:] += self._fade * off
        new = smooth_pose(smooth_pose(z))[0, known : known + self._hop.new].cpu()  # as of a file
        self._made = torch.cat((self._made, new))[-known - 1 :]
        self._noise = self._noise[self._hop.new :]
        return model.stats.denormalise(new)
