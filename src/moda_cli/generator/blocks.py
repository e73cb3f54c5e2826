"""Transformer blocks with adaptive normalisation: joint streams, then one stream."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.generator.attention import JointAttention, QKNorm, Ropes, Streams, project_heads
from moda_cli.generator.embed import rms_norm, rotate

NORM_EPS = 1e-6

Drive = Callable[[nn.Module], Tensor]  # a block's modulation layer -> its shifts, scales and gates


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """RMSNorm without gain, then AdaLN. x: (B, T, D); shift, scale: (B, 1, D)."""
    return torch.addcmul(shift, rms_norm(x, None, NORM_EPS), 1 + scale)


class MLP(nn.Module):
    """Feed-forward with tanh-approximated GELU."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))  # type: ignore[no-any-return]


class JointBlock(nn.Module):
    """Joint attention then an MLP, each stream with its own weights, driven by time and emotion.

    Four streams in the first stage of the C2F MMDiT, two in the second (paper, sec. 3.2).
    """

    def __init__(self, names: Sequence[str], dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention = JointAttention(names, dim, num_heads)
        self.mlp = nn.ModuleDict({name: MLP(dim, mlp_ratio) for name in names})
        self.modulation = nn.ModuleDict({name: nn.Linear(dim, 6 * dim) for name in names})

    def forward(self, streams: Streams, drive: Drive, ropes: Ropes) -> Streams:
        """streams[name]: (B, T, D), in and out. drive gives (B, 1, 6 D)."""
        adaln = {name: drive(self.modulation[name]).chunk(6, dim=-1) for name in streams}
        mixed = self.attention(
            {name: modulate(x, *adaln[name][:2]) for name, x in streams.items()}, ropes
        )
        out = {}
        for name, x in streams.items():
            _, _, gate1, shift2, scale2, gate2 = adaln[name]
            x = torch.addcmul(x, gate1, mixed[name])
            out[name] = torch.addcmul(x, gate2, self.mlp[name](modulate(x, shift2, scale2)))
        return out


class SingleBlock(nn.Module):
    """Attention and MLP in parallel over one stream (arXiv:2302.05442)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.widths = (3 * dim, mlp_ratio * dim)
        self.qkv_mlp = nn.Linear(dim, sum(self.widths))
        self.norm = QKNorm(dim // num_heads)
        self.out = nn.Linear((1 + mlp_ratio) * dim, dim)
        self.modulation = nn.Linear(dim, 3 * dim)

    def forward(self, x: Tensor, drive: Drive, rope: Tensor, kept: int | None = None) -> Tensor:
        """x: (B, T, D), in and out. drive gives (B, 1, 3 D).

        kept: (B, kept, D) out, the first of them; the others are only attended to.
        """
        shift, scale, gate = drive(self.modulation).chunk(3, dim=-1)
        y = modulate(x, shift, scale)
        if kept is None:
            qkv, hidden = self.qkv_mlp(y).split(self.widths, dim=-1)
        else:
            weights, biases = (p.split(self.widths) for p in self.qkv_mlp.parameters())
            qkv, hidden = map(F.linear, (y, y[:, :kept]), weights, biases)
        q, k, v = project_heads(qkv, self.num_heads, self.norm, rope)
        mixed = F.scaled_dot_product_attention(q[:, :, :kept], k, v).transpose(1, 2).flatten(2)
        hidden = F.gelu(hidden, approximate="tanh")
        return torch.addcmul(x[:, :kept], gate, self.out(torch.cat((mixed, hidden), dim=-1)))


class CrossBlock(nn.Module):
    """Self-attention, attention to fixed conditions, MLP: the ablation CABA (paper, Table 3).

    The paper says that motion gives the queries and the conditions keys and values, no more. The
    self-attention is DiT's (arXiv:2212.09748): without it no frame would see another.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention = JointAttention(("motion",), dim, num_heads)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.norm = QKNorm(dim // num_heads)
        self.out = nn.Linear(dim, dim)
        self.mlp = MLP(dim, mlp_ratio)
        self.modulation = nn.Linear(dim, 9 * dim)

    def forward(self, x: Tensor, given: Tensor, drive: Drive, ropes: Ropes) -> Tensor:
        """x: (B, T, D), in and out. given: (B, S, D) tokens. drive gives (B, 1, 9 D).

        ropes: tables of `motion` and of `condition`, the S tokens.
        """
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = drive(
            self.modulation
        ).chunk(9, dim=-1)
        mixed = self.attention({"motion": modulate(x, shift1, scale1)}, ropes)["motion"]
        x = torch.addcmul(x, gate1, mixed)
        x = torch.addcmul(x, gate2, self._attend(modulate(x, shift2, scale2), given, ropes))
        return torch.addcmul(x, gate3, self.mlp(modulate(x, shift3, scale3)))

    def _attend(self, x: Tensor, given: Tensor, ropes: Ropes) -> Tensor:
        heads = self.num_heads
        q = self.query(x).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, T, D / H)
        k, v = self.key_value(given).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.norm.q(q), ropes["motion"]), rotate(self.norm.k(k), ropes["condition"])
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
