"""Training windows from a folder of feature files, and the sounds they could have had.

What a training step sees is a pure function of the seed and the sample's number: any process can
make any sample, and a run that resumes needs to know its step and nothing else.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moda_cli.config import FPS, NO_EMOTION, ModelConfig
from moda_cli.data.feature_files import read_listing
from moda_cli.errors import InputError
from moda_cli.motion import EPS, MOTION_DIM, SCALE, Stats
from moda_cli.speech.logmel import LEVEL_CONTEXT, window_features
from moda_cli.train.presets import SyncConfig, TrainConfig

HOPS_PER_S = 100
REVERB_TAPS = 40
SIZED = slice(63, 67)  # scale and translation grow with the face in its crop
DEPTH = 66  # translation z, which the release holds at 0


@dataclass(frozen=True, slots=True)
class Batch:
    """TrainingWindows of N frames and what is drawn at random for them; motion is normalised."""

    motion: Tensor  # (B, N, 70)
    prev: Tensor  # (B, 1, 70) the frame before; at a clip's start its own first frame
    audio: Tensor  # (B, N, layers, channels)
    emotion: Tensor  # (B,) int64 class
    identity: Tensor  # (B, 63)
    silent: Tensor  # (B,) bool, the audio is to be dropped
    noise: Tensor  # (B, N, 70)
    sigma: Tensor  # (B,) in [0, 1], 1 is noise

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(part.to(device, non_blocking=True) for part in self.parts()))

    def pin_memory(self) -> "Batch":
        """The hook of torch's loader for classes it does not know."""
        return Batch(*(part.pin_memory() for part in self.parts()))

    def parts(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def stack(samples: Sequence[Batch]) -> Batch:
    """A batch of samples, which have no first dimension."""
    columns = zip(*(sample.parts() for sample in samples), strict=True)
    return Batch(*(torch.stack(column) for column in columns))


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A feature file: motion (T, 70), kp (63), audio (T, layers, channels), emotion (8)."""

    path: Path
    frames: int
    kind: str | None = None  # of its audio features, where the index says so


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A feature file, of which slices can be read. Raises InputError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read {path}: {error}", hint="run `moda extract --verify`"
        ) from None


def read_index(root: Path, split: str, window: int) -> list[FeatureFile]:
    """The clips of a split that hold at least one window, in the order of `index.jsonl`.

    Raises InputError for a folder without an index or without such clips.
    """
    index = root / "index.jsonl"
    hint = "FEATURES is a folder that `moda extract` has written"
    if not index.is_file():
        raise InputError(f"no index.jsonl in {root}", hint=hint)
    try:
        rows = read_listing(index)
        chosen = [row for row in rows if row["split"] == split and row["frames"] >= window]
        rates = {row.get("options", {}).get("fps", FPS) for row in chosen}
        clips = [
            FeatureFile(
                root / f"{row['clip']}.safetensors",
                row["frames"],
                row.get("options", {}).get("audio"),
            )
            for row in chosen
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{index} is damaged: {error!r}", hint=hint) from None
    if rates - {FPS}:
        raise InputError(f"{root} holds features at other rates than {FPS} fps: {rates}", hint=hint)
    if not clips:
        splits = ", ".join(sorted({str(row["split"]) for row in rows}))
        raise InputError(
            f"{root} holds no {split} clip of {window} frames",
            hint=f"its splits: {splits}; --set validate_on=train measures on training clips",
        )
    return clips


def at_mean_size(motion: Tensor, first: Tensor, mean_scale: Tensor) -> Tensor:
    """Motion (T, 70) as if its clip's first frame (70) had the mean scale.

    So the release brings a source portrait to the size its statistics are of.
    """
    motion = motion.clone()
    motion[:, DEPTH] = 0
    motion[:, SIZED] /= (first[SCALE] + EPS) / (mean_scale + EPS)
    return motion


def is_sized(model: ModelConfig | SyncConfig) -> bool:
    """Whether faces are brought to one size: a model with its own constant source needs it not."""
    return isinstance(model, ModelConfig) and model.source == "extracted"


def feature_stats(clips: Sequence[FeatureFile], model: ModelConfig | SyncConfig) -> Stats:
    """Statistics of the training clips; neutral and identity are the first one's first frame.

    The mean scale is that of the motion as it is, all else that of the motion at mean size.
    """
    count = sum(clip.frames for clip in clips)
    mean_scale = torch.zeros(1).double()
    if is_sized(model):
        for clip in clips:
            with opened(clip.path) as file:
                mean_scale += file.get_slice("motion")[:, SCALE].double().sum() / count
    total, squares = torch.zeros(2, MOTION_DIM).double()
    for clip in clips:
        with opened(clip.path) as file:
            motion = file.get_tensor("motion").double()
        if is_sized(model):
            motion = at_mean_size(motion, motion[0], mean_scale)
        total += motion.sum(dim=0)
        squares += motion.square().sum(dim=0)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std[std < EPS] = 0  # constant but for rounding
    if is_sized(model):
        mean[SCALE] = mean_scale
    with opened(clips[0].path) as file:
        neutral, identity = file.get_slice("motion")[0], file.get_tensor("kp")
    return Stats(mean.float(), std.float(), neutral.float(), identity.float())


class TrainingWindows(torch.utils.data.Dataset[Batch]):
    """Sample `number` of a run: a window of one of the clips and the noise it is trained with.

    A clip's chance is proportional to its length; one window in six starts where its clip does.
    Conditions are dropped independently, at the rates of `config`.
    """

    def __init__(self, clips: Sequence[FeatureFile], stats: Stats, config: TrainConfig) -> None:
        self.clips, self.stats, self.config = clips, stats, config
        self.ends = torch.tensor([clip.frames for clip in clips]).cumsum(0)

    @property
    def in_one_pass(self) -> int:
        """TrainingWindows that lie side by side in the clips: an epoch."""
        return sum(clip.frames // self.config.model.window for clip in self.clips)

    def __getitem__(self, number: int) -> Batch:
        """The sample as a batch without its first dimension. Raises InputError."""
        config, window = self.config, self.config.model.window
        generator = torch.Generator().manual_seed(_seed(config.seed, number))

        def chosen(rate: float) -> Tensor:
            return torch.rand((), generator=generator) < rate

        place = torch.randint(int(self.ends[-1]), (), generator=generator)
        clip = self.clips[int(torch.searchsorted(self.ends, place, right=True))]
        last = clip.frames - window
        start = max(0, int(torch.randint(-last // 5, last + 1, (), generator=generator)))
        sigma = torch.rand((), generator=generator)
        noise = torch.randn(window, MOTION_DIM, generator=generator)
        prev_noise = config.prev_noise * torch.randn(1, MOTION_DIM, generator=generator)
        silent, plain, free = map(
            chosen, (config.audio_dropout, config.emotion_dropout, config.motion_dropout)
        )
        motion, audio, emotion, identity = self._read(clip, start, generator)
        z = self.stats.normalise(motion)
        label = int(emotion.argmax()) if emotion.max() >= 0.5 and not plain else NO_EMOTION
        return Batch(
            motion=z[-window:],
            prev=torch.zeros_like(z[:1]) if free else z[:1] + prev_noise,
            audio=audio,
            emotion=torch.tensor(label),
            identity=identity,
            silent=silent,
            noise=noise,
            sigma=sigma,
        )

    def _read(
        self, clip: FeatureFile, start: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Motion with the frame before, audio (N, layers, channels), emotion (8), identity (63)."""
        model = self.config.model
        end = start + model.window
        mel = model.audio == "logmel"  # its level needs what was heard before
        heard = max(0, end - LEVEL_CONTEXT) if mel else start
        with opened(clip.path) as file:
            part = file.get_slice("motion")
            motion, first = part[max(0, start - 1) : end].float(), part[0].float()
            audio = file.get_slice("audio")[heard:end]
            emotion, identity = file.get_tensor("emotion"), file.get_tensor("kp").float()
        if mel:
            audio = audio.float()
            if self.config.augment:
                audio = augment_log_mel(audio, generator)
            audio = window_features(audio, start - heard, model.window)
        if is_sized(model):
            motion = at_mean_size(motion, first, self.stats.mean[SCALE])
        else:
            identity = self.stats.identity
        return motion, audio, emotion, identity


def _seed(seed: int, number: int) -> int:
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def check_features(clip: FeatureFile, model: ModelConfig | SyncConfig) -> None:
    """Raises InputError for features of another kind than the model hears."""
    with opened(clip.path) as file:
        found = file.get_slice("audio").get_shape()[1:]
    wanted = [model.audio_layers, model.audio_dim]
    # wav2vec2 and hubert are of one shape
    if found != wanted or clip.kind not in (None, model.audio):
        raise InputError(
            f"{clip.path} holds {clip.kind or 'audio'} features of {found[0]} x {found[-1]}, "
            f"and the model hears {model.audio} of {model.audio_layers} x {model.audio_dim}",
            hint="choose --config, or --set model.audio=, model.audio_layers= and model.audio_dim=",
        )


def augment_log_mel(mel: Tensor, generator: torch.Generator) -> Tensor:
    """The same speech (T, hops, mels) in another voice, room, microphone and noise.

    Mel-axis warp +-10 %, reverberation, noise at 12-45 dB, a smooth equaliser, gain; each of the
    first three on half of the calls.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    frames, hops, mels = mel.shape
    x = mel.flatten(0, 1)  # (T * hops, mels)
    if uniform(0, 1) < 0.5:
        position = (torch.arange(mels) * uniform(0.9, 1.1)).clamp(max=mels - 1)
        low = position.long()
        x = torch.lerp(x[:, low], x[:, (low + 1).clamp(max=mels - 1)], position - low)
    if uniform(0, 1) < 0.5:
        decay = 10 ** (-6 / HOPS_PER_S / uniform(0.2, 0.6))  # power per hop, from the RT60
        taps = 10 ** (-uniform(0.8, 2.0)) * decay ** torch.arange(REVERB_TAPS, 0, -1)
        padded = torch.nn.functional.pad(x.exp().T[:, None], (REVERB_TAPS, -1))
        tail = torch.nn.functional.conv1d(padded, taps[None, None])
        x = (x.exp() + tail[:, 0].T).log()
    if uniform(0, 1) < 0.5:
        loud = float(x.mean(dim=-1).quantile(0.95))
        tilt = torch.linspace(uniform(-1.5, 2.5), uniform(-2.5, 1.0), mels)
        grain = torch.rand(x.shape, generator=generator).clamp(min=1e-4).log().neg()
        noise = loud - math.log(10) * uniform(1.2, 4.5) + tilt + grain.add(0.3).log()
        x = torch.logaddexp(x, noise)
    phase = torch.linspace(0, math.pi, mels)
    bands = torch.randn(4, generator=generator) * torch.tensor([1.0, 0.8, 0.6, 0.4])
    waves = torch.stack([torch.cos(phase * (k + 1)) for k in range(len(bands))])
    tone = bands @ waves
    heard: Tensor = x + tone + uniform(-5.5, 1.5)
    return heard.reshape(frames, hops, mels)
