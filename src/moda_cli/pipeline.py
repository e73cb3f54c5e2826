"""From a portrait and a sound to a video: the only module that knows every stage."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from moda_cli import __version__, components, figures, media
from moda_cli.config import FPS, ClipConfig, RenderConfig
from moda_cli.emotion import Timeline, parse_emotion
from moda_cli.errors import DeviceError, UsageError
from moda_cli.features.audio import num_frames
from moda_cli.features.detect import FaceDetector
from moda_cli.features.extractors import Extractors
from moda_cli.features.speech import SpeechFeatures
from moda_cli.features.speech_encoder import SpeechEncoder
from moda_cli.generator import MotionGenerator, read_config, sample_motion, sample_released
from moda_cli.media.sound import Wave
from moda_cli.motion import (
    ARTICULATORS,
    EXPRESSION,
    POSE,
    Recording,
    decode,
    encode,
    load_motion,
    resample,
    save_motion,
)
from moda_cli.pictures import Picture
from moda_cli.portrait import Portrait, read_portrait, resized
from moda_cli.render.liveportrait import LivePortrait, Networks
from moda_cli.render.paste import PasteBack
from moda_cli.render.rig import Rig
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "assets" / "mini"
PREVIEW_FRAMES = 12

OnFrame = Callable[[int, int], None]  # (done, total)


class Renderer(Protocol):
    """Draws motion on one portrait."""

    def render(self, motion: Tensor) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""


def resolve_device(name: str) -> torch.device:
    """The device `--device` names; auto is CUDA, else the CPU.

    Raises DeviceError where it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"device {name!r} cannot be used: {reason}", hint="try --device cpu"
        ) from None
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision `--dtype` names; auto is the release's float16 on CUDA, else float32."""
    if name == "auto":
        name = "float16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def resolve_model(name: str, device: torch.device) -> str:
    """`auto` is `moda` on CUDA with its weights there, else `mini`."""
    if name != "auto":
        return name
    wanted = (components.MODA, *components.needed(components.moda_config(), "liveportrait"))
    ready = device.type == "cuda" and not components.missing(wanted)
    if not ready and device.type == "cuda":
        log.info("model mini; `moda download` fetches the official weights")
    return "moda" if ready else "mini"


def edit_motion(motion: Tensor, neutral: Tensor, config: RenderConfig) -> Tensor:
    """Motion (T, 70) with head motion, expression and blinks as the user wants them."""
    motion = motion.clone()
    expression = motion[:, EXPRESSION] - neutral[EXPRESSION]
    if not config.blink:
        lids = decode(expression)
        lids[:, [k for k, name in enumerate(ARTICULATORS) if not name.startswith("lid")]] = 0
        expression = expression - encode(lids)
    if config.expression_scale != 1 or not config.blink:
        motion[:, EXPRESSION] = neutral[EXPRESSION] + config.expression_scale * expression
    if config.head_motion != 1:
        motion[:, POSE] = neutral[POSE] + config.head_motion * (motion[:, POSE] - neutral[POSE])
    return motion


