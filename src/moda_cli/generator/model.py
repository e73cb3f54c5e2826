"""The motion generator: a trained MMDiT with its statistics, and how it is sampled."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import NO_EMOTION, AudioKind, ModelConfig, SamplerConfig, SourceKind
from moda_cli.control import Timeline, emotion_shares
from moda_cli.device import keep_compiled
from moda_cli.errors import WeightsError
from moda_cli.files import atomic_write
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.sampler import (
    CountFrames,
    Term,
    Velocity,
    Windows,
    euler_sigmas,
    guidance_terms,
    modulate_lips,
    modulate_lips_live,
    sample_windows,
)
from moda_cli.media.waves import Read, Samples, reader
from moda_cli.motion import EPS, LIP_KEYPOINTS, MOUTH_CHANNELS, SCALE, Source, Stats
from moda_cli.speech.logmel import LogMel
from moda_cli.speech.released import ADDED, LiveSpeech, SpeechFeatures
from moda_cli.weights.state import load_strict

MODEL_FILES = ("config.json", "model.safetensors", "stats.json")  # decisions.md 2
EASE_IN = 10  # frames over which a clip leaves the source picture
SIZED = slice(63, 67)  # scale and translation grow with the face in its crop
LIP_REFERENCE = -(ADDED * 3 // 4)  # the frame of the added silence in which lips rest

DrawNoise = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class MotionGenerator:
    """A network and the statistics of the motion it was trained on."""

    network: MMDiT
    stats: Stats

    @property
    def device(self) -> torch.device:
        """Where the network is; statistics stay on the CPU."""
        return self.network.null_audio.device

    @property
    def starts_from_portrait(self) -> bool:
        """Whether the model begins at the portrait's own motion, not at one of its own."""
        return self.network.config.source == "extracted"

    def neutral(self, source: Source | None) -> Tensor:
        """The motion (70) at which a frame is the portrait itself."""
        if not self.starts_from_portrait:
            return self.stats.neutral
        assert source is not None  # such models have their portraits looked at by the extractors
        return source.motion

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> "MotionGenerator":
        """Read model.safetensors, config.json and stats.json (decisions.md 2).

        Raises WeightsError where one is missing, corrupt or of another shape.
        """
        config = read_config(directory)
        try:
            stats = Stats.read(directory / "stats.json")
            state = load_file(directory / "model.safetensors")
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise _no_model(directory, error) from None
        with torch.device("meta"):
            network = MMDiT(config)
        load_strict(network, state, str(directory / "model.safetensors"))
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise _no_model(directory, ValueError("model.safetensors holds non-finite numbers"))
        return cls(network.to(device).eval(), stats)

    def compile(self, cache: Path, *, graphs: bool) -> None:
        """Send the network's steps through torch.compile.

        graphs: each step becomes one CUDA graph, which belongs to the thread that samples. What is
        made is kept in `cache`, so that only the first run waits for it.
        """
        keep_compiled(cache)
        self.network.compile(mode="reduce-overhead" if graphs else "default")

    def save(self, directory: Path) -> None:
        """Write the model directory, the weights as float16."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(asdict(self.network.config), indent=2))
        self.stats.write(directory / "stats.json")
        state = {name: tensor.half() for name, tensor in self.network.state_dict().items()}
        with atomic_write(directory / "model.safetensors") as path:
            save_file(state, path)


def read_config(directory: Path) -> ModelConfig:
    """The shape of a model directory's network. Raises WeightsError where it is no such thing."""
    try:
        config = ModelConfig(**json.loads((directory / "config.json").read_text()))
        if config.audio not in get_args(AudioKind) or config.source not in get_args(SourceKind):
            raise ValueError(f"unknown audio {config.audio!r} or source {config.source!r}")
        for field in fields(config):
            if not _is_usable(field, value := getattr(config, field.name)):
                raise ValueError(f"{field.name} is {value!r}")
        if config.overlap >= config.window:
            raise ValueError(f"windows of {config.window} frames share {config.overlap}")
        return config
    except (OSError, ValueError, TypeError) as error:
        raise _no_model(directory, error) from None


def _is_usable(field: Field[Any], value: Any) -> bool:
    """Whether a number of a config.json is one that its field can have."""
    if isinstance(field.default, int):
        least = 0 if field.name.endswith("_depth") or field.name == "overlap" else 1
        return type(value) is int and value >= least
    if isinstance(field.default, str):
        return isinstance(value, str)
    return value is None or math.isfinite(value)


def _no_model(directory: Path, error: Exception) -> WeightsError:
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
    return WeightsError(
        f"{directory} is not a model directory: {reason}",
        hint="give mini, moda, or a training run's folder: model.safetensors, config.json and"
        " stats.json",
    )


