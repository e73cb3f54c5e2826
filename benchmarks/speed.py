"""Times each stage and the whole of `moda`, the plain path against the engine, weights by rule."""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path

import numpy as np
import torch
from benchmarks.roofline import cost
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from by_rule import RELEASED, key_table, mmdit_by_rule, state_by_rule
from liveportrait_by_rule import by_rule, retargeting_file
from moda_cli import media
from moda_cli.config import FPS, NO_EMOTION, SAMPLES_PER_FRAME, SamplerConfig
from moda_cli.control.timeline import Timeline, parse_emotion
from moda_cli.errors import ModaError
from moda_cli.face.extractors import (
    AppearanceExtractor,
    Extractors,
    MotionExtractor,
)
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import released_take, sample
from moda_cli.motion import Source, Stats
from moda_cli.render.liveportrait.engine import Engine
from moda_cli.render.liveportrait.keypoints import Retargeting
from moda_cli.render.liveportrait.networks import Networks
from moda_cli.render.liveportrait.paste import PasteBack, TensorPaste
from moda_cli.render.liveportrait.renderer import LivePortrait, fitting_batch
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork
from moda_cli.speech.encoder import SpeechEncoder, SpeechEncoderConfig
from moda_cli.speech.released import SpeechFeatures
from moda_cli.weights.renames.liveportrait import RETARGETING, liveportrait_state
from moda_cli.weights.renames.speech import speech_encoder_state
from moda_cli.weights.state import load_strict

