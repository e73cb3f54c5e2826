"""Joint attention over several token streams, with QK-norm and rotary positions."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from moda_cli.generator.embed import RMSNorm, rotate

Streams = dict[str, Tensor]
Ropes = Mapping[str, Tensor]  # table of `rope_table` by stream; a stream without one is not rotated


class QKNorm(nn.Module):
    """RMSNorm over each head's dimension, separately for queries and keys."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.q = RMSNorm(head_dim, eps=1e-5)
        self.k = RMSNorm(head_dim, eps=1e-5)


def project_heads(
    fused: Tensor, num_heads: int, norm: QKNorm, rope: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Split [all q | all k | all v] (B, T, 3 D) into normed, rotated heads (B, H, T, D / H)."""
    q, k, v = fused.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = norm.q(q), norm.k(k)
    if rope is not None:
        q, k = rotate(q, rope), rotate(k, rope)
    return q, k, v


class JointAttention(nn.Module):
    """Attention over the concatenation of N token streams (SD3, arXiv:2403.03206, sec. 4).

    Every stream owns its projections and QK-norm; only the softmax is shared.
    """

    def __init__(self, names: Sequence[str], dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.ModuleDict({name: nn.Linear(dim, 3 * dim) for name in names})
        self.norm = nn.ModuleDict({name: QKNorm(dim // num_heads) for name in names})
        self.out = nn.ModuleDict({name: nn.Linear(dim, dim) for name in names})

    def forward(self, streams: Streams, ropes: Ropes) -> Streams:
        """streams[name]: (B, T_name, D), in and out; T_name may differ per stream.

        A stream of one token is one whose tokens are all alike: as many as the longest has.
        """
        heads = [
            project_heads(self.qkv[name](x), self.num_heads, self.norm[name], ropes.get(name))  # type: ignore[arg-type]
            for name, x in streams.items()
        ]
        longest = max(x.shape[1] for x in streams.values())
        queries, *keys_values = zip(*heads, strict=True)
        q = torch.cat(queries, dim=2)
        k, v = (torch.cat([_in_full(x, longest) for x in parts], dim=2) for parts in keys_values)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        parts = torch.split(mixed, [x.shape[1] for x in streams.values()], dim=1)
        return {name: self.out[name](part) for name, part in zip(streams, parts, strict=True)}


def _in_full(heads: Tensor, count: int) -> Tensor:
    """Heads (B, H, T, D) of a stream; of one token, as often as it stands for another."""
    return heads.expand(-1, -1, count, -1) if heads.shape[2] == 1 else heads