@dataclass(frozen=True, slots=True)
class Window:
    """What a window's motion depends on, beside its noise."""

    audio: Tensor  # (N, layers, channels)
    emotions: Mapping[int, Tensor]  # the share (N,) of each class; shares sum to 1 in every frame
    identity: Tensor  # (63)
    prev: Tensor  # (1, 70) normalised, the frame before
    terms: Sequence[Term]  # the guidance


def guided_velocity(network: MMDiT, windows: Sequence[Window], sigmas: Sequence[float]) -> Velocity:
    """The guided velocity of B windows at these noise levels, all evaluations in one batch.

    An emotion timeline blends the velocities of its classes. What does not change from step to
    step is computed here, once.
    """
    evaluations = [_evaluations(window) for window in windows]
    counts = [len(own) for own in evaluations]
    kept, labels, weights = zip(*(each for own in evaluations for each in own), strict=True)
    device = windows[0].audio.device
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    at = torch.tensor(rows, device=device)  # the window of each evaluation

    heard = torch.stack([window.audio for window in windows])[at]
    keep = torch.tensor(kept, device=device)[:, None, None, None]
    given = network.embed(
        torch.where(keep, heard, network.null_features(heard)),
        torch.tensor(labels, device=device),
        torch.stack([window.identity for window in windows])[at],
    )
    prev = torch.stack([window.prev for window in windows])[at]
    weight = torch.stack(weights).to(heard)[..., None]  # (evaluations, N, 1)
    timesteps = 1000 * torch.tensor(sigmas, device=device)
    adaln = dict(zip(sigmas, network.schedule(timesteps, given), strict=True))

    def velocity(z: Tensor, sigma: float) -> Tensor:
        each = weight * network(z[at], prev, adaln[sigma], given)
        return torch.stack([own.sum(dim=0) for own in each.split(counts)])

    return velocity


def _evaluations(window: Window) -> list[tuple[bool, int, Tensor]]:
    """A window's network evaluations: audio kept, emotion class, weight (N,)."""
    weights: dict[tuple[bool, int], Tensor] = {}
    for label, share in window.emotions.items():
        for term in window.terms:
            key = (term.audio, label if term.emotion else NO_EMOTION)
            weights[key] = weights.get(key, torch.zeros_like(share)) + term.weight * share
    return [(*key, weight) for key, weight in weights.items() if weight.any()]


@dataclass(frozen=True, slots=True)
class _Start:
    """What a clip begins with."""

    identity: Tensor  # (63) canonical keypoints
    motion: Tensor  # (70) physical, of the source picture
    ratio: Tensor  # (1) the portrait's scale over the training mean; 1 for a constant source
    prev: Tensor  # (70) normalised, the frame before the first


def _start(model: MotionGenerator, source: Source | None) -> _Start:
    """The portrait's start for a model trained on extracted sources, else the model's own.

    The portrait's scale is divided out before the model and multiplied back by `_physical`
    (moda-release.md 2.1). Raises WeightsError for a model that needs a source and has none.
    """
    stats = model.stats
    if model.network.config.source == "constant":
        prev = stats.normalise(stats.neutral)
        return _Start(stats.identity, stats.neutral, torch.ones(1), prev)
    if source is None:
        raise WeightsError(
            "this model starts from the portrait's own motion, which the LivePortrait motion "
            "extractor reads",
            hint="run: moda download",
        )
    ratio = (source.motion[SCALE] + EPS) / (stats.mean[SCALE] + EPS)
    prev = source.motion.clone()
    prev[SIZED] /= ratio
    return _Start(source.kp_canonical.flatten(), source.motion, ratio, stats.normalise(prev))


def _physical(model: MotionGenerator, z: Tensor, start: _Start) -> Tensor:
    """Physical motion (T, 70) of normalised z, at the portrait's size."""
    motion = model.stats.denormalise(z)
    motion[:, SIZED] *= start.ratio
    return motion


def window_noise(shape: ModelConfig, seed: int) -> DrawNoise:
    """A function that draws the next window's noise (1, window, 70), on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    temperature = torch.ones(shape.motion_dim)
    temperature[list(MOUTH_CHANNELS)] = shape.lip_noise
    size = (1, shape.window, shape.motion_dim)
    return lambda: temperature * torch.randn(size, generator=generator)


@dataclass(frozen=True, slots=True)
class Take:
    """A clip to be sampled: what it hears, how it begins and is guided, how its motion is made."""

    audio_at: Callable[[int], Tensor]  # features (window, layers, channels) from a frame on
    num_frames: int | CountFrames
    timeline: Timeline
    config: SamplerConfig
    start: _Start
    draw_noise: DrawNoise
    finish: Callable[[Iterable[Tensor]], Iterator[Tensor]]  # normalised (n, 70) to physical


def sample(model: MotionGenerator, take: Take) -> Iterator[Tensor]:
    """Yield a clip's physical motion (n, 70), piece by piece."""
    return take.finish(z for ((_, z),) in _sample(model, [take]))


