"""The motion generator: a trained MMDiT with its statistics, and how it is sampled."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import NO_EMOTION, AudioKind, ModelConfig, SamplerConfig, SourceKind
from moda_cli.emotion import Timeline, emotion_shares
from moda_cli.errors import WeightsError
from moda_cli.features.audio import LogMel, Read, Samples, reader
from moda_cli.features.speech import ADDED, LiveSpeech, SpeechFeatures
from moda_cli.model.mmdit import MMDiT
from moda_cli.motion import EPS, LIP_KEYPOINTS, MOUTH_CHANNELS, SCALE, Source, Stats
from moda_cli.sampler import (
    CountFrames,
    Term,
    Velocity,
    euler_sigmas,
    guidance_terms,
    modulate_lips,
    modulate_lips_live,
    sample_windows,
)
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
        return cls(network.to(device).eval(), stats)

    def save(self, directory: Path) -> None:
        """Write the model directory, the weights as float16."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(asdict(self.network.config), indent=2))
        self.stats.write(directory / "stats.json")
        state = {name: tensor.half() for name, tensor in self.network.state_dict().items()}
        save_file(state, directory / "model.safetensors")


def read_config(directory: Path) -> ModelConfig:
    """The shape of a model directory's network. Raises WeightsError where it is no such thing."""
    try:
        config = ModelConfig(**json.loads((directory / "config.json").read_text()))
        if config.audio not in get_args(AudioKind) or config.source not in get_args(SourceKind):
            raise ValueError(f"unknown audio {config.audio!r} or source {config.source!r}")
        return config
    except (OSError, ValueError, TypeError) as error:
        raise _no_model(directory, error) from None


def _no_model(directory: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{directory} is not a model directory: {error}",
        hint="it needs the model.safetensors, config.json and stats.json of a training run",
    )


def guided_velocity(
    network: MMDiT,
    terms: Sequence[Term],
    audio: Tensor,
    emotions: Mapping[int, Tensor],
    identity: Tensor,
    prev: Tensor,
) -> Velocity:
    """The guided velocity of B windows, all evaluations in one batch.

    audio: (B, N, layers, channels). emotions: the share (N,) each class has in each frame; shares
    sum to 1, so a timeline blends the velocities of its classes. identity: (B, 63). prev: (B, 1,
    70) normalised. Raises no error of ours.
    """
    weights: dict[tuple[bool, int], Tensor] = {}  # (audio kept, class) -> (N,)
    for label, share in emotions.items():
        for term in terms:
            key = (term.audio, label if term.emotion else NO_EMOTION)
            weights[key] = weights.get(key, torch.zeros_like(share)) + term.weight * share
    weights = {key: weight for key, weight in weights.items() if weight.any()}

    batch, count = len(audio), len(weights)
    null = network.null_features(audio)
    labels = torch.tensor([label for _, label in weights], device=audio.device)
    given = network.embed(
        torch.cat([audio if kept else null for kept, _ in weights]),
        labels.repeat_interleave(batch),
        identity.repeat(count, 1),
    )
    prev = prev.repeat(count, 1, 1)
    weight = torch.stack(list(weights.values())).to(audio)[:, None, :, None]  # (K, 1, N, 1)

    def velocity(z: Tensor, sigma: float) -> Tensor:
        timestep = torch.full((count * batch,), 1000 * sigma, device=z.device)
        each = network(z.repeat(count, 1, 1), prev, timestep, given)
        guided: Tensor = (weight * each.unflatten(0, (count, batch))).sum(dim=0)
        return guided

    return velocity


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


def _sample(
    model: MotionGenerator,
    audio_at: Callable[[int], Tensor],
    num_frames: int | CountFrames,
    timeline: Timeline,
    config: SamplerConfig,
    start: _Start,
    draw_noise: DrawNoise,
) -> Iterator[Tensor]:
    """Yield normalised motion (n, 70) on the CPU; audio_at(frame) is a window's features."""
    shape, device = model.network.config, model.device
    terms = guidance_terms(config, shape)
    identity = start.identity[None].to(device)

    def velocity_at(frame: int, prev: Tensor) -> Velocity:
        audio = audio_at(frame)[None].to(device)
        shares = emotion_shares(timeline, frame, shape.window)
        return guided_velocity(model.network, terms, audio, shares, identity, prev)

    pieces = sample_windows(
        velocity_at,
        num_frames,
        start.prev[None, None].to(device),
        euler_sigmas(config.steps),
        lambda: draw_noise().to(device),
        overlap=shape.overlap,
    )
    for z in pieces:
        yield z[0].cpu()


def sample_motion(
    model: MotionGenerator,
    wave: Samples | Read,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None = None,
) -> Iterator[Tensor]:
    """Yield physical motion (n, 70) at 25 fps for a 16 kHz wave, one row per 640 samples.

    Windows are causal: each hears the sound up to its own end, as log-mel, so that the wave may
    still be arriving. The first frame is the source picture's, and the clip eases out of it. Raises
    WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, _start(model, source)
    mel = LogMel(wave if callable(wave) else reader(wave))
    pieces = _sample(
        model,
        lambda frame: mel.window(frame, shape.window),
        mel.frames,
        timeline,
        config,
        start,
        window_noise(shape, config.seed),
    )
    done = 0
    for z in pieces:
        motion = _physical(model, z, start)
        ease = (torch.arange(done, done + len(motion)) / EASE_IN).clamp(max=1)[:, None]
        done += len(motion)
        yield torch.lerp(start.motion, motion, ease * ease * (3 - 2 * ease))


def sample_released(
    model: MotionGenerator,
    features: SpeechFeatures,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None,
    draw_noise: DrawNoise | None = None,
) -> Tensor:
    """Physical motion (T, 70) of a whole clip, the silence after its speech trimmed.

    The release's order of operations (moda-release.md sections 9 to 11); its lips move away from
    their rest in that silence. draw_noise() gives one window's noise (1, window, 70), by default
    from the seed. Raises WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, _start(model, source)
    pieces = _sample(
        model,
        lambda frame: features.window(frame, shape.window),
        len(features),
        timeline,
        config,
        start,
        draw_noise or window_noise(shape, config.seed),
    )
    z = torch.cat(list(pieces))
    z = modulate_lips(z, z[LIP_REFERENCE], LIP_KEYPOINTS)
    return _physical(model, z[:-ADDED], start)


def sample_live(
    model: MotionGenerator,
    features: LiveSpeech,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None,
) -> Iterator[Tensor]:
    """Yield physical motion (n, 70) of a sound that may still be arriving (decisions.md 10).

    As `sample_released`, but lips move away from their rest in silence that is sampled first, by
    the largest distance so far. Raises WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, _start(model, source)

    def sample(
        audio_at: Callable[[int], Tensor], num_frames: int | CountFrames
    ) -> Iterator[Tensor]:
        noise = window_noise(shape, config.seed)
        return _sample(model, audio_at, num_frames, timeline, config, start, noise)

    quiet = features.silence(shape.window)
    rest = torch.cat(list(sample(lambda _: quiet, ADDED)))[LIP_REFERENCE]
    pieces = sample(lambda frame: features.window(frame, shape.window), features.frames)
    for z in modulate_lips_live(pieces, rest, LIP_KEYPOINTS):
        yield _physical(model, z, start)
