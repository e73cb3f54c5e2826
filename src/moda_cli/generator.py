"""The motion generator: a trained MMDiT with its statistics, and its guided velocity."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import NO_EMOTION, ModelConfig
from moda_cli.errors import WeightsError
from moda_cli.model.mmdit import MMDiT
from moda_cli.motion import Stats
from moda_cli.sampler import Term, Velocity
from moda_cli.weights import load_strict


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
