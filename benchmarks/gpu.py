"""`python -m benchmarks.gpu`: what the GPU path takes on the card that is here, beside its goals.

    python -m benchmarks.gpu [--parts draw motion clips stream train] [--peer LIVEPORTRAIT_CHECKOUT]

Weights are made by rule at full size; nothing is downloaded or installed. Each part runs in a
process of its own, prints its rows as they come, and may be run alone. All that was measured, and
nothing else, goes to gpu.json and gpu.md of --out. `--device cpu --tiny` shows that it runs.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import traceback
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import log10
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "support")]
BATCH = 16  # frames drawn at once, as on any card with room for them
GOALS = {  # what is to be reached, by (part, what)
    ("draw", "a frame, 512 x 512"): "<= 2.3 ms without --compile",
    ("motion", "64 frames, 10 guided steps"): "<= 50 ms",
    ("clips", "10 s clip, whole process"): "<= 4.5 s",
    ("clips", "60 s clip, whole process"): "<= 8 s, RTF 0.065 while running",
    ("stream", "first frame, networks loaded"): "0.5 s",
    ("stream", "first frame, warm"): "0.15 s",
    ("train", "step of 64 windows"): ">= 40 % of the card",
    ("train", "step of 256 windows"): "fits",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured. value: None where it could not be, the note says why."""

    part: str
    what: str
    path: str
    value: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how to measure."""

    device: str
    tiny: bool
    out: Path
    peer: Path | None

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """Of the networks, by component; nothing where they are as released."""
        if not self.tiny:
            return defaultdict(dict)
        from official import SMALL

        return SMALL

    def wait(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize(self.device)

    def time_ms(self, work: Callable[[], object]) -> float:
        """Median milliseconds of `work`, when it is warm."""
        import torch

        taken = []
        for run in range(3 if self.tiny else 23):
            self.wait()
            since = time.perf_counter()
            with torch.inference_mode():
                work()
            self.wait()
            if run > 1:
                taken.append(1000 * (time.perf_counter() - since))
        return statistics.median(taken)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "moda_cli", *map(str, arguments), "--device", self.device]


def card(bench: Bench) -> Iterator[Row]:
    """What it does at most: the largest share of anything below."""
    import torch

    n = 256 if bench.tiny else 8192
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in "ab")
    ms = bench.time_ms(lambda: a @ b)
    yield Row("card", f"bf16 product of {n} x {n}", "torch", 2e-9 * n**3 / ms, "TFLOP/s")
    big = torch.randn(n, 16 * n, device=bench.device)
    there = torch.empty_like(big)
    ms = bench.time_ms(lambda: there.copy_(big))
    yield Row("card", "copy, read and written", "torch", 2e-6 * big.nbytes / ms, "GB/s")


def draw(bench: Bench) -> Iterator[Row]:
    """Warping and generating a frame: the release's code, the plain networks, the engine."""
    import torch

    from liveportrait_by_rule import by_rule, retargeting_file
    from moda_cli.render.liveportrait.engine import Engine
    from moda_cli.render.liveportrait.keypoints import Retargeting
    from moda_cli.render.liveportrait.networks import Networks, to_pixels
    from moda_cli.render.liveportrait.spade import SpadeGenerator
    from moda_cli.render.liveportrait.warp import WarpingNetwork
    from moda_cli.weights.renames.liveportrait import RETARGETING, liveportrait_state
    from moda_cli.weights.state import load_strict, unfilled

    with unfilled():
        retargeting = Retargeting()
        warping = WarpingNetwork(**bench.sizes["warping"])
        generator = SpadeGenerator(**bench.sizes["spade"])
    load_strict(retargeting, liveportrait_state(retargeting_file(), RETARGETING), "by rule")
    parts = [m.to(bench.device) for m in (retargeting, by_rule(warping), by_rule(generator))]
    exact = Networks(*parts)
    plain = replace(exact, dtype=torch.float16 if bench.cuda else torch.float32)
    shape = (4, 4) if bench.tiny else (32, 16)
    rng = torch.Generator().manual_seed(0)
    volume = torch.randn(1, *shape, 64, 64, generator=rng).to(bench.device)
    kp = torch.rand(1, 21, 3, generator=rng) - 0.5
    batch = 2 if bench.tiny else BATCH
    driving = (kp + 0.05 * torch.randn(batch, 21, 3, generator=rng)).to(bench.device)
    kp = kp.to(bench.device)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        right = exact.pixels(exact.prepare(volume, kp), driving[:1])

    def row(path: str, networks: Any, rows: int, pixels: Callable[..., Any]) -> Row:
        with torch.inference_mode():
            source = networks.prepare(volume, kp)
            since = time.perf_counter()
            made = pixels(source, driving[:rows])[:1]
            bench.wait()
            first = time.perf_counter() - since
        ms = bench.time_ms(lambda: pixels(source, driving[:rows])) / rows
        error = (made.double() - right.double()).square().mean().item()
        note = f"{10 * log10(255**2 / max(error, 1e-9)):.1f} dB, first batch {first:.1f} s"
        return Row("draw", "a frame, 512 x 512", path, ms, "ms", note)

    if bench.peer:
        yield peer(bench, bench.peer, volume, kp, driving[:1])
    yield row("plain, batch 1", plain, 1, plain.pixels)
    engine = Engine(plain)
    launched = lambda *given: to_pixels(engine.picture(*given))  # noqa: E731
    yield row(f"engine, launched, batch {batch}", engine, batch, launched)
    yield row(f"engine as used, batch {batch}", engine, batch, engine.pixels)
    if bench.cuda:
        compiled = Engine(plain, True, bench.out / "inductor")  # type: ignore[arg-type]
        yield row(f"engine, --compile, batch {batch}", compiled, batch, compiled.pixels)


