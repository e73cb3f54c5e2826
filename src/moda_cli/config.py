"""Every setting, as dataclasses. Standard library only: `moda --help` reads the defaults."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FPS = 25  # motion frames per second
SAMPLE_RATE = 16_000  # of every wave inside the tool, Hz
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

EMOTIONS = ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise", "none")
EMOTION_ALIASES = {"happiness": "happy", "sadness": "sad", "angry": "anger"}
NO_EMOTION = EMOTIONS.index("none")

# How files are told apart where a folder is searched; a file named by the user may end as it likes.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".wma")
VIDEOS = (
    ".mp4",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".flv",
    ".wmv",
)

AudioKind = Literal["logmel", "hubert", "wav2vec2"]
SourceKind = Literal["extracted", "constant"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of the C2F MMDiT and of what it reads. The defaults are the released checkpoint."""

    motion_dim: int = 70  # 63 expression + 1 scale + 3 translation + 3 rotation
    identity_dim: int = 63  # canonical keypoints
    audio: AudioKind = "hubert"
    audio_layers: int = 12
    audio_dim: int = 768
    source: SourceKind = "extracted"  # identity and first frame: the portrait's, or the model's own
    hidden_dim: int = 768
    num_heads: int = 12
    mlp_ratio: int = 4
    four_stream_depth: int = 3  # motion | audio | emotion | identity
    two_stream_depth: int = 6  # motion | all conditions
    single_stream_depth: int = 12
    cross_attention_depth: int = 0  # ablation CABA: instead of all the others
    window: int = 80  # frames generated at once
    overlap: int = 16  # frames shared by neighbouring windows
    # How this model is sampled unless asked otherwise: joint guidance, or a scale for the audio.
    guidance: float | None = 1.2
    audio_scale: float | None = None
    lip_noise: float = 1.0  # of the mouth channels' initial noise: less gives surer lips


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How motion is drawn. Guidance is joint unless a per-condition scale is given.

    Without any of the three the model's own is taken; beside another scale an absent one is the
    model's, or 1 where it has none.
    """

    steps: int = 10
    guidance: float | None = None  # v_null + S (v_full - v_null), the release's form
    audio_scale: float | None = None  # paper Eq. 8, 1 is off
    emotion_scale: float | None = None  # paper Eq. 8, 1 is off
    seed: int = 42


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
    audio_scale=4.0,
    lip_noise=0.5,
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

    model: ModelConfig | SyncConfig = ModelConfig()
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
    augment: bool = False  # other voices, rooms and noise, on log-mel features
    bf16: bool = True
    compile: bool = True
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
        steps=11_000,
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


@dataclass(frozen=True, slots=True)
class RenderConfig:
    """What is done with the motion once it is sampled, and the shape of the frames."""

    head_motion: float = 1.0  # multiplies pose - neutral pose
    expression_scale: float = 1.0  # multiplies expression - neutral expression
    blink: bool = True  # False holds the lids at neutral
    full_frame: bool = True  # False: the 512 crop round the face
    size: int | None = None  # longer side of the frames in pixels; None: MAX_SIDE at most
    fps: float = FPS


LIMITS: dict[str, tuple[int, int]] = {  # of the options above and below, ends included
    "steps": (1, 1000),
    "seed": (0, 2**63 - 1),
    "guidance": (0, 20),
    "audio_scale": (0, 20),
    "emotion_scale": (0, 20),
    "head_motion": (0, 10),
    "expression_scale": (0, 10),
    "fps": (1, 120),
    "size": (64, 4096),
    "crf": (0, 63),
}
SIDE_FILES = ("save_motion", "plot", "preview", "show_landmarks", "save_crop")


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Everything about one clip: what goes in, what comes out, and how."""

    portrait: Path
    audio: Path  # "-" is stdin
    output: Path  # its suffix chooses the container; %06d makes PNGs
    emotion: str = "none"  # a class or a timeline
    face: str = "largest"  # or left, right, or a number from the left
    face_points: str | None = None  # left pupil, right pupil, mouth centre, in pixels
    background: str = "white"  # behind a transparent portrait
    motion: Path | None = None  # render this motion instead of sampling one
    save_motion: Path | None = None
    plot: Path | None = None
    preview: Path | None = None
    show_landmarks: Path | None = None
    save_crop: Path | None = None
    codec: str | None = None  # None: the container's usual one
    crf: int | None = None
    sound: bool = True
    overwrite: bool = False
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    render: RenderConfig = field(default_factory=RenderConfig)

    @property
    def side_files(self) -> list[Path]:
        """The files asked for beside the video."""
        return [path for name in SIDE_FILES if (path := getattr(self, name)) is not None]


MAX_SIDE = 1280  # longer side of a full frame unless asked for, as LivePortrait caps its sources
CROP_SIZE = 512
