"""The Python door: clips of Python's own things, and complaints that speak of arguments."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moda_cli import motion, pipeline
from moda_cli.checks import resolve
from moda_cli.config import ClipConfig
from moda_cli.errors import ModaError, UsageError, did_you_mean
from moda_cli.face.video_motion import Looks
from moda_cli.files import free_name
from moda_cli.jobs.options import CLIP, FILES, NEGATED, RENDER, SAMPLER, with_options
from moda_cli.live.session import LiveSession
from moda_cli.live.speaker import Speaker
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.motion import Recording
from moda_cli.pipeline import OnFrame, OnPhase, Result
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress

if TYPE_CHECKING:
    from PIL.Image import Image

AnyPath = str | os.PathLike[str]
# as an array: (H, W), (H, W, 3) RGB or (H, W, 4) RGBA
Portrait: TypeAlias = "AnyPath | NDArray[np.uint8] | Image"
# as an array: samples (n,) or (n, channels), and their rate in Hz
Sound: TypeAlias = AnyPath | tuple[NDArray[Any], int]

KINDS = {
    name: kind
    for name, kind in {**CLIP, **SAMPLER, **RENDER}.items()
    if name not in (*FILES, "sampler", "render")
}
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]+)|(?<![\w-])-([yo])(?![\w-])")
SHORT = {"y": "overwrite", "o": "output"}
OTHERWISE = {"compile": "compiled"}  # named so on the command line
PICTURE_ARRAY = "an array of uint8, (H, W), (H, W, 3) RGB or (H, W, 4) RGBA"
SOUND_ARRAY = "(samples, rate): an array (n,) or (n, channels), and its rate in Hz"


class Pipeline:
    """A motion generator and who draws its motion, loaded once, for any number of clips."""

    def __init__(self, loaded: pipeline.Pipeline) -> None:
        self.loaded = loaded

    @classmethod
    def load(
        cls,
        model: str = "auto",
        device: str = "auto",
        renderer: str = "auto",
        dtype: str = "auto",
        compiled: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Self:
        """As `pipeline.Pipeline.load`.

        Raises WeightsError, DeviceError, and UsageError for a precision that the device lacks.
        """
        with as_arguments():
            made_by = pipeline.Pipeline.load(
                str(model), device, renderer, dtype, compiled, on_progress
            )
            return cls(made_by)

    def generate(
        self,
        portrait: "Portrait | ClipConfig",
        audio: Sound | None = None,
        output: AnyPath | None = None,
        *,
        on_frame: OnFrame | None = None,
        **options: Any,
    ) -> Result:
        """Make one video; `output` is PORTRAIT_AUDIO.mp4, numbered where that is taken, unless
        given.

        options: the fields of ClipConfig, SamplerConfig and RenderConfig by name, such as
        `emotion="happy"`, `seed=7`, `size=256`. A ClipConfig says it all in one. on_frame(done,
        total) is called for every finished frame.

        Raises InputError for what cannot be read or shows no usable face, UsageError for options
        and for what cannot be written, DeviceError where memory runs out.
        """
        with as_arguments(), _clip(portrait, audio, output, options) as clip:
            return self.loaded.generate(clip, on_frame)

    def stream(
        self,
        portrait: "Portrait | ClipConfig",
        audio: "Sound | Iterable[Wave] | None" = None,
        **options: Any,
    ) -> Iterator[Picture]:
        """Yield frames, uint8 (H, W, 3) RGB, as soon as their sound is there.

        audio may also be blocks of samples (n,) in [-1, 1] at 16 kHz, as they arrive. Options and
        errors are those of `generate`; what is wrong with them is raised at once.
        """
        blocks = None
        if audio is not None and not isinstance(audio, str | os.PathLike | tuple):
            blocks, audio = audio, "-"
        with ExitStack() as stack:
            stack.enter_context(as_arguments())
            clip = stack.enter_context(_clip(portrait, audio, "-", options))
            frames = self.loaded.stream(resolve(replace(clip, plot=None, preview=None)), blocks)
            kept = stack.pop_all()

        def following() -> Iterator[Picture]:
            with kept, as_arguments():
                yield from frames

        return following()

    def live(self, portrait: "Portrait | ClipConfig", **options: Any) -> LiveSession:
        """A face for a voice, in real time: sound is pushed, frames are taken as they are due.

        with pipeline.live("portrait.png") as session:
            session.push(samples, 24_000)  # from any thread, in blocks of any size
            for frame in session.frames():  # 25 a second: frame.picture, frame.sound
                show(frame)

        Options are those of `generate` that speak of the portrait, sampling, `size` and `emotion`.
        Errors are those of `generate`, UsageError also for a model whose windows are too short.
        """
        with as_arguments(), _clip(portrait, "-", "-", options) as clip:
            return Speaker(self.loaded, clip).session()

    def motion(
        self,
        portrait: "Portrait | ClipConfig",
        audio: Sound | None = None,
        *,
        on_phase: OnPhase = lambda *_: None,
        **options: Any,
    ) -> Recording:
        """The motion that `generate` draws, at 25 fps, without drawing it.

        `generate` and `stream` draw it, or what was made of it, as `motion=`. on_phase(phase, done,
        total) follows; total may be None. Options and errors are those of `generate`.
        """
        with as_arguments(), _clip(portrait, audio, "-", options) as clip:
            return self.loaded.motion(replace(clip, plot=None, preview=None), on_phase=on_phase)


def generate(
    portrait: "Portrait | ClipConfig",
    audio: Sound | None = None,
    output: AnyPath | None = None,
    *,
    model: AnyPath = "auto",
    device: str = "auto",
    renderer: str = "auto",
    dtype: str = "auto",
    compiled: bool = False,
    on_frame: OnFrame | None = None,
    **options: Any,
) -> Result:
    """Make one video, as `Pipeline.generate`; `Pipeline.load` spares several the loading."""
    loaded = Pipeline.load(str(model), device, renderer, dtype, compiled)
    return loaded.generate(portrait, audio, output, on_frame=on_frame, **options)


def load_motion(path: AnyPath) -> Recording:
    """What a motion file or a driving template holds, or the face mesh sees in a video, at 25 fps.

    Raises InputError for a file that is none, and for a video that shows no face.
    """
    with as_arguments():
        return Looks(None, None, store.seen_portraits()).recording(Path(path))


def save_motion(
    path: AnyPath, recording: Recording, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a motion file, which `generate(..., motion=path)` renders."""
    motion.save_motion(Path(path), recording, dict(metadata or {}))


