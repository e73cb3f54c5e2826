"""`python -m benchmarks`: how fast `moda` is here, the plain path against the engine.

Weights are made by rule, nothing is downloaded. The table goes to standard output, all figures to
a JSON file. Needs torch, numpy, OpenCV, safetensors and pytest; without imageio-ffmpeg nothing is
encoded, which the report says.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from benchmarks import speed
from benchmarks.roofline import Limits
from benchmarks.speed import Machine, Row


def show(row: Row) -> None:
    print(
        f"{row.stage:20} {row.path:38} {1000 * row.seconds:10.3f} ms per {row.unit:16} {row.note}",
        flush=True,
    )


def describe(device: torch.device) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    kind = platform.processor() or platform.machine()
    return f"{kind}, {threads} threads, torch {torch.__version__}"


def trace(
    machine: Machine, networks: speed.Networks | speed.Engine, batch: int, path: Path
) -> None:
    """Write a profiler trace of one batch, and print its largest costs."""
    from torch.profiler import ProfilerActivity, profile

    source, driving = speed.scene(machine, networks, batch)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if machine.cuda else [])]
    with torch.inference_mode(), profile(activities=activities) as profiler:
        networks.pixels(source, driving)  # type: ignore[arg-type]
        machine.wait()
    profiler.export_chrome_trace(str(path))
    order = "self_cuda_time_total" if machine.cuda else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=80))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--frames", type=int, help="of the whole clip; 250, or 4 on a CPU")
    parser.add_argument("--batch", type=int, nargs="*", help="batch sizes of the engine")
    parser.add_argument("--compile", action="store_true", help="the engine by torch.compile too")
    parser.add_argument("--cache", type=Path, help="folder of compiled code")
    parser.add_argument("--repeats", type=int)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count this process's own time: on a busy CPU"
    )
    parser.add_argument("--trace", type=Path, help="profiler trace of the fastest path")
    parser.add_argument("--out", type=Path, default=Path("speed.json"))
    args = parser.parse_args()

    device = torch.device(args.device)
    cuda = device.type == "cuda"
    dtype = getattr(torch, args.dtype or ("float16" if cuda else "float32"))
    machine = Machine(
        device,
        dtype,
        args.frames or (250 if cuda else 4),
        args.repeats or (10 if cuda else 1),
        time.process_time if args.cpu_time else time.perf_counter,
    )
    batches = args.batch or speed.default_batches(machine)
    print(f"{describe(device)}, {str(dtype)[6:]}, weights by rule, {speed.SIDE} x {speed.SIDE}")

    parts, rows = speed.build(machine)
    rows += speed.before_the_frames(machine, parts)
    for row in rows:
        show(row)
    drawn = []
    for row, networks, batch in speed.frames(machine, parts, args.compile, batches, args.cache):
        show(row)
        rows.append(row)
        drawn.append((row, networks, batch))
    plain, fastest = drawn[0], min(drawn, key=lambda path: path[0].seconds)
    more = speed.pasting(machine, parts, fastest[2])
    missing = speed.encoder_missing()
    with tempfile.TemporaryDirectory() as folder:
        out = None if missing else Path(folder)
        if out:
            more.append(speed.encoding(machine, out))
        else:
            print(f"nothing is encoded: {missing}")
        for row in more:
            show(row)
        ends = []
        for row, networks, batch in (plain, fastest):
            ends.append(speed.whole(machine, parts, networks, row.path, batch, out))
            show(ends[-1])
    rows += [*more, *ends]

    costs = speed.costs(machine, parts)
    limits = Limits()
    for name, found in costs.items():
        least = 1e9 * found["gflop"] / limits.flops
        took = (plain if name == "plain" else fastest)[0].seconds
        found |= {
            "tflop/s": found["gflop"] / 1e3 / took,
            "ms at the arithmetic limit": 1e3 * least,
            "ms at the traffic limit, unfused": 1e12 * found["gigabyte"] / limits.bandwidth,
            "share of the arithmetic limit": least / took,
        }
        print(name, ", ".join(f"{what} {value:.3g}" for what, value in found.items()))
    ratios = {
        "draw, engine over plain": plain[0].seconds / fastest[0].seconds,
        "whole, engine over plain": ends[0].seconds / ends[1].seconds,
    }
    print(", ".join(f"{name} {value:.2f}x" for name, value in ratios.items()))
    report = {
        "machine": describe(device),
        "dtype": str(dtype)[6:],
        "encoded": missing is None,
        "rows": [asdict(row) for row in rows],
        "costs": costs,
        "ratios": ratios,
    }
    args.out.write_text(json.dumps(report, indent=1))
    if args.trace:
        trace(machine, *fastest[1:], args.trace)


if __name__ == "__main__":
    main()
