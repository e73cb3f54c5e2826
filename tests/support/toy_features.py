"""A feature folder without speech: three articulators that three bands of the sound give away."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from moda_cli.motion import MOTION_DIM, encode
from moda_cli.train.clip_files import read_index
from moda_cli.train.dataset import TrainingWindows, feature_stats
from moda_cli.train.presets import MINI, PRESETS, TrainConfig

TINY = replace(MINI, hidden_dim=32, num_heads=2, single_stream_depth=1)
SHORT = replace(
    PRESETS["mini"], model=TINY, steps=12, batch_size=4, bf16=False, compile=False, augment=False,
    log_every=2, checkpoint_every=2, validate_every=6, validate_windows=2, shortest_window=None,
)  # fmt: skip


def short(**changes: Any) -> TrainConfig:
    """A run of seconds."""
    return replace(SHORT, **changes)


def write_features(
    root: Path, clips: int = 6, frames: int = 120, held_out: int = 1, seed: int = 0
) -> Path:
    """Clips whose jaw, spread and round follow a third of the mels each; the last are for tests."""
    generator = torch.Generator().manual_seed(seed)
    root.mkdir(exist_ok=True)
    rows = []
    hann = torch.hann_window(9)[1:-1]
    for k in range(clips):
        curves = torch.randn(3, 1, frames + len(hann) - 1, generator=generator)
        curves = torch.sigmoid(2 * torch.conv1d(curves, hann[None, None]))[:, 0]  # smooth, 0..1
        articulators = torch.zeros(frames, 8)
        articulators[1:, :3] = (curves * torch.tensor([50, 15, 12])[:, None]).T[1:]
        motion = torch.zeros(frames, MOTION_DIM)
        motion[:, :63] = encode(articulators)
        motion[:, 63] = 1.3
        grain = torch.randn(frames, 4, 80, generator=generator)
        bands = curves.repeat_interleave(torch.tensor([27, 27, 26]), dim=0).T[:, None]
        emotion = torch.zeros(8)
        emotion[k % 4] = 1.0 if k % 2 else 0.4
        tensors = {
            "motion": motion,
            "audio": (6 * bands - 8 + 0.3 * grain).half(),
            "emotion": emotion,
            "kp": torch.full((63,), 0.1),
        }
        save_file(tensors, root / f"c{k}.safetensors")
        split = "test" if k >= clips - held_out else "train"
        rows.append({"clip": f"c{k}", "split": split, "frames": frames})
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def windows_of(root: Path, config: TrainConfig) -> TrainingWindows:
    """The training windows of a folder."""
    clips = read_index(root, "train", config.model.window)
    return TrainingWindows(clips, feature_stats(clips, config.model), config)