SIDE = 512  # of the portrait and of the frames
FROM_CROP = np.array([[0.7, -0.05, 80.0], [0.05, 0.7, 60.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. seconds are per unit."""

    stage: str
    path: str
    seconds: float
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how to measure."""

    device: torch.device
    dtype: torch.dtype
    frames: int
    repeats: int
    clock: Callable[[], float] = time.perf_counter

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def time(self, work: Callable[[], object]) -> float:
        """Median seconds of `work`, after one run of it."""
        seconds = []
        for _ in range(1 + self.repeats):
            self.wait()
            start = self.clock()
            with torch.inference_mode():
                work()
            self.wait()
            seconds.append(self.clock() - start)
        return statistics.median(seconds[1:])

    def peak_memory(self) -> float:
        """Bytes: of the device since the last reset, or of this process at its largest."""
        if self.cuda:
            return float(torch.cuda.max_memory_allocated(self.device))
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True, slots=True)
class Parts:
    """The networks of `moda` and one portrait."""

    networks: Networks
    extractors: Extractors
    encoder: SpeechEncoder
    model: MotionGenerator
    crop: np.ndarray
    paste: PasteBack
    motion: Tensor  # (frames, 70) to draw: weights by rule do not generate a face's


def through_file(module: nn.Module, device: torch.device, folder: Path) -> tuple[nn.Module, float]:
    """The module on the device, and the seconds from its safetensors file to there."""
    path = folder / f"{type(module).__name__}.safetensors"
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
    start = time.perf_counter()
    load_strict(module, load_file(path, device=str(device)), str(path))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return module.to(device).eval(), time.perf_counter() - start


def build(machine: Machine) -> tuple[Parts, list[Row]]:
    """All networks at their released sizes, and how long each takes from its file."""
    with torch.device("meta"):
        retargeting, encoder = Retargeting(), SpeechEncoder(SpeechEncoderConfig())
        plain = [AppearanceExtractor(), MotionExtractor(), WarpingNetwork(), SpadeGenerator()]
    load_strict(retargeting, liveportrait_state(retargeting_file(), RETARGETING), "by rule")
    state = speech_encoder_state(state_by_rule(key_table("hubert_base.json")))
    load_strict(encoder, state, "by rule")
    modules = [by_rule(module) for module in plain]
    modules += [encoder, mmdit_by_rule(RELEASED, "motion_generator.json")]
    loaded, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for module in modules:
            module, seconds = through_file(module, machine.device, Path(folder))
            loaded.append(module)
            rows.append(Row("load", type(module).__name__, seconds, "file"))
    appearance, motion, warping, generator, encoder, mmdit = loaded
    rng = np.random.default_rng(0)
    numbers = torch.from_numpy(rng.standard_normal((machine.frames, 70)).astype(np.float32))
    numbers = numbers * torch.tensor([0.02] * 67 + [8.0] * 3)
    numbers[:, 63] += 1.3
    spread = torch.ones(70)
    stats = Stats(mean=numbers[0], std=0.1 * spread, neutral=numbers[0], identity=torch.zeros(63))
    canvas = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    parts = Parts(
        Networks(retargeting.to(machine.device), warping, generator, machine.dtype),
        Extractors(appearance, motion, machine.dtype),
        encoder,
        MotionGenerator(mmdit, stats),
        rng.integers(0, 256, (256, 256, 3), np.uint8),
        PasteBack(canvas, FROM_CROP),
        numbers,
    )
    return parts, rows


def before_the_frames(machine: Machine, parts: Parts) -> list[Row]:
    """The portrait, the sound and the motion."""
    wave = np.random.default_rng(1).standard_normal(16_000 * 10).astype(np.float32) * 0.1
    rows = [
        Row(
            "portrait (F, M)",
            "both",
            machine.time(lambda: parts.extractors.extract(parts.crop)),
            "portrait",
        )
    ]
    seconds = machine.time(lambda: SpeechFeatures(parts.encoder, wave).window(0, 80))
    rows.append(Row("speech encoder", "both", seconds / 12, "second of sound"))
    mmdit, shape = parts.model.network, RELEASED
    audio = torch.randn(2, shape.window, shape.audio_layers, shape.audio_dim)
    given = (audio, torch.tensor([0, NO_EMOTION]), torch.zeros(2, shape.identity_dim))
    noise = torch.randn(2, shape.window, shape.motion_dim, device=machine.device)
    with torch.inference_mode():
        conditions = mmdit.embed(*(tensor.to(machine.device) for tensor in given))
    timestep = torch.full((2,), 500.0, device=machine.device)
    new = shape.window - shape.overlap
    for dtype in dict.fromkeys((torch.float32, machine.dtype)):

        def step(dtype: torch.dtype = dtype) -> Tensor:
            with torch.autocast(machine.device.type, dtype, enabled=dtype != torch.float32):
                return mmdit(noise, noise[:, :1], timestep, conditions)

        seconds = shape.steps * machine.time(step)
        note = f"{shape.steps} steps {1000 * seconds:.0f} ms per {new} frames, {str(dtype)[6:]}"
        rows.append(Row("motion", "both", seconds / new, "frame", note))
    return rows


def scene(machine: Machine, networks: Networks | Engine, batch: int) -> tuple[object, Tensor]:
    """A portrait as W needs it, and driving keypoints (batch, 21, 3)."""
    rng = torch.Generator().manual_seed(0)
    volume = torch.randn(1, 32, 16, 64, 64, generator=rng)
    kp = torch.rand(1, 21, 3, generator=rng) - 0.5
    driving = kp + 0.05 * torch.randn(batch, 21, 3, generator=rng)
    with torch.inference_mode():
        return networks.prepare(volume, kp.to(machine.device)), driving.to(machine.device)


def launched(engine: Engine) -> Engine:
    """The engine without its graphs: each of its kernels launched from Python."""
    plain = copy(engine)
    plain._draw = plain._exactly
    return plain


def psnr(pixels: Tensor, reference: Tensor) -> float:
    error = (pixels.double() - reference.double()).square().mean().item()
    return 10 * log10(255**2 / max(error, 1e-9))


def frames(
    machine: Machine, parts: Parts, compiled: bool, batches: list[int], cache: Path | None
) -> Iterator[tuple[Row, Networks | Engine, int]]:
    """Drawing a frame: W, G and bytes; the plain path first. Equality against it in float32."""
    exact = replace(parts.networks, dtype=torch.float32)
    source, driving = scene(machine, exact, 1)
    with torch.inference_mode():
        reference = exact.pixels(source, driving)  # type: ignore[arg-type]
    plain = parts.networks
    paths: list[tuple[str, Networks | Engine, int]] = [("plain, batch 1", plain, 1)]
    engines = {"engine": Engine(plain)}
    if machine.cuda:
        engines = {"engine, no graph": launched(engines["engine"])} | engines
    if compiled:
        engines["engine, compiled"] = Engine(plain, True, cache)
    paths += [
        (f"{name}, batch {batch}", engine, batch)
        for name, engine in engines.items()
        for batch in batches
    ]
    for name, networks, batch in paths:
        if machine.cuda:
            torch.cuda.reset_peak_memory_stats(machine.device)
        source, driving = scene(machine, networks, batch)
        first = machine.clock()
        with torch.inference_mode():
            # the same keypoints in every row: the first is compared
            pixels = networks.pixels(source, driving)  # type: ignore[arg-type]
        machine.wait()
        first = machine.clock() - first
        seconds = machine.time(lambda n=networks, s=source, d=driving: n.pixels(s, d)) / batch  # type: ignore[misc, arg-type]
        own_source, own_driving = scene(machine, networks, 1)
        same = torch.cat([own_driving] * batch)
        with torch.inference_mode():
            pixels = networks.pixels(own_source, same)[:1]  # type: ignore[arg-type]
        note = (
            f"{psnr(pixels, reference):.1f} dB, peak {machine.peak_memory() / 1e9:.1f} GB, "
            f"first {first:.1f} s"
        )
        yield Row("draw (W, G)", name, seconds, "frame", note), networks, batch


def pasting(machine: Machine, parts: Parts, batch: int) -> list[Row]:
    crops = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8)
    one = crops[0].numpy()
    rows = [Row("paste", "cv2", machine.time(lambda: parts.paste(one)), "frame")]
    there, crops = TensorPaste(parts.paste, machine.device), crops.to(machine.device)
    seconds = machine.time(lambda: there(crops).to("cpu", non_blocking=True))
    return [*rows, Row("paste", "torch, and to the host", seconds / batch, "frame")]


def encoding(machine: Machine, folder: Path) -> Row:
    rng = np.random.default_rng(2)
    base = np.repeat(np.repeat(rng.integers(0, 256, (16, 16, 3), np.uint8), 32, 0), 32, 1)
    pictures = [np.roll(base, k, axis=1) for k in range(64)]
    seconds = machine.time(lambda: media.write_video(pictures, folder / "encoded.mp4", FPS))
    return Row("encode (libx264)", "both", seconds / len(pictures), "frame")


def whole(
    machine: Machine,
    parts: Parts,
    networks: Networks | Engine,
    name: str,
    batch: int,
    out: Path | None,
) -> Row:
    """A clip from its crop and its sound to its file: the networks loaded, the face found."""
    wave = np.random.default_rng(3).standard_normal(machine.frames * SAMPLES_PER_FRAME)
    timeline: Timeline = parse_emotion("none")

    def clip() -> None:
        volume, _ = parts.extractors.extract(parts.crop)
        source = Source(parts.motion[0], torch.rand(21, 3) - 0.5)
        features = SpeechFeatures(parts.encoder, wave.astype(np.float32) * 0.1)
        take = released_take(parts.model, features, timeline, SamplerConfig(), source)
        list(sample(parts.model, take))
        renderer = LivePortrait(networks, source, volume, parts.paste, batch_size=batch)
        drawn = renderer.render(parts.motion)
        if out is None:
            for _ in drawn:
                pass
        else:
            media.write_video(drawn, out / "clip.mp4", FPS)

    if machine.cuda:
        torch.cuda.reset_peak_memory_stats(machine.device)
    seconds = replace(machine, repeats=1).time(clip)
    rtf = seconds * FPS / machine.frames
    note = f"RTF {rtf:.3f}, peak {machine.peak_memory() / 1e9:.1f} GB"
    return Row(
        "whole" if out else "whole but encoding", name, seconds / machine.frames, "frame", note
    )


def encoder_missing() -> str | None:
    """Why nothing can be encoded here, if so."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            black = [np.zeros((64, 64, 3), np.uint8)] * 2
            media.write_video(black, Path(folder) / "a.mp4", FPS)
    except (ImportError, ModaError, OSError, RuntimeError) as error:
        return str(error)
    return None


def costs(machine: Machine, parts: Parts) -> dict[str, dict[str, float]]:
    """Operations and traffic per frame, counted on this machine."""
    table = {}
    for name, networks in (("plain", parts.networks), ("engine", Engine(parts.networks))):
        source, driving = scene(machine, networks, 1)
        found = cost(lambda n=networks, s=source, d=driving: n.picture(s, d), 1)  # type: ignore[misc, arg-type]
        table[name] = {"gflop": found.flops / 1e9, "gigabyte": found.traffic / 1e9}
    return table


def default_batches(machine: Machine) -> list[int]:
    """The batch that a user gets."""
    return [fitting_batch(machine.device, machine.dtype)]
