"""What work costs on paper: operations, traffic, and the time that a machine needs at least."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Limits:
    """What one accelerator sustains; the defaults were seen on an H200."""

    flops: float = 790e12  # of 16-bit matrix products, per second
    bandwidth: float = 4.3e12  # bytes per second


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one frame."""

    flops: float
    traffic: float  # bytes in and out of every operator, nothing fused

    def least_seconds(self, limits: Limits) -> float:
        """The time that arithmetic alone takes at its limit."""
        return self.flops / limits.flops


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, Tensor):
                    self.bytes += leaf.numel() * leaf.element_size()
        return out


def cost(work: Callable[[], object], frames: int) -> Cost:
    """The cost per frame of `work`, which draws `frames` of them."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, _Traffic() as traffic:
        work()
    return Cost(counter.get_total_flops() / frames, traffic.bytes / frames)
