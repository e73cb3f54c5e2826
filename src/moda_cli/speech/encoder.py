"""The speech encoder: HuBERT-base or wav2vec2-base, run at 25 frames per second.

Both share this architecture and differ in their weights alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.config import ModelConfig
from moda_cli.weights.load import load_network
from moda_cli.weights.renames.speech import speech_encoder_state

ENCODERS = {"hubert": "speech_encoder", "wav2vec2": "wav2vec2"}  # components, by ModelConfig.audio
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)  # 320 samples in all: 50 vectors per second
POSITION_KERNEL = 128
POSITION_GROUPS = 16


@dataclass(frozen=True, slots=True)
class SpeechEncoderConfig:
    """Shape of the encoder. The defaults are the base models'."""

    conv_dim: int = 512
    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072


class SpeechLayer(nn.Module):
    """Self-attention, then an MLP, each added to its input and normalised."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.attention_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, mlp_dim)
        self.fc2 = nn.Linear(mlp_dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, D / H)
            for project in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.out(mixed))
        return self.mlp_norm(x + self.fc2(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


class SpeechEncoder(nn.Module):
    """Convolutions at 50 vectors per second, interpolated to 25, then a post-norm transformer."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        width, dim = config.conv_dim, config.hidden_dim
        inputs = (1, *(width for _ in KERNELS[1:]))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, width, kernel, stride, bias=False)
            for channels, kernel, stride in zip(inputs, KERNELS, STRIDES, strict=True)
        )
        self.first_norm = nn.GroupNorm(width, width)  # after the first convolution
        self.conv_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, dim)
        self.position = nn.Conv1d(
            dim, dim, POSITION_KERNEL, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS
        )
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            SpeechLayer(dim, config.num_heads, config.mlp_dim) for _ in range(config.num_layers)
        )

    @property
    def device(self) -> torch.device:
        return self.projection.weight.device

    def forward(self, samples: Tensor) -> Tensor:
        """Every layer's output (B, T, layers, D) of normalised, padded sound (B, 640 T + 80)."""
        x = samples[:, None]
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            x = F.gelu(self.first_norm(x) if index == 0 else x)
        # "presample": the transformer itself runs at the video's rate
        x = F.interpolate(x, size=x.shape[-1] // 2, mode="linear", align_corners=True)
        x = self.projection(self.conv_norm(x.mT))
        position = self.position(x.mT)[..., :-1]  # an even kernel gives one vector too many
        x = self.norm(x + F.gelu(position).mT)
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return torch.stack(outputs, dim=2)


def load_encoder(config: ModelConfig, device: torch.device) -> SpeechEncoder:
    """The speech encoder a model listens through.

    Raises WeightsError where it is missing, damaged or of another shape.
    """
    return load_network(
        ENCODERS[config.audio],
        lambda **sizes: SpeechEncoder(SpeechEncoderConfig(**sizes)),
        speech_encoder_state,
        device,
    )