def peer(bench: Bench, checkout: Path, volume: Any, kp: Any, driving: Any) -> Row:
    """The released networks as their own wrapper calls them: one frame, float16 by autocast."""
    sys.path.insert(0, str(checkout))
    import torch
    import yaml
    from src.modules.spade_generator import SPADEDecoder
    from src.modules.warping_network import WarpingNetwork

    shapes = yaml.safe_load((checkout / "src/config/models.yaml").read_text())["model_params"]
    warping = WarpingNetwork(**shapes["warping_module_params"]).to(bench.device).eval()
    generator = SPADEDecoder(**shapes["spade_generator_params"]).to(bench.device).eval()

    def frame() -> object:
        with torch.autocast(bench.device[:4], torch.float16, enabled=bench.cuda):
            out = warping(volume, kp_source=kp, kp_driving=driving)
            return generator(feature=out["out"]).float()

    path = "released code, its own networks"
    if bench.tiny:
        return Row("draw", "a frame, 512 x 512", path, None, "ms", "not in a tiny run")
    return Row("draw", "a frame, 512 x 512", path, bench.time_ms(frame), "ms", "weights drawn")


def motion(bench: Bench) -> Iterator[Row]:
    """A window of the motion generator, two evaluations a step: launched, and as it is used."""
    import torch

    from by_rule import RELEASED, SMALL, mmdit_by_rule
    from moda_cli.config import SamplerConfig
    from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
    from moda_cli.generator.model import MotionGenerator
    from moda_cli.generator.sampler import euler_sigmas, sample_euler
    from moda_cli.motion import Stats

    shape, table = (SMALL, "_small") if bench.tiny else (RELEASED, "")
    network = mmdit_by_rule(shape, f"motion_generator{table}.json").to(bench.device)
    zero, one = torch.zeros(70), torch.ones(70)
    model = MotionGenerator(network, Stats(zero, one, zero, torch.zeros(63)))
    rng = torch.Generator().manual_seed(0)
    audio = torch.randn(shape.window, shape.audio_layers, shape.audio_dim, generator=rng)
    noise = torch.randn(1, shape.window, 70, generator=rng).to(bench.device)
    window = Window(
        audio.to(bench.device),
        {4: torch.ones(shape.window)},
        torch.zeros(63, device=bench.device),
        torch.zeros(1, 70, device=bench.device),
        guidance_terms(SamplerConfig(), shape),
    )
    sigmas = euler_sigmas(shape.steps)

    def sampled(forward: Callable[..., Any]) -> Any:
        with torch.cuda.stream(model.stream):
            velocity = guided_velocity(network, [window], sigmas, forward)
            return sample_euler(velocity, noise, sigmas)

    right = sampled(network)
    for path, forward in (("launched, float32", network), ("as used", model.forward)):
        away = ((sampled(forward) - right).norm() / right.norm()).item()
        ms = bench.time_ms(lambda forward=forward: sampled(forward))  # type: ignore[misc]
        yield Row(
            "motion", "64 frames, 10 guided steps", path, ms, "ms", f"relative error {away:.1e}"
        )


