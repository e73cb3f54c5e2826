"""Training windows from feature files, and the sounds they could have had.

What a training step sees is a pure function of the seed and the sample's number: any process can
make any sample, and a run that resumes needs to know its step and nothing else.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moda_cli.config import NO_EMOTION, ModelConfig
from moda_cli.motion import EPS, MOTION_DIM, SCALE, Stats
from moda_cli.speech.logmel import LEVEL_CONTEXT, window_features
from moda_cli.train.clip_files import FeatureFile, opened
from moda_cli.train.presets import SyncConfig, TrainConfig

HOPS_PER_S = 100
REVERB_TAPS = 40
SIZED = slice(63, 67)  # scale and translation grow with the face in its crop
DEPTH = 66  # translation z, which the release holds at 0


@dataclass(frozen=True, slots=True)
class Batch:
    """TrainingWindows of N frames and what is drawn at random for them; motion is normalised."""

    motion: Tensor  # (B, N, 70)
    prev: Tensor  # (B, 1, 70) the frame before, at a clip's start its own first; or (B, N, 70), as
    # MMDiT takes it, where frames are known
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
    """Statistics of the training clips; neutral and identity are the first one's.

    Its neutral is what it says, or its first frame.

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
        said = "neutral" in file.keys()  # noqa: SIM118
        neutral = file.get_tensor("neutral") if said else file.get_slice("motion")[0]
        identity = file.get_tensor("kp")
    return Stats(mean.float(), std.float(), neutral.float(), identity.float())


class TrainingWindows(torch.utils.data.Dataset[Batch]):
    """Sample `number` of a run: a window of one of the clips and the noise it is trained with.

    A clip's chance is proportional to its length; one window in six starts where its clip does.
    All windows of a batch have one length: the model's, or in half of the batches down to the
    shortest of `config`, for what is sampled while it is spoken; of these the first frames are
    known, most often as many as the model may be given. Conditions are dropped independently, at
    the rates of `config`.
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
        config, window = self.config, self.window_of(number // self.config.batch_size)
        generator = torch.Generator().manual_seed(_seed(config.seed, number))

        def chosen(rate: float) -> Tensor:
            return torch.rand((), generator=generator) < rate

        place = torch.randint(int(self.ends[-1]), (), generator=generator)
        clip = self.clips[int(torch.searchsorted(self.ends, place, right=True))]
        last = clip.frames - window
        start = max(0, int(torch.randint(-last // 5, last + 1, (), generator=generator)))
        sigma = torch.rand((), generator=generator)
        noise = torch.randn(window, MOTION_DIM, generator=generator)
        rows, known = 1, 0
        if window < config.model.window:
            rows, known = window, min(self._known(generator), window - 1)
        prev_noise = config.prev_noise * torch.randn(known + 1, MOTION_DIM, generator=generator)
        silent, plain, free = map(
            chosen, (config.audio_dropout, config.emotion_dropout, config.motion_dropout)
        )
        motion, audio, emotion, identity = self._read(clip, start, window, generator)
        z = self.stats.normalise(motion)
        before = torch.cat((z[:1], z[-window:][:known])) + prev_noise
        prev = before[torch.arange(1, rows + 1).clamp(max=known)]
        label = int(emotion.argmax()) if emotion.max() >= 0.5 and not plain else NO_EMOTION
        return Batch(
            motion=z[-window:],
            prev=torch.zeros_like(prev) if free else prev,
            audio=audio,
            emotion=torch.tensor(label),
            identity=identity,
            silent=silent,
            noise=noise,
            sigma=sigma,
        )

    def window_of(self, batch: int) -> int:
        """The frames of a batch's windows."""
        longest, shortest = self.config.model.window, self.config.shortest_window
        if shortest is None:
            return longest
        generator = torch.Generator().manual_seed(_seed(self.config.seed, f"batch {batch}"))
        short = torch.rand((), generator=generator) < 0.5
        drawn = int(torch.randint(shortest, longest + 1, (), generator=generator))
        return drawn if short else longest

    def _known(self, generator: torch.Generator) -> int:
        """How many frames of a short window are known: a third of the time any number."""
        most = self.config.model.known if isinstance(self.config.model, ModelConfig) else 0
        if torch.rand((), generator=generator) < 2 / 3:
            return most
        return int(torch.randint(most + 1, (), generator=generator))

    def _read(
        self, clip: FeatureFile, start: int, window: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Motion with the frame before, audio (N, layers, channels), emotion (8), identity (63)."""
        model = self.config.model
        end = start + window
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
            audio = window_features(audio, start - heard, window)
        if is_sized(model):
            motion = at_mean_size(motion, first, self.stats.mean[SCALE])
        else:
            identity = self.stats.identity
        return motion, audio, emotion, identity


def _seed(seed: int, number: int | str) -> int:
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


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
