"""ALSE, the sync expert: how well lips and sound of the same moments belong together.

The paper's inner design is in a supplement that was not available. Ours: two towers over short
windows, one for the lip keypoints' offsets and one for audio features, trained by cosine
similarity on in-sync against shifted pairs.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.errors import WeightsError
from moda_cli.files import parse_json
from moda_cli.motion import EPS, LIP_KEYPOINTS, Stats
from moda_cli.train.presets import SyncConfig
from moda_cli.weights.state import load_strict

KERNEL = 5  # frames
LIPS = tuple(3 * keypoint + axis for keypoint in LIP_KEYPOINTS for axis in range(3))
IN_STEP = 2  # frames up to which a shift may still look in sync


class Tower(nn.Module):
    """Convolutions over time; every output frame has seen `depth` * 4 + 1 input frames."""

    def __init__(self, in_dim: int, config: SyncConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(in_dim, config.hidden_dim)
        self.convs = nn.ModuleList(
            nn.Conv1d(config.hidden_dim, config.hidden_dim, KERNEL) for _ in range(config.depth)
        )
        self.head = nn.Linear(config.hidden_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> unit vectors (B, T - 4 depth, E)."""
        x = self.proj(x).transpose(1, 2)
        for conv in self.convs:
            x = conv(F.gelu(x))
        return F.normalize(self.head(F.gelu(x).transpose(1, 2)).float(), dim=-1)


class SyncExpert(nn.Module):
    """Both towers, with the statistics of the lips they were trained on."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.config = config
        self.lip_tower = Tower(len(LIPS), config)
        self.audio_tower = Tower(config.audio_layers * config.audio_dim, config)
        self.register_buffer("lip_mean", torch.zeros(len(LIPS)))
        self.register_buffer("lip_gain", torch.zeros(len(LIPS)))

    def calibrate(self, stats: Stats) -> None:
        """Take the lips' statistics; a lip channel that never moved is not looked at."""
        lips = list(LIPS)
        self.lip_mean = stats.mean[lips].clone()
        self.lip_gain = (stats.std[lips] > 0) / (stats.std[lips] + EPS)

    def forward(self, motion: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of lips and of sound, (B, N, E) each, one per short window.

        motion: (B, T, 70) physical; audio: (B, T, layers, channels).
        """
        lips = (motion[..., LIPS] - self.lip_mean) * self.lip_gain
        return self.lip_tower(lips), self.audio_tower(audio.float().flatten(-2))

    @classmethod
    def load(cls, directory: Path) -> "SyncExpert":
        """Read a run of `moda train --config alse`, frozen, on the CPU. Raises WeightsError."""
        try:
            config = SyncConfig(**parse_json((directory / "config.json").read_text()))
            state = load_file(directory / "model.safetensors")
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise WeightsError(
                f"{directory} is not a sync expert: {error}",
                hint="train one: moda train FEATURES --config alse -o RUN",
            ) from None
        with torch.device("meta"):
            expert = cls(config)
        load_strict(expert, state, str(directory / "model.safetensors"))
        return expert.requires_grad_(False).eval()


def expert_loss(lips: Tensor, sound: Tensor) -> Tensor:
    """What the expert is trained on: 1 - cos in sync, plus max(0, cos) at every other shift.

    lips, sound: (B, N, E) unit vectors. Shifts are all of more than two frames within the sample.
    """
    cosine = lips @ sound.mT  # (B, N, N)
    frame = torch.arange(cosine.shape[-1], device=cosine.device)
    shifted = (frame[:, None] - frame).abs() > IN_STEP
    in_sync = cosine.diagonal(dim1=-2, dim2=-1)
    wrong = (cosine.clamp(min=0) * shifted).sum(dim=(-1, -2)) / shifted.sum()
    return (1 - in_sync).mean() + wrong.mean()


def sync_loss(lips: Tensor, sound: Tensor) -> Tensor:
    """L_ALSE of every sample (B,): the mean of 1 - cos over its short windows."""
    return (1 - (lips * sound).sum(dim=-1)).mean(dim=-1)


def gate_loss(loss: Tensor, threshold: float) -> Tensor:
    """lambda_sync L_ALSE (Eq. 7): the loss (B,) where it is below the threshold, else 0.

    The gate is taken per sample, so that it does not depend on how a batch is spread over
    processes.
    """
    return torch.where(loss < threshold, loss, 0.0)
