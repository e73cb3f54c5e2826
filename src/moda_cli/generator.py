"""The motion generator: a trained MMDiT with its statistics, and how it is sampled."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import NO_EMOTION, ModelConfig, SamplerConfig
from moda_cli.emotion import Timeline, emotion_shares
from moda_cli.errors import WeightsError
from moda_cli.features.audio import log_mel, window_features
from moda_cli.model.mmdit import MMDiT
from moda_cli.motion import MOUTH_CHANNELS, Stats
from moda_cli.sampler import Term, Velocity, euler_sigmas, guidance_terms, sample_windows
from moda_cli.weights.state import load_strict

EASE_IN = 10  # frames over which a clip leaves the source picture


@dataclass(frozen=True, slots=True)
class MotionGenerator:
    """A network and the statistics of the motion it was trained on."""

    network: MMDiT
    stats: Stats

    @property
    def device(self) -> torch.device:
        """Where the network is; statistics stay on the CPU."""
        return self.network.null_audio.device

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> "MotionGenerator":
        """Read model.safetensors, config.json and stats.json (decisions.md 2).

        Raises WeightsError where one is missing, corrupt or of another shape.
        """
        try:
            config = ModelConfig(**json.loads((directory / "config.json").read_text()))
            stats = Stats.read(directory / "stats.json")
            state = load_file(directory / "model.safetensors")
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise WeightsError(
                f"{directory} is not a model directory: {error}",
                hint="it needs the model.safetensors, config.json and stats.json of a training run",
            ) from None
        with torch.device("meta"):
            network = MMDiT(config)
        load_strict(network, state, str(directory / "model.safetensors"))
        return cls(network.to(device).eval(), stats)

    def save(self, directory: Path) -> None:
        """Write the model directory, the weights as float16."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(asdict(self.network.config), indent=2))
        self.stats.write(directory / "stats.json")
        state = {name: tensor.half() for name, tensor in self.network.state_dict().items()}
        save_file(state, directory / "model.safetensors")


def guided_velocity(
    network: MMDiT,
    terms: Sequence[Term],
    audio: Tensor,
    emotions: Mapping[int, Tensor],
    identity: Tensor,
    prev: Tensor,
) -> Velocity:
    """The guided velocity of B windows, all evaluations in one batch.

    audio: (B, N, layers, channels). emotions: the share (N,) each class has in each frame; shares
    sum to 1, so a timeline blends the velocities of its classes. identity: (B, 63). prev: (B, 1,
    70) normalised. Raises no error of ours.
    """
    weights: dict[tuple[bool, int], Tensor] = {}  # (audio kept, class) -> (N,)
    for label, share in emotions.items():
        for term in terms:
            key = (term.audio, label if term.emotion else NO_EMOTION)
            weights[key] = weights.get(key, torch.zeros_like(share)) + term.weight * share
    weights = {key: weight for key, weight in weights.items() if weight.any()}

    batch, count = len(audio), len(weights)
    null = network.null_features(audio)
    labels = torch.tensor([label for _, label in weights], device=audio.device)
    given = network.embed(
        torch.cat([audio if kept else null for kept, _ in weights]),
        labels.repeat_interleave(batch),
        identity.repeat(count, 1),
    )
    prev = prev.repeat(count, 1, 1)
    weight = torch.stack(list(weights.values())).to(audio)[:, None, :, None]  # (K, 1, N, 1)

    def velocity(z: Tensor, sigma: float) -> Tensor:
        timestep = torch.full((count * batch,), 1000 * sigma, device=z.device)
        each = network(z.repeat(count, 1, 1), prev, timestep, given)
        guided: Tensor = (weight * each.unflatten(0, (count, batch))).sum(dim=0)
        return guided

    return velocity


def sample_motion(
    model: MotionGenerator,
    wave: NDArray[np.float32],
    timeline: Timeline,
    config: SamplerConfig,
) -> Iterator[Tensor]:
    """Yield physical motion (n, 70) at 25 fps for a 16 kHz wave, one row per 640 samples.

    Windows are causal: each hears the sound up to its own end. The first frame is the model's
    neutral one, and the clip eases out of it.
    """
    shape, device = model.network.config, model.device
    mel = log_mel(wave)
    noise = torch.Generator().manual_seed(config.seed)
    terms = guidance_terms(config, shape)
    temperature = torch.ones(shape.motion_dim)
    temperature[list(MOUTH_CHANNELS)] = shape.lip_noise

    def draw_noise() -> Tensor:
        drawn = torch.randn(1, shape.window, shape.motion_dim, generator=noise)
        return (temperature * drawn).to(device)

    def velocity_at(start: int, prev: Tensor) -> Velocity:
        audio = window_features(mel, start, shape.window)[None].to(device)
        shares = emotion_shares(timeline, start, shape.window)
        identity = model.stats.identity[None].to(device)
        return guided_velocity(model.network, terms, audio, shares, identity, prev)

    pieces = sample_windows(
        velocity_at,
        len(mel),
        model.stats.normalise(model.stats.neutral)[None, None].to(device),
        euler_sigmas(config.steps),
        draw_noise,
        overlap=shape.overlap,
    )
    done = 0
    for z in pieces:
        motion = model.stats.denormalise(z[0].cpu())
        ease = (torch.arange(done, done + len(motion)) / EASE_IN).clamp(max=1)[:, None]
        done += len(motion)
        yield torch.lerp(model.stats.neutral, motion, ease * ease * (3 - 2 * ease))
