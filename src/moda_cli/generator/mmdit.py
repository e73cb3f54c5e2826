"""The coarse-to-fine multi-modal diffusion transformer of MoDA (arXiv:2507.03256, sec. 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.config import EMOTIONS, ModelConfig
from moda_cli.generator.blocks import CrossBlock, Drive, JointBlock, SingleBlock, modulate
from moda_cli.generator.embed import (
    TIME_WIDTH,
    AudioEmbedder,
    mlp_embedder,
    rope_table,
    timestep_sinusoid,
)

FOUR_STREAMS = ("motion", "audio", "emotion", "identity")
TWO_STREAMS = ("motion", "condition")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Embedded conditions of a window: the same for every step of the sampler."""

    audio: Tensor  # (B, N, D)
    emotion: Tensor  # (B, 1, D)
    identity: Tensor  # (B, 1, D)


class MMDiT(nn.Module):
    """Velocity of the motion flow. The order of operations is the release's, quirks included."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads, ratio = config.hidden_dim, config.num_heads, config.mlp_ratio
        self.motion_embedder = mlp_embedder(2 * config.motion_dim, dim)
        self.identity_embedder = mlp_embedder(config.identity_dim, dim)
        self.time_embedder = mlp_embedder(TIME_WIDTH, dim)
        self.audio_embedder = AudioEmbedder(config.audio_layers, config.audio_dim, dim)
        # an empty table: drawing one on the meta device would load torch's compiler
        table = torch.empty(len(EMOTIONS), dim)
        self.emotion_embedder = nn.Embedding.from_pretrained(table, freeze=False)
        self.four_stream = nn.ModuleList(
            JointBlock(FOUR_STREAMS, dim, heads, ratio) for _ in range(config.four_stream_depth)
        )
        self.two_stream = nn.ModuleList(
            JointBlock(TWO_STREAMS, dim, heads, ratio) for _ in range(config.two_stream_depth)
        )
        self.single_stream = nn.ModuleList(
            SingleBlock(dim, heads, ratio) for _ in range(config.single_stream_depth)
        )
        self.cross_attention = nn.ModuleList(
            CrossBlock(dim, heads, ratio) for _ in range(config.cross_attention_depth)
        )
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, config.motion_dim)
        self.null_audio = nn.Parameter(torch.empty(config.audio_dim))
        self._modulations = [
            layer
            for name, layer in self.named_modules()
            if "modulation" in name and isinstance(layer, nn.Linear)
        ]

    def init_weights(self) -> None:
        """Start training from the identity: AdaLN and output zero (DiT, arXiv:2212.09748)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.emotion_embedder.weight, std=0.02)
        nn.init.normal_(self.null_audio)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and ("modulation" in name or name == "head"):
                nn.init.zeros_(module.weight)

    def embed(self, audio: Tensor, emotion: Tensor, identity: Tensor) -> Conditions:
        """Conditions of audio (B, N, layers, channels), emotion (B,) int64, identity (B, 63)."""
        return Conditions(
            self.audio_embedder(audio),
            self.emotion_embedder(emotion)[:, None],
            self.identity_embedder(identity)[:, None],
        )

    def null_features(self, audio: Tensor) -> Tensor:
        """The features that stand for no audio, shaped like `audio` (..., layers, channels)."""
        return self.null_audio.to(audio).expand_as(audio)

    def schedule(self, timesteps: Tensor, given: Conditions) -> Tensor:
        """The AdaLN (S, B, 1, width) of a sampler's steps (S,), each the same for all B.

        Every modulation layer runs once; what they give lies side by side.
        """
        condition = self._condition(timesteps[:, None], given)  # (S, B, 1, D)
        return torch.cat([layer(condition) for layer in self._modulations], dim=-1)

    def _condition(self, timestep: Tensor, given: Conditions) -> Tensor:
        """(..., B, 1, D) of timesteps (..., B)."""
        time = self.time_embedder(timestep_sinusoid(timestep).to(given.emotion))
        return F.silu(time[..., None, :] + given.emotion)

    @staticmethod
    def _driven_by(condition: Tensor) -> Drive:
        return lambda layer: layer(condition)

    def forward(self, z: Tensor, prev: Tensor, timestep: Tensor, given: Conditions) -> Tensor:
        """Velocity, noise - motion, (B, N, 70) of normalised noisy motion z (B, N, 70).

        prev: (B, 1, 70) the normalised frame before the window, or (B, N, 70) the frames themselves
        where they are known and the last of these behind them. timestep: (B,) in 0..1000, or its
        row (B, 1, width) of a `schedule`.
        """
        if timestep.ndim > 1:
            widths = [layer.out_features for layer in self._modulations]
            parts = timestep.split(widths, dim=-1)
            adaln: dict[nn.Module, Tensor] = dict(zip(self._modulations, parts, strict=True))
            drive: Drive = adaln.__getitem__
        else:
            drive = self._driven_by(self._condition(timestep, given))
        frames, head_dim = z.shape[1], self.config.hidden_dim // self.config.num_heads
        rope, rope3, rope4 = (rope_table(frames, head_dim, z.device, k) for k in (1, 3, 4))
        motion = self.motion_embedder(torch.cat((prev.expand_as(z), z), dim=-1))

        streams = {
            "motion": motion,
            "audio": given.audio,
            "emotion": given.emotion.to(motion),
            "identity": given.identity,
        }
        for block in self.four_stream:  # unrotated, emotion and identity stay alike throughout
            streams = block(streams, drive, {"motion": rope, "audio": rope})

        motion, *others = streams.values()
        condition = torch.cat([stream.expand_as(motion) for stream in others], dim=1)
        streams = {"motion": motion, "condition": condition}
        ropes = {"motion": rope, "condition": rope3}
        for block in self.two_stream:
            streams = block(streams, drive, ropes)
        for block in self.cross_attention:
            streams["motion"] = block(streams["motion"], streams["condition"], drive, ropes)

        x = torch.cat(tuple(streams.values()), dim=1)  # (B, 4 N, D)
        last = len(self.single_stream) - 1
        for depth, block in enumerate(self.single_stream):  # of the last only motion is read
            x = block(x, drive, rope4, frames if depth == last else None)
        shift, scale = drive(self.final_modulation).chunk(2, dim=-1)
        return self.head(modulate(x[:, :frames], shift, scale))  # type: ignore[no-any-return]
