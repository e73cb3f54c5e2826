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

CODEC_NAMES = ("h264", "hevc", "vp9", "av1", "prores", "h264_nvenc", "hevc_nvenc", "av1_nvenc")
CODEC_ALIASES = {
    "x264": "h264",
    "avc": "h264",
    "h265": "hevc",
    "x265": "hevc",
    "prores4444": "prores",
}
COLOURS = {"white": "#ffffff", "black": "#000000", "grey": "#808080", "green": "#00ff00"}
TRANSPARENT = "transparent"  # as a background: the portrait's own alpha goes into the video
ASPECTS = {"1:1": (1, 1), "9:16": (9, 16), "16:9": (16, 9)}  # width and height
DRIVEN = ("lips", "brows", "head")  # parts of a filmed face that speech can move anew
SUBTITLES_AS = ("burn", "track")
# Of motion: what speaks, the rest of the expression, the pose, and where the eyes look.
PARTS = ("lips", "face", "head", "gaze")

# what a switch is in a table or a text file
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

SPLITS = ("hdtf-50", "hdtf-100", "hdtf-all", "celebvhq-50", "wild")  # of `moda eval`

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
    known: int = 0  # frames at a window's start whose motion it may be told, as `prev`
    # How this model is sampled unless asked otherwise: steps of the solver, and the noise at which
    # the last of them begins (None: all are of one size).
    steps: int = 10
    second_order: bool = False  # Adams-Bashforth's instead of Euler's
    last_sigma: float | None = 1e-3  # the release's, whose last step has nothing left to do
    guidance: float | None = 1.2  # joint, or:
    audio_scale: float | None = None
    audio_scale_live: float | None = None  # where a few frames are made at a time; None: the same
    # Where the audio's guidance counts: above this noise (arXiv 2404.07724), in the mouth alone.
    audio_scale_above: float = 0.0
    audio_scale_mouth: bool = False
    lip_noise: float = 1.0  # of the mouth channels' initial noise: less gives surer lips


def least(field: str) -> int:
    """The least whole number that a field of a model's shape can have."""
    return 0 if field.endswith("_depth") or field in ("overlap", "known") else 1


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How motion is drawn. Guidance is joint unless a per-condition scale is given.

    Without any of the three the model's own is taken; beside another scale an absent one is the
    model's, or 1 where it has none.
    """

    steps: int | None = None  # of the Euler solver; None: the model's own
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
    fps: float | None = None  # None: FPS, or that of the video that is the portrait
    blink_rate: float | None = None  # blinks a minute, by rule; None: the model's own
    # closes the mouth where nobody speaks; None: of models that do not start from the portrait
    silence_gate: bool | None = None
    aspect: str | None = None  # of ASPECTS: the full frame in this shape, round the face
    redrive: str | None = None  # what the speech moves in a video as the portrait; None: the lips


LIMITS: dict[str, tuple[int, int]] = {  # of the options above and below, ends included
    "steps": (1, 1000),
    "seed": (0, 2**63 - 1),
    "guidance": (0, 20),
    "audio_scale": (0, 20),
    "emotion_scale": (0, 20),
    "head_motion": (0, 10),
    "expression_scale": (0, 10),
    "blink_rate": (0, 60),
    "fps": (1, 120),
    "size": (64, 4096),
    "crf": (0, 63),
}
# the files that a clip is made from
INPUT_FILES = ("portrait", "audio", "motion", "timeline", "subtitles", "font")
SIDE_FILES = ("save_motion", "save_timeline", "plot", "preview", "show_landmarks", "save_crop")


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Everything about one clip: what goes in, what comes out, and how."""

    portrait: Path
    audio: Path  # "-" is stdin
    output: Path  # its suffix chooses the container; %06d makes PNGs
    emotion: str = "none"  # a class, some of it, a timeline, or auto: heard in the voice
    timeline: Path | None = None  # what is asked for when, as a file
    face: str = "largest"  # or left, right, or a number from the left
    face_points: str | None = None  # left pupil, right pupil, mouth centre, in pixels
    force: bool = False  # animate what may be no face, where no face is sure
    background: str = "white"  # behind a transparent portrait, or TRANSPARENT
    motion: Path | None = None  # render this motion, or a video's, instead of sampling one
    take: str | None = None  # of it alone: lips, face, head, gaze; None: all
    save_motion: Path | None = None
    save_timeline: Path | None = None
    plot: Path | None = None
    preview: Path | None = None
    show_landmarks: Path | None = None
    save_crop: Path | None = None
    codec: str | None = None  # None: the container's usual one
    crf: int | None = None
    sound: bool = True
    subtitles: Path | None = None  # SRT
    subtitles_as: str = "burn"  # drawn into the picture, or a track beside it
    label: str | None = None  # drawn into a corner of every frame
    font: Path | None = None  # of both; None: one that has their characters
    provenance: bool = True  # the file says that it is AI-generated, and how it was made
    c2pa: str | None = None  # CERT,KEY that sign it
    overwrite: bool = False
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    render: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        for name in (*INPUT_FILES, "output", *SIDE_FILES):
            path = getattr(self, name)
            if path is not None and not isinstance(path, Path):  # as Python's users write it
                object.__setattr__(self, name, Path(path))
        if self.codec is not None:
            codec = self.codec.lower()
            object.__setattr__(self, "codec", CODEC_ALIASES.get(codec, codec))

    @property
    def side_files(self) -> list[Path]:
        """The files asked for beside the video."""
        return [path for name in SIDE_FILES if (path := getattr(self, name)) is not None]


MAX_SIDE = 1280  # longer side of a full frame unless asked for, as LivePortrait caps its sources
CROP_SIZE = 512