def prefetch(items: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same items, each made in a thread while the one before is used; the first begins now."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(max_workers=1)
    first = pool.submit(next, iterator, None)

    def rest() -> Iterator[Tensor]:
        ahead = first
        with pool:
            while (item := ahead.result()) is not None:
                ahead = pool.submit(next, iterator, None)
                yield item

    return rest()


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished clip was made of."""

    output: Path
    frames: int
    fps: float
    width: int
    height: int
    seconds: float  # from reading the inputs to the finished file
    rtf: float  # seconds over the video's duration
    face_score: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A motion generator and a renderer, loaded once, for any number of clips."""

    model: MotionGenerator
    name: str  # of the model, as the user chose it
    encoder: SpeechEncoder | None = None  # None: the model hears log-mel
    detector: FaceDetector | None = None  # None: faces are found without weights
    extractors: Extractors | None = None  # where the model or the renderer needs them
    networks: Networks | None = None  # None: frames are drawn by the rig

    @classmethod
    def load(
        cls,
        model: str = "auto",
        device: str = "auto",
        renderer: str = "auto",
        dtype: str = "auto",
        on_progress: OnProgress | None = None,
    ) -> "Pipeline":
        """`mini`, `moda` or a model directory, and the renderer `rig` or `liveportrait`.

        `auto` chooses `moda` where it can run at once, the renderer that belongs to the model, and
        half precision on CUDA. Weights that another choice lacks are fetched; on_progress(name,
        bytes, of bytes) follows. Raises WeightsError for what cannot be had or is corrupt,
        DeviceError for the device.
        """
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        name = resolve_model(model, where)
        directory = BUNDLED if name == "mini" else Path(name)
        config = components.moda_config() if name == "moda" else read_config(directory)
        if renderer == "auto":
            renderer = "liveportrait" if config.source == "extracted" else "rig"
        wanted = components.needed(config, renderer)
        ensure([*([components.MODA] if name == "moda" else []), *wanted], on_progress)
        log.info("model %s, renderer %s on %s", name, renderer, where)
        return cls(
            (
                components.load_moda(where)
                if name == "moda"
                else MotionGenerator.load(directory, where)
            ),
            name,
            encoder=components.load_encoder(config, where) if config.audio != "logmel" else None,
            detector=components.load_detector(),
            extractors=(
                components.load_extractors(where, precision)
                if components.EXTRACTORS[0] in wanted
                else None
            ),
            networks=(
                components.load_renderer(where, precision) if renderer == "liveportrait" else None
            ),
        )

    def generate(self, clip: ClipConfig, on_frame: OnFrame | None = None) -> Result:
        """Make one video and the side files `clip` asks for.

        on_frame(done, total) is called for every finished frame. Raises UsageError for what cannot
        be written, InputError for what cannot be read or shows no usable face.
        """
        started = time.perf_counter()
        timeline = parse_emotion(clip.emotion)
        check_outputs(clip)
        given = load_motion(clip.motion) if clip.motion else None
        wave = media.read_audio(clip.audio)
        length = len(given.motion) if given else num_frames(len(wave))

        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(self.look, clip)
            made = iter([given.motion]) if given else self.move(wave, timeline, clip, looking)
            ahead = prefetch(made)  # while the portrait is looked at
            portrait = looking.result()
        neutral = given.neutral if given else self.neutral(portrait)
        absolute = given.absolute if given else self.model.network.config.source == "extracted"
        renderer = self.renderer(portrait, neutral, absolute=absolute)

        total = math.ceil(length * clip.render.fps / FPS)
        shown = {round((k + 0.5) * total / PREVIEW_FRAMES - 0.5) for k in range(PREVIEW_FRAMES)}
        shots: list[Picture] = []
        kept: list[Tensor] = []  # motion at 25 fps, for its file and its plot

        def edited() -> Iterator[Tensor]:
            for piece in ahead:
                kept.append(edit_motion(piece, neutral, clip.render))
                yield kept[-1]

        def frames() -> Iterator[Picture]:
            done = 0
            for piece in resample(edited(), clip.render.fps):
                for frame in renderer.render(piece):
                    if clip.preview and done in shown:
                        shots.append(frame)
                    done += 1
                    yield frame

        sound = (wave if str(clip.audio) == "-" else clip.audio) if clip.sound else None
        origin = {"model": self.name, "seed": str(clip.sampler.seed)}
        count = media.write_video(
            frames(),
            clip.output,
            clip.render.fps,
            audio=sound,
            codec=clip.codec,
            crf=clip.crf,
            metadata=origin,
            on_frame=(lambda done: on_frame(done, total)) if on_frame else None,
        )
        whole = torch.cat(kept)
        if clip.save_motion:
            with media.whole_file(clip.save_motion) as path:
                recording = Recording(whole, neutral, absolute)
                save_motion(path, recording, {**origin, "version": __version__})
        if clip.plot:
            media.write_image(clip.plot, figures.plot_motion(whole, neutral, wave))
        if clip.preview:
            moments = [f"{frame / clip.render.fps:.2f} s" for frame in sorted(shown)]
            media.write_image(clip.preview, figures.contact_sheet(shots, 4, moments[: len(shots)]))
        seconds = time.perf_counter() - started
        height, width = portrait.picture.shape[:2]
        return Result(
            clip.output,
            count,
            clip.render.fps,
            width,
            height,
            seconds,
            seconds / (count / clip.render.fps),
            portrait.face.score,
        )

    def look(self, clip: ClipConfig) -> Portrait:
        """The clip's portrait as this pipeline's networks need it."""
        return read_portrait(
            clip, self.detector, self.extractors, released=self.networks is not None
        )

    def move(
        self, wave: Wave, timeline: Timeline, clip: ClipConfig, portrait: "Future[Portrait]"
    ) -> Iterator[Tensor]:
        """Yield physical motion (n, 70) at 25 fps, one row per 640 samples of the wave.

        `portrait` is waited for by models that start from it.
        """
        constant = self.model.network.config.source == "constant"
        source = None if constant else portrait.result().source
        if self.encoder is None:
            yield from sample_motion(self.model, wave, timeline, clip.sampler, source)
        else:
            features = SpeechFeatures(self.encoder, wave)
            yield sample_released(self.model, features, timeline, clip.sampler, source)

    def neutral(self, portrait: Portrait) -> Tensor:
        """The motion (70) at which a frame is the portrait itself."""
        if self.model.network.config.source == "constant":
            return self.model.stats.neutral
        assert portrait.source is not None  # such models load the extractors
        return portrait.source.motion

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """The renderer of one portrait. neutral: (70) its motion at rest."""
        if self.networks is None:
            return Rig(portrait.picture, portrait.face, neutral)
        assert portrait.source is not None
        assert portrait.feature_volume is not None
        if portrait.from_crop is None:
            paste: Callable[[Picture], Picture] = partial(resized, side=len(portrait.picture))
        else:
            paste = PasteBack(portrait.picture, portrait.from_crop)
        return LivePortrait(
            self.networks,
            portrait.source,
            portrait.feature_volume,
            paste,
            None if absolute else neutral,
        )


def check_outputs(clip: ClipConfig) -> None:
    """Refuse before any work what could not be written at its end. Raises UsageError."""
    media.check_output(clip.output, clip.codec, clip.crf)
    side = (clip.save_motion, clip.plot, clip.preview, clip.show_landmarks, clip.save_crop)
    written = [clip.output, *(path for path in side if path)]
    inputs = [path for path in (clip.portrait, clip.audio, clip.motion) if path]
    for position, path in enumerate(written):
        resolved = path.resolve()
        if resolved in [other.resolve() for other in inputs]:
            raise UsageError(f"{path} is an input of this clip", hint="give another output name")
        if resolved in [other.resolve() for other in written[:position]]:
            raise UsageError(f"{path} is named for two outputs", hint="give each its own name")
        if not path.parent.is_dir() and path != clip.output:
            raise UsageError(f"cannot write {path}", hint="choose a folder that exists")
        taken = path.parent if path.suffix == ".png" and "%" in path.name else path
        if taken.exists() and taken != Path() and not clip.overwrite:
            raise UsageError(f"{taken} exists", hint="pass -y to overwrite it")
