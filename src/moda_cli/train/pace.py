"""What a run is and how fast it goes, in sentences."""

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moda_cli.config import ModelConfig
from moda_cli.device import device_name
from moda_cli.generator.mmdit import FOUR_STREAMS, MMDiT
from moda_cli.train.alse import SyncExpert
from moda_cli.train.dataset import TrainingWindows
from moda_cli.train.optimiser import State
from moda_cli.train.parallel import Ranks
from moda_cli.train.presets import SyncConfig, TrainConfig

WARM, MEASURED = 4, 10  # steps: the first ones compile and wait for samples
DENSE_BF16 = {  # operations a second, of NVIDIA's data sheets without sparsity; first match holds
    "B200": 2.25e15, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12,
    "GH200": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "A10": 125e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def headline(state: State, windows: TrainingWindows, ranks: Ranks, steps: int) -> str:
    """What is trained, on what, where and for how long."""
    config = windows.config
    parameters = sum(parameter.numel() for parameter in state.parameters.values())
    how = [
        (f"{ranks.size} x " if ranks.size > 1 else "") + device_name(ranks.device),
        "bfloat16" if config.bf16 else "float32",
        "compiling" if config.compile else "not compiling",
        *(["checkpointing"] if config.checkpointing else []),
    ]
    parts = [
        f"{parameters / 1e6:.3g} M parameters",
        f"{windows.in_one_pass:,} windows of {config.model.window} frames "
        f"in {len(windows.clips):,} clips",
        ", ".join(how),
        f"{steps:,} steps of {config.batch_size} windows",
        *([f"going on from step {state.step:,}"] if state.step else []),
    ]
    return "; ".join(parts)


class Pace:
    """Measures the first steps of a process, once they are warm."""

    def __init__(self, config: TrainConfig, ranks: Ranks, steps: int) -> None:
        self.config, self.ranks, self.steps = config, ranks, steps
        self._taken, self._began = 0, 0.0

    def after_step(self, step: int) -> str:
        """After ten steps what they say of the run, else nothing."""
        self._taken += 1
        if self._taken == WARM:
            self._began = self._now()
        if self._taken != MEASURED:
            return ""
        return self.sentence((self._now() - self._began) / (MEASURED - WARM), self.steps - step)

    def sentence(self, each_s: float, left: int) -> str:
        """The speed and the time it will take, and how much of the card computes."""
        config, device = self.config, self.ranks.device
        streams = 1 if isinstance(config.model, SyncConfig) else len(FOUR_STREAMS)
        tokens = config.batch_size * config.model.window * streams
        said = f"{each_s:.3g} s a step: {duration(each_s * left)} to go; "
        said += f"{tokens / each_s:,.0f} tokens/s"
        limit = dense_rate(torch.cuda.get_device_name(device)) if device.type == "cuda" else 0.0
        if limit and config.bf16:
            rate = training_flops(config.model) * config.batch_size / self.ranks.size / each_s
            said += f"; {rate / limit:.0%} of the card's {limit / 1e12:.0f} TFLOP/s"
        return said

    def _now(self) -> float:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        return time.perf_counter()


def duration(seconds: float) -> str:
    """Such as 2 h 05 min, 7 min or 40 s."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes > 1 else f"{seconds:.0f} s"


def dense_rate(card: str) -> float:
    """Bfloat16 operations a second of a card by its name; 0 for one that is not known."""
    return next((rate for name, rate in DENSE_BF16.items() if name in card), 0.0)


def training_flops(model: ModelConfig | SyncConfig) -> int:
    """Floating-point operations for one window: forward, and twice as many backward.

    Matrix products, convolutions and attention, as the model needs them: what checkpointing does a
    second time does not count.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        motion = torch.empty(1, model.window, 70)
        audio = torch.empty(1, model.window, model.audio_layers, model.audio_dim)
        network: nn.Module
        if isinstance(model, SyncConfig):
            SyncExpert(model)(motion, audio)
        else:
            network = MMDiT(model)
            given = network.embed(audio, torch.zeros(1, dtype=torch.int64), torch.empty(1, 63))
            network(motion, motion[:, :1], torch.empty(1), given)
    return 3 * int(counter.get_total_flops())
