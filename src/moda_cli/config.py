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
    force: bool = False  # animate what may be no face, where no face is sure
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