def prepare(bench: Bench) -> dict[str, Path]:
    """Weights by rule where `moda` looks for them, a portrait, and speech of any length."""
    import official

    folder = bench.out / ("tiny" if bench.tiny else "full")
    lengths = (0.08,) if bench.tiny else (10, 60)
    files = {f"{seconds} s": folder / f"{seconds}.wav" for seconds in lengths}
    files["portrait"] = folder / "portrait.png"
    listed, cache = folder / "weights.toml", folder / "cache"
    ready = files["portrait"].is_file()
    folder.mkdir(parents=True, exist_ok=True)
    if not ready:
        official.manifest_of(bench.sizes, listed)
    os.environ |= {"MODA_WEIGHTS": str(listed), "MODA_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    if not ready:
        official.install(bench.sizes)
        with wave.open(str(ROOT / "examples" / "speech.wav")) as speech:
            shape, sound = speech.getparams(), speech.readframes(speech.getnframes())
        for seconds in lengths:
            size = int(seconds * shape.framerate) * shape.sampwidth * shape.nchannels
            with wave.open(str(files[f"{seconds} s"]), "wb") as file:
                file.setparams(shape)
                file.writeframes((sound * (1 + size // len(sound)))[:size])
        official.save_portrait(files["portrait"])
    return files


def clips(bench: Bench) -> Iterator[Row]:
    """`moda generate`, from its start to its end, and what its -v says."""
    files = prepare(bench)
    for length in [name for name in files if name.endswith(" s")]:
        for run in ("first", "again")[: 1 if bench.tiny else 2]:
            given = (files["portrait"], files[length], "-o", bench.out / "clip.mp4", "-y", "-v")
            since = time.perf_counter()
            done = subprocess.run(
                bench.command("generate", *given, "--model", "moda"),
                capture_output=True,
                text=True,
                check=False,
            )
            seconds: float | None = time.perf_counter() - since
            said = re.search(r"(\d+) frames in ([\d.]+) s: (.*)", done.stderr)
            if done.returncode or not said:
                seconds, note = None, f"exit {done.returncode}: {done.stderr[-300:]}"
            else:
                frames, running, shares = said.groups()
                note = f"RTF {25 * float(running) / int(frames):.3f} while running: {shares}"
            yield Row("clips", f"{length} clip, whole process", f"{run} run", seconds, "s", note)


def stream(bench: Bench) -> Iterator[Row]:
    """The first picture of `-o -`: from a process's start, from loaded networks, and warm."""
    files = prepare(bench)
    sound = next(path for name, path in files.items() if name.endswith(" s"))
    given = (files["portrait"], sound, "-o", "-", "-q", "--model", "moda")
    since = time.perf_counter()
    with subprocess.Popen(bench.command("generate", *given), stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)
        seconds = time.perf_counter() - since
        process.stdout.read()
    yield Row("stream", "first bytes of -o -, whole process", "as used", seconds, "s")

    from moda_cli.config import ClipConfig
    from moda_cli.pipeline import Pipeline

    since = time.perf_counter()
    pipeline = Pipeline.load("moda", bench.device)
    bench.wait()
    yield Row("stream", "loading", "as used", time.perf_counter() - since, "s")
    for what in ("first frame, networks loaded", "first frame, warm"):
        since = time.perf_counter()
        frames = pipeline.stream(ClipConfig(files["portrait"], sound, Path("-")))
        next(frames)
        yield Row("stream", what, "as used", time.perf_counter() - since, "s")
        frames.close()  # type: ignore[attr-defined]


def train(bench: Bench) -> Iterator[Row]:
    """Some steps of `moda train` in the paper's configuration, and what it says of its pace."""
    import torch
    from safetensors.torch import save_file

    from moda_cli.config import ModelConfig
    from moda_cli.train.presets import MINI

    model = MINI if bench.tiny else ModelConfig()
    folder, rows = bench.out / "features", []
    folder.mkdir(parents=True, exist_ok=True)
    rng = torch.Generator().manual_seed(0)
    for k in range(6 if bench.tiny else 96):
        frames = 120 if bench.tiny else 250
        heard = torch.randn(frames, model.audio_layers, model.audio_dim, generator=rng)
        moved = {"motion": torch.randn(frames, 70, generator=rng), "kp": torch.zeros(63)}
        save_file(
            {**moved, "audio": heard.half(), "emotion": torch.zeros(8)},
            folder / f"c{k}.safetensors",
        )
        rows.append({"clip": f"c{k}", "split": "train" if k else "test", "frames": frames})
    (folder / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))

    config, sizes = ("moda", (64, 256)) if not bench.tiny else ("mini", (4,))
    tries = [(size, more) for size in sizes for more in ((), ("checkpointing=true",))]
    for number, (size, more) in enumerate(tries):
        wished = [f"batch_size={size}", "steps=12", *more]
        if bench.tiny:
            wished += ["compile=false", "model.hidden_dim=32", "model.num_heads=2"]
        run = bench.out / f"run{number}-{time.time_ns()}"
        options = [part for value in wished for part in ("--set", value)]
        done = subprocess.run(
            bench.command("train", folder, "-o", run, "--config", config, *options),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])},
        )
        said = re.search(r"([\d.e-]+) s a step: .*?; (.*tokens/s.*)", done.stderr)
        value, note = (1000 * float(said[1]), said[2]) if said else (None, done.stderr[-300:])
        path = ", ".join(["as configured", *more])
        yield Row("train", f"step of {size} windows", path, value, "ms", note)


