"""What a run consists of at a step: weights, their average, and the optimiser's moments."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moda_cli.train.checkpoint import Notes
from moda_cli.train.parallel import local_part, spread_like, whole
from moda_cli.train.presets import TrainConfig

BETA1 = 0.9
MOMENTS = ("exp_avg", "exp_avg_sq")
WARM_AVERAGE = 10  # the average's memory grows with the step until it reaches ema_decay


class State:
    """The trained network, on this process. No random state: samples follow from the step."""

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        self.network, self.config = network, config
        self.parameters = dict(network.named_parameters())
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.fused = all(parameter.is_cuda for parameter in self.parameters.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            betas=(BETA1, config.beta2),
            weight_decay=config.weight_decay,
            fused=self.fused,
        )
        self.step = 0
        self.seconds = 0.0
        self.best = math.inf  # lowest validation loss so far

    def update(self, rate: float) -> Tensor:
        """Clip the gradients, take one step and average; the gradients' norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.config.ema_decay, (self.step + 1) / (self.step + WARM_AVERAGE))
        with torch.no_grad():
            torch._foreach_lerp_(
                [local_part(tensor) for tensor in self.average.values()],
                [local_part(tensor) for tensor in self.parameters.values()],
                1 - decay,
            )
        self.step += 1
        return whole(norm)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint holds; every process must take part."""
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"network.{name}"] = whole(parameter.detach())
            tensors[f"average.{name}"] = whole(self.average[name])
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = whole(self.optimizer.state[parameter][moment])
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], notes: Notes) -> None:
        """Go on from a checkpoint."""
        self.step, self.seconds, self.best = notes["step"], notes["seconds"], notes["best"]
        for name, parameter in self.parameters.items():
            placed = {
                kind: spread_like(tensors[f"{kind}.{name}"], parameter)
                for kind in ("network", "average", *MOMENTS)
            }
            # copied, for a file's tensors are not aligned as torch's are, and kernels round by that
            for kind, own in (("network", parameter), ("average", self.average[name])):
                local_part(own).copy_(local_part(placed.pop(kind)))
            step = torch.tensor(float(self.step), device=parameter.device if self.fused else None)
            self.optimizer.state[parameter] = {"step": step, **placed}

    def averaged(self, tensors: Mapping[str, Tensor]) -> Any:
        """A network of its own with the averaged weights among a checkpoint's `tensors`."""
        with torch.device("meta"):
            network = type(self.network)(self.network.config)
        weights = {name: tensors[f"average.{name}"] for name in self.parameters}
        network.load_state_dict(weights | dict(self.network.named_buffers()), assign=True)
        return network.requires_grad_(False).eval()