def sample_together(model: MotionGenerator, takes: Sequence[Take]) -> list[Tensor]:
    """The whole physical motion (T, 70) of each clip, windows of all of them in one batch.

    What `sample` gives, up to rounding. All have the same number of steps.
    """
    pieces: list[list[Tensor]] = [[] for _ in takes]
    for sampled in _sample(model, takes):
        for number, z in sampled:
            pieces[number].append(z)
    return [torch.cat(list(take.finish(own))) for take, own in zip(takes, pieces, strict=True)]


def _sample(model: MotionGenerator, takes: Sequence[Take]) -> Iterator[list[tuple[int, Tensor]]]:
    """Yield (clip, normalised motion (n, 70) on the CPU) of each clip that had a window."""
    shape, device = model.network.config, model.device
    sigmas = euler_sigmas(takes[0].config.steps)
    clips = [
        Windows(
            take.num_frames,
            take.start.prev[None, None].to(device),
            window=shape.window,
            overlap=shape.overlap,
        )
        for take in takes
    ]

    def window_of(number: int) -> Window:
        take, at = takes[number], clips[number]
        return Window(
            take.audio_at(at.start).to(device),
            emotion_shares(take.timeline, at.start, shape.window),
            take.start.identity.to(device),
            at.prev[0],
            guidance_terms(take.config, shape),
        )

    sampled = sample_windows(
        lambda going: guided_velocity(model.network, [window_of(k) for k in going], sigmas[:-1]),
        clips,
        sigmas,
        lambda number: takes[number].draw_noise().to(device),
    )
    for pieces in sampled:
        yield [(number, z[0].cpu()) for number, z in pieces]


def causal_take(
    model: MotionGenerator,
    wave: Samples | Read,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None = None,
) -> Take:
    """A 16 kHz wave heard as log-mel: one row of motion at 25 fps per 640 samples.

    Windows are causal: each hears the sound up to its own end, so that the wave may still be
    arriving. The first frame is the source picture's, and the clip eases out of it. Raises
    WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, _start(model, source)
    mel = LogMel(wave if callable(wave) else reader(wave))

    def finish(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        done = 0
        for z in pieces:
            motion = _physical(model, z, start)
            ease = (torch.arange(done, done + len(motion)) / EASE_IN).clamp(max=1)[:, None]
            done += len(motion)
            yield torch.lerp(start.motion, motion, ease * ease * (3 - 2 * ease))

    return Take(
        lambda frame: mel.window(frame, shape.window),
        mel.frames,
        timeline,
        config,
        start,
        window_noise(shape, config.seed),
        finish,
    )


def released_take(
    model: MotionGenerator,
    features: SpeechFeatures,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None,
    draw_noise: DrawNoise | None = None,
) -> Take:
    """A whole clip in one piece, the silence after its speech trimmed.

    The release's order of operations (moda-release.md sections 9 to 11); its lips move away from
    their rest in that silence. draw_noise() gives one window's noise (1, window, 70), by default
    from the seed. Raises WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, _start(model, source)

    def finish(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        z = torch.cat(list(pieces))
        z = modulate_lips(z, z[LIP_REFERENCE], LIP_KEYPOINTS)
        yield _physical(model, z[:-ADDED], start)

    return Take(
        lambda frame: features.window(frame, shape.window),
        len(features),
        timeline,
        config,
        start,
        draw_noise or window_noise(shape, config.seed),
        finish,
    )


def live_take(
    model: MotionGenerator,
    features: LiveSpeech,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None,
) -> Take:
    """A sound that may still be arriving (decisions.md 10).

    As `released_take`, but lips move away from their rest in silence that is sampled first, by the
    largest distance so far. Raises WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, _start(model, source)

    def take(
        audio_at: Callable[[int], Tensor],
        num_frames: int | CountFrames,
        finish: Callable[[Iterable[Tensor]], Iterator[Tensor]],
    ) -> Take:
        noise = window_noise(shape, config.seed)
        return Take(audio_at, num_frames, timeline, config, start, noise, finish)

    def finish(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        quiet = features.silence(shape.window)
        rest = torch.cat(list(sample(model, take(lambda _: quiet, ADDED, iter))))[LIP_REFERENCE]
        for z in modulate_lips_live(pieces, rest, LIP_KEYPOINTS):
            yield _physical(model, z, start)

    return take(lambda frame: features.window(frame, shape.window), features.frames, finish)