PARTS = {part.__name__: part for part in (card, draw, motion, clips, stream, train)}


def measured(name: str, bench: Bench) -> list[Row]:
    """The rows of a part, printed as they come; what fails is a row that says so."""
    rows = []
    try:
        for row in PARTS[name](bench):
            print(line(row), flush=True)
            rows.append(row)
    except Exception as error:
        traceback.print_exc()
        rows.append(Row(name, "", "", None, "", f"failed: {type(error).__name__}: {error}"))
    return rows


def line(row: Row) -> str:
    value = "-" if row.value is None else f"{row.value:.4g} {row.unit}"
    return f"{row.part:7} {row.what:36} {row.path:34} {value:>16}  {row.note}"


def machine(bench: Bench) -> dict[str, str]:
    """What a reader must know of a figure."""
    import torch

    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text() if info.is_file() else "")
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "card": torch.cuda.get_device_name(bench.device) if bench.cuda else "none",
        "cpu": f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "commit": commit.stdout.strip() or "not known",
        "weights": "by rule, " + ("tiny" if bench.tiny else "full size"),
    }


def write(bench: Bench, about: dict[str, str], rows: list[Row]) -> None:
    """gpu.json and gpu.md, whole after every part."""
    report = {**about, "rows": [asdict(row) for row in rows]}
    (bench.out / "gpu.json").write_text(json.dumps(report, indent=1))
    lines = ["; ".join(f"{key}: {value}" for key, value in about.items()), ""]
    lines += ["| what | path | measured | goal | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        value = "not measured" if row.value is None else f"{row.value:.4g} {row.unit}"
        goal = GOALS.get((row.part, row.what), "")
        note = " ".join(row.note.split()).replace("|", "/")
        lines.append(f"| {row.part}: {row.what} | {row.path} | {value} | {goal} | {note} |")
    (bench.out / "gpu.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peer", type=Path, help="a checkout of LivePortrait, timed beside ours")
    parser.add_argument("--tiny", action="store_true", help="small networks, few repeats")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    peer_at = given.peer.resolve() if given.peer else None
    bench = Bench(given.device, given.tiny, given.out.resolve(), peer_at)
    about, rows = machine(bench), list[Row]()
    print("; ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    for name in given.parts:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows += pool.submit(measured, name, bench).result()
        write(bench, about, rows)
    print(f"written to {bench.out / 'gpu.md'} and gpu.json")
    sys.exit(any(row.value is None for row in rows))


if __name__ == "__main__":
    main()
