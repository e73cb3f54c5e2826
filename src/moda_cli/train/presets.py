"""What `moda train --config` knows by name. Standard library only: `moda --help` reads it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from moda_cli.config import AudioKind, ModelConfig

MINI = ModelConfig(
    audio="logmel",
    audio_layers=4,
    audio_dim=80,
    source="constant",
    hidden_dim=128,
    num_heads=4,
    four_stream_depth=1,
    two_stream_depth=1,
    single_stream_depth=2,
    guidance=None,
    audio_scale=3.0,
    audio_scale_live=4.0,
    audio_scale_above=0.6,
    audio_scale_mouth=True,
    lip_noise=0.25,
    known=16,
    steps=7,
    second_order=True,
    last_sigma=None,
)


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """Shape of the sync expert ALSE: two towers over short windows, lips and audio."""

    audio: AudioKind = "hubert"
    audio_layers: int = 12
    audio_dim: int = 768
    hidden_dim: int = 256
    embed_dim: int = 128
    depth: int = 3  # convolutions over 5 frames: each window has 4 depth + 1
    window: int = 80  # frames of a training sample


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run. The defaults are the paper's; what it does not give says so."""

    model: ModelConfig | SyncConfig = field(default_factory=ModelConfig)
    start: str | None = None  # mini, moda or a run, whose weights and statistics it begins with
    epochs: float = 500  # passes over all windows of the training split
    steps: int | None = None  # instead of `epochs`
    batch_size: int = 512  # windows per step, over all processes
    accumulate: int = 1  # parts in which a process does its share of a batch
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0  # AdamW; 0 is Adam
    beta2: float = 0.999
    clip_norm: float = 1.0  # ours
    ema_decay: float = 0.999  # ours
    velocity_weight: float = 1.0  # of Eq. 5
    alse: str | None = None  # model directory of a sync expert: adds its loss (Eq. 6)
    alse_threshold: float = 0.4  # tau of Eq. 7
    audio_dropout: float = 0.5
    emotion_dropout: float = 0.1
    motion_dropout: float = 0.1  # of the frame before the window; the rate is ours
    prev_noise: float = 0.0  # added to that frame, in z: generated frames are not exact
    shortest_window: int | None = None  # frames: half of the batches have windows down to it
    augment: bool = False  # other voices, rooms and noise, on log-mel features
    bf16: bool | Literal["auto"] = "auto"  # auto: where the device computes in it
    compile: bool = True
    checkpointing: bool = False  # of activations: larger batches fit, a step takes a third longer
    log_every: int = 10  # steps
    checkpoint_every: int = 500
    validate_every: int = 1000
    validate_on: str = "test"  # split
    validate_windows: int = 32
    seed: int = 0


PRESETS = {
    "moda": TrainConfig(),
    "mini": TrainConfig(
        model=MINI,
        steps=14_000,
        batch_size=16,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=300,
        weight_decay=0.01,
        beta2=0.99,
        velocity_weight=0.1,
        audio_dropout=0.15,
        emotion_dropout=0.0,  # the corpus itself holds unlabelled speech: class `none`
        prev_noise=0.1,
        shortest_window=20,
        compile=False,  # every length of a window would be compiled anew
        augment=True,
    ),
    "four-stream": TrainConfig(  # Table 3, w/o C2F
        model=ModelConfig(four_stream_depth=21, two_stream_depth=0, single_stream_depth=0)
    ),
    "cross-attention": TrainConfig(  # Table 3, w/ CABA
        model=ModelConfig(
            four_stream_depth=0,
            two_stream_depth=0,
            single_stream_depth=0,
            cross_attention_depth=21,
        )
    ),
    "alse": TrainConfig(model=SyncConfig(), epochs=50, batch_size=64),
}

# What a run that starts from a trained model changes in its preset: a few minutes of one person.
FINE_TUNING: dict[str, Any] = {
    "steps": 600,
    "schedule": "cosine",
    "warmup_steps": 50,
    "ema_decay": 0.99,
    "checkpoint_every": 100,
    "validate_every": 200,
}
SLOWER = 0.2  # of the preset's learning rate
