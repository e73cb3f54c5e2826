"""Embedders: numbers to token vectors."""

import math
from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_WIDTH = 256
ROPE_THETA = 256.0


def mlp_embedder(in_dim: int, dim: int) -> nn.Sequential:
    """Linear, SiLU, Linear: the embedder of motion, identity and time."""
    return nn.Sequential(nn.Linear(in_dim, dim), nn.SiLU(), nn.Linear(dim, dim))


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """RMSNorm over the last dimension in x's precision; its sums are float32 inside the operation.

    Autocast on CUDA would make a float32 copy of a bfloat16 x and keep it for the backward pass.
    """
    plain = x.dtype == torch.float32
    if plain and x.device.type == "cpu":  # torch's own takes twice as long
        total = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
        normed: Tensor = x * (total / x.shape[-1] + eps).rsqrt()
        return normed if weight is None else normed * weight
    with nullcontext() if plain else torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, x.shape[-1:], weight, eps)


class RMSNorm(nn.RMSNorm):
    """In its input's precision, though its weight is kept in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x), self.eps or 0.0)


class AudioEmbedder(nn.Module):
    """One token per video frame from all layers of an audio encoder."""

    def __init__(self, layers: int, channels: int, dim: int) -> None:
        super().__init__()
        self.proj1 = nn.Linear(layers * channels, dim)
        self.proj2 = nn.Linear(dim, dim)
        self.proj3 = nn.Linear(dim, dim)
        self.norm = RMSNorm(dim, eps=1e-6)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, T, layers, channels) -> (B, T, D)."""
        x = F.relu(self.proj1(audio.flatten(-2)))
        x = F.relu(self.proj2(x))
        return self.norm(self.proj3(x))  # type: ignore[no-any-return]


def timestep_sinusoid(timestep: Tensor) -> Tensor:
    """Cosines then sines (..., 256) of timesteps (...) in 0..1000."""
    half = TIME_WIDTH // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=timestep.device) / half)
    angles = timestep.float()[..., None] * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def rope_table(
    length: int, head_dim: int, device: torch.device | None = None, streams: int = 1
) -> Tensor:
    """Cosine and sine (streams * length, head_dim / 2, 2) of RoPE (arXiv:2104.09864), float32.

    Positions start anew in each stream. Tables are kept for good, since a recorded graph may read
    them: do not write into them.
    """
    make = _rope_table if torch.compiler.is_compiling() else _kept_rope_table
    return make(length, head_dim, device, streams)


@torch.inference_mode(False)  # a table that sampling made must serve training too
def _rope_table(length: int, head_dim: int, device: torch.device | None, streams: int) -> Tensor:
    rates = ROPE_THETA ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.stack((angles.cos(), angles.sin()), dim=-1).repeat(streams, 1, 1)


_kept_rope_table = lru_cache(maxsize=None)(_rope_table)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate interleaved pairs of x (..., T, head_dim) by a table (T, head_dim / 2, 2)."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling() or x.device.type == "mps":  # without complex numbers
        (a, b), (cos, sin) = pairs.unbind(-1), rope.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # one kernel for seven
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rope))
    return turned.flatten(-2).to(x)
