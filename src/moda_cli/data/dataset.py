"""Training windows from a folder of feature files, and the sounds they could have had."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from moda_cli.config import NO_EMOTION
from moda_cli.errors import InputError
from moda_cli.features.audio import window_features
from moda_cli.motion import Stats

HOPS_PER_S = 100
REVERB_TAPS = 40


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of N frames; motion is normalised."""

    motion: Tensor  # (B, N, 70)
    prev: Tensor  # (B, 1, 70) the frame before; at a clip's start its own first frame
    audio: Tensor  # (B, N, layers, channels)
    emotion: Tensor  # (B,) int64 class
    identity: Tensor  # (B, 63)


class Clips:
    """The clips of one split of a feature folder (`index.jsonl` and one safetensors file each).

    Raises InputError for a folder without an index or without clips of at least one window.
    """

    def __init__(self, root: Path, split: str, window: int, stats: Stats) -> None:
        index = root / "index.jsonl"
        if not index.is_file():
            raise InputError(f"no index.jsonl in {root}", hint="is it a folder of features?")
        rows = [json.loads(line) for line in index.read_text().splitlines()]
        chosen = [row for row in rows if row["split"] == split and row["frames"] >= window]
        if not chosen:
            raise InputError(f"{root} holds no {split} clip of {window} frames")
        self.files = [root / f"{row['clip']}.safetensors" for row in chosen]
        self.frames = torch.tensor([float(row["frames"]) for row in chosen])
        self.window = window
        self.stats = stats

    def draw(self, count: int, generator: torch.Generator, *, augment: bool) -> Batch:
        """Windows at random places; a clip's chance is proportional to its length.

        One window in six starts where its clip does.
        """
        chosen = torch.multinomial(self.frames, count, replacement=True, generator=generator)
        rows = []
        for clip in chosen.tolist():
            last = int(self.frames[clip]) - self.window
            start = int(torch.randint(-last // 5, last + 1, (), generator=generator))
            rows.append(self._window(self.files[clip], max(0, start), augment, generator))
        return Batch(*(torch.stack(parts) for parts in zip(*rows, strict=True)))

    def _window(
        self, path: Path, start: int, augment: bool, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        end = start + self.window
        with safe_open(path, framework="pt") as file:
            motion = file.get_slice("motion")[max(0, start - 1) : end].float()
            mel = file.get_slice("audio")[:end].float()
            emotion, identity = file.get_tensor("emotion"), file.get_tensor("kp")
        if augment:
            mel = augment_log_mel(mel, generator)
        label = int(emotion.argmax()) if emotion.max() >= 0.5 else NO_EMOTION
        return (
            self.stats.normalise(motion[-self.window :]),
            self.stats.normalise(motion[:1]),
            window_features(mel, start, self.window),
            torch.tensor(label),
            identity,
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
