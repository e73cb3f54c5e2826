"""What a training step costs here, by precision, compiling, checkpointing and batch size.

`python -m benchmarks.training [--config moda] [--batch 64 256] [--device cuda] [--out FILE]`; on a
processor without bfloat16 set ONEDNN_MAX_CPU_ISA=AVX2, or leave it out to see what this one has.
Samples are random and lie on the device: what the loader costs is not in it.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from moda_cli.config import ModelConfig
from moda_cli.device import device_name, forbid_tf32, has_bf16
from moda_cli.motion import Stats
from moda_cli.train.dataset import Batch
from moda_cli.train.objectives import objective_of
from moda_cli.train.optimiser import State
from moda_cli.train.pace import dense_rate, training_flops
from moda_cli.train.presets import PRESETS, TrainConfig
from moda_cli.train.regions import prepare_blocks

PATHS = {  # name -> bf16, compile, checkpointing
    "float32": (False, False, False),
    "bfloat16": (True, False, False),
    "bfloat16, compiled": (True, True, False),
    "bfloat16, compiled, checkpointing": (True, True, True),
}
WARM = 3


@dataclass(frozen=True, slots=True)
class Cost:
    path: str
    batch: int
    step_s: float
    tokens_per_s: float
    first_step_s: float  # compiling
    share: float | None  # of the card's dense bfloat16 rate
    peak_gb: float | None


def random_batch(size: int, model: ModelConfig, device: torch.device) -> Batch:
    """Samples of no meaning."""
    motion = torch.randn(size, model.window, 70, device=device)
    audio = torch.randn(size, model.window, model.audio_layers, model.audio_dim, device=device)
    return Batch(
        motion=motion,
        prev=motion[:, :1],
        audio=audio.half(),
        emotion=torch.randint(8, (size,), device=device),
        identity=torch.randn(size, 63, device=device),
        silent=torch.rand(size, device=device) < 0.5,
        noise=torch.randn_like(motion),
        sigma=torch.rand(size, device=device),
    )


def measure(path: str, config: TrainConfig, device: torch.device, repeats: int) -> Cost:
    """The fastest of `repeats` steps after the warm ones."""
    model = config.model
    assert isinstance(model, ModelConfig)
    stats = Stats(torch.zeros(70), torch.ones(70), torch.zeros(70), torch.zeros(63))
    objective = objective_of(config, stats, None).to(device)
    prepare_blocks(objective.network, config.compile, config.checkpointing)
    state = State(objective.network, config)
    batch = random_batch(config.batch_size, model, device)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(WARM + repeats):
        began = time.perf_counter()
        objective(batch)["loss"].backward()
        state.update(config.learning_rate)
        if cuda:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    step = min(times[WARM:])
    limit = dense_rate(torch.cuda.get_device_name(device)) if cuda else 0.0
    return Cost(
        path=path,
        batch=config.batch_size,
        step_s=step,
        tokens_per_s=config.batch_size * model.window * 4 / step,
        first_step_s=times[0],
        share=training_flops(model) * config.batch_size / step / limit if limit else None,
        peak_gb=torch.cuda.max_memory_allocated(device) / 1e9 if cuda else None,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--config", choices=["moda", "mini"], default="moda" if cuda else "mini")
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 256] if cuda else [16])
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--paths", nargs="*", choices=list(PATHS), default=list(PATHS))
    parser.add_argument("--repeats", type=int, default=20 if cuda else 3)
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    args = parser.parse_args(arguments)

    device = torch.device(args.device)
    forbid_tf32()
    native = has_bf16(device)
    print(f"{device_name(device)}, {args.config}, bfloat16 {'native' if native else 'emulated'}")
    rows = []
    for size in args.batch:
        for name in args.paths:
            bf16, compiled, checkpointing = PATHS[name]
            config = replace(
                PRESETS[args.config], batch_size=size, bf16=bf16, compile=compiled,
                checkpointing=checkpointing,
            )  # fmt: skip
            try:
                row = measure(name, config, device, args.repeats)
            except torch.OutOfMemoryError:
                print(f"{name:34} batch {size:4}  out of memory")
                torch.cuda.empty_cache()
                continue
            rows.append(row)
            more = f", {row.share:.0%} of the card" if row.share is not None else ""
            more += f", {row.peak_gb:.1f} GB" if row.peak_gb is not None else ""
            print(
                f"{name:34} batch {size:4}  {1000 * row.step_s:8.1f} ms a step, "
                f"{row.tokens_per_s:,.0f} tokens/s, first step {row.first_step_s:.1f} s{more}",
                flush=True,
            )
    report = {"machine": device_name(device), "config": args.config, "bf16": native}
    args.out.write_text(json.dumps(report | {"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