@contextmanager
def as_arguments() -> Iterator[None]:
    """Errors that leave this block name options as arguments: `--force` is `force=True`."""
    try:
        yield
    except ModaError as error:
        error.args, error.hint = (spoken(str(error)),), spoken(error.hint)
        raise


def spoken(text: str) -> str:
    """A message with its flags as arguments; `commands` are left as they are."""

    def argument(match: re.Match[str]) -> str:
        flag = (match[1] or SHORT[match[2]]).replace("-", "_")
        name = NEGATED.get(flag, OTHERWISE.get(flag, flag))
        if KINDS.get(name) is bool or name == "compiled":
            return f"{name}={flag not in NEGATED}"
        return name

    parts = text.split("`")
    return "`".join(part if k % 2 else FLAG.sub(argument, part) for k, part in enumerate(parts))


@contextmanager
def _clip(
    portrait: Any, audio: Any, output: AnyPath | None, options: Mapping[str, Any]
) -> Iterator[ClipConfig]:
    """A clip of files, those that were arrays written for as long as it is used."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {name: _option(name, value, folder) for name, value in options.items()}
        if isinstance(portrait, ClipConfig):
            changed = {"audio": audio, "output": output}
            files: dict[str, Any] = {name: Path(p) for name, p in changed.items() if p is not None}
            yield with_options(replace(portrait, **files), given)
            return
        if audio is None:
            raise UsageError("audio is missing", hint=f"give a path, or {SOUND_ARRAY}")
        picture = _picture_file(portrait, folder)
        sound = _sound_file(audio, folder)
        target = free_name(Path(f"{picture.stem}_{sound.stem}.mp4")) if output is None else output
        yield with_options(ClipConfig(picture, sound, Path(target)), given)


def _option(name: str, value: Any, folder: Path) -> Any:
    if name not in KINDS:
        hint = did_you_mean(name, KINDS, f"options are {', '.join(sorted(KINDS))}")
        raise UsageError(f"there is no option {name}", hint=hint)
    if isinstance(value, Recording):
        path = folder / "motion.safetensors"
        save_motion(path, value)
        return path
    return Path(value) if KINDS[name] is Path and value is not None else value


def _picture_file(portrait: Any, folder: Path) -> Path:
    """The path itself, or that of a PNG with the same pixels."""
    if isinstance(portrait, str | os.PathLike):
        return Path(portrait)
    from PIL import Image, ImageOps

    if isinstance(portrait, np.ndarray):
        colours = portrait.ndim == 2 or (portrait.ndim == 3 and portrait.shape[2] in (3, 4))
        if portrait.dtype != np.uint8 or not colours or not portrait.size:
            what = f"an array of {portrait.dtype} {portrait.shape}"
            raise UsageError(f"portrait is {what}", hint=f"give {PICTURE_ARRAY}")
        portrait = Image.fromarray(portrait)
    if not isinstance(portrait, Image.Image):
        hint = f"give a path, a PIL image, or {PICTURE_ARRAY}"
        raise UsageError(f"portrait is of {type(portrait)}", hint=hint)
    path = folder / "portrait.png"
    upright = ImageOps.exif_transpose(portrait)
    usual = upright.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    (upright if usual else upright.convert("RGB")).save(path, compress_level=1)
    return path


def _sound_file(audio: Any, folder: Path) -> Path:
    """The path itself, or that of a WAV with the same samples."""
    if isinstance(audio, str | os.PathLike):
        return Path(audio)
    import soundfile

    if not isinstance(audio, tuple) or len(audio) != 2 or np.ndim(audio[0]) not in (1, 2):
        raise UsageError(f"audio is of {type(audio)}", hint=f"give a path, or {SOUND_ARRAY}")
    samples, rate = np.asarray(audio[0]), int(audio[1])
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    path = folder / "speech.wav"
    soundfile.write(path, samples.astype(np.float32), rate, subtype="FLOAT")
    return path
