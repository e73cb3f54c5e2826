"""From a portrait and a sound to a video: the only module that knows every stage."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from moda_cli import __version__, components, media
from moda_cli.choice import choose
from moda_cli.config import FPS, ClipConfig, RenderConfig
from moda_cli.control import Timeline, parse_emotion
from moda_cli.device import enough_memory, forbid_tf32, resolve_device, resolve_dtype
from moda_cli.errors import InputError, UsageError
from moda_cli.face.detect import FaceDetector
from moda_cli.face.extractors import Extractors
from moda_cli.face.portrait import Portrait, read_portrait, resized
from moda_cli.files import atomic_write
from moda_cli.generator.model import (
    MotionGenerator,
    Take,
    causal_take,
    live_take,
    released_take,
    sample,
)
from moda_cli.media import figures
from moda_cli.media.pictures import Picture, check_image, parse_colour
from moda_cli.media.sound import LiveSound, StoredWave, stored_wave
from moda_cli.media.waves import Read, Samples, Wave, num_frames
from moda_cli.motion import (
    ARTICULATORS,
    EXPRESSION,
    POSE,
    Recording,
    Source,
    decode,
    encode,
    load_motion,
    resample,
    save_motion,
)
from moda_cli.render.liveportrait.paste import PasteBack
from moda_cli.render.liveportrait.renderer import Engine, LivePortrait
from moda_cli.render.rig.rig import Rig
from moda_cli.speech.encoder import SpeechEncoder
from moda_cli.speech.released import LiveSpeech, SpeechFeatures
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

PREVIEW_FRAMES = 12

OnFrame = Callable[[int, int | None], None]  # (done, total); None while sound may still arrive


class Renderer(Protocol):
    """Draws motion on one portrait."""

    def render(self, motion: Tensor) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""


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
        try:
            while (item := ahead.result()) is not None:
                ahead = pool.submit(next, iterator, None)
                yield item
        finally:
            pool.shutdown(wait=False)  # it may be waiting for sound

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
class Animation:
    """A portrait, the motion (n, 70) at 25 fps that is made for it piece by piece, and who draws.

    neutral: (70) the motion at which a frame is the portrait; absolute: as in `Recording`.
    """

    portrait: Portrait
    neutral: Tensor
    absolute: bool
    motion: Iterator[Tensor]
    renderer: Renderer

    def frames(self, motion: Iterable[Tensor], fps: float) -> Iterator[Picture]:
        """Yield a frame per 1 / fps seconds of motion at 25 fps."""
        for piece in resample(motion, fps):
            yield from self.renderer.render(piece)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A motion generator and a renderer, loaded once, for any number of clips."""

    model: MotionGenerator
    name: str  # of the model, as the user chose it
    encoder: SpeechEncoder | None = None  # None: the model hears log-mel
    detector: FaceDetector | None = None  # None: faces are found without weights
    extractors: Extractors | None = None  # where the model or the renderer needs them
    networks: Engine | None = None  # None: frames are drawn by the rig

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
        """`mini`, `moda` or a model directory, and the renderer `rig` or `liveportrait`.

        `auto` chooses `moda` where it can run at once, the renderer that belongs to the model, and
        half precision on CUDA. compiled: the networks of every step and frame go through
        torch.compile. Weights that another choice lacks are fetched; on_progress(name, bytes, of
        bytes) follows.

        Raises WeightsError for what cannot be had or is corrupt, DeviceError for the device,
        UsageError for a precision it cannot run.
        """
        where = resolve_device(device)
        forbid_tf32()
        precision = resolve_dtype(dtype, where)
        choice = choose(model, renderer, where)
        ensure(choice.components, on_progress)
        log.info("model %s, renderer %s on %s", choice.model, choice.renderer, where)
        config, official = choice.config, choice.model == "moda"
        looks = components.EXTRACTORS[0] in choice.components
        draws = choice.renderer == "liveportrait"
        with enough_memory(where):
            generator = (
                components.load_moda(where)
                if official
                else MotionGenerator.load(choice.directory, where)
            )
            if compiled:
                # windows of the others are sampled ahead, in a thread of each clip's own
                graphs = where.type == "cuda" and config.audio in components.ENCODERS
                generator.compile(store.cache_dir() / "inductor", graphs=graphs)
            return cls(
                generator,
                choice.model,
                encoder=components.load_encoder(config, where)
                if config.audio in components.ENCODERS
                else None,
                detector=components.load_detector(),
                extractors=components.load_extractors(where, precision) if looks else None,
                networks=components.load_renderer(where, precision, compiled) if draws else None,
            )

    @property
    def starts_from_portrait(self) -> bool:
        """Whether the model begins at the portrait's own motion, not at one of its own."""
        return self.model.network.config.source == "extracted"

    def generate(self, clip: ClipConfig, on_frame: OnFrame | None = None) -> Result:
        """Make one video and the side files `clip` asks for; `-` streams it to standard output.

        on_frame(done, total) is called for every finished frame. Raises UsageError for what cannot
        be written, InputError for what cannot be read or shows no usable face.
        """
        started, fps = time.perf_counter(), clip.render.fps
        timeline = parse_emotion(clip.emotion)
        check_config(clip)
        given = load_motion(clip.motion) if clip.motion else None
        with ExitStack() as stack:
            stack.enter_context(enough_memory(self.model.device))
            sound: LiveSound | StoredWave
            track: Path | Iterator[Wave]
            total, piped = None, str(clip.audio) == "-"
            if media.streams(clip.output) and not given:
                sound = stack.enter_context(LiveSound(clip.audio))
                track = sound.copies() if piped else clip.audio
            else:
                sound = stack.enter_context(stored_wave(clip.audio))
                track = sound.blocks() if piped else clip.audio
                length = len(given.motion) if given else num_frames(len(sound))
                total = math.ceil(length * fps / FPS)
            animation = self._animate(clip, timeline, given or sound)
            apart = (total or 0) / PREVIEW_FRAMES
            shown = {round((k + 0.5) * apart - 0.5) for k in range(PREVIEW_FRAMES)}
            shots: list[Picture] = []
            kept: list[Tensor] = []  # motion at 25 fps, for its file and its plot

            def motion() -> Iterator[Tensor]:
                for piece in animation.motion:
                    if clip.save_motion or clip.plot:
                        kept.append(piece)
                    yield piece

            def frames() -> Iterator[Picture]:
                for done, frame in enumerate(animation.frames(motion(), fps)):
                    if clip.preview and done in shown:
                        shots.append(frame)
                    yield frame

            origin = {"model": self.name, "seed": str(clip.sampler.seed)}
            count = media.write_video(
                frames(),
                clip.output,
                fps,
                audio=track if clip.sound else None,
                codec=clip.codec,
                crf=clip.crf,
                metadata=origin,
                on_frame=(lambda done: on_frame(done, total)) if on_frame else None,
            )
            if clip.save_motion:
                with atomic_write(clip.save_motion) as path:
                    recording = Recording(torch.cat(kept), animation.neutral, animation.absolute)
                    save_motion(path, recording, {**origin, "version": __version__})
            if clip.plot and isinstance(sound, StoredWave):
                plot = figures.plot_motion(torch.cat(kept), animation.neutral, sound[:])
                media.write_image(clip.plot, plot)
        if clip.preview:
            moments = [f"{frame / fps:.2f} s" for frame in sorted(shown)]
            media.write_image(clip.preview, figures.contact_sheet(shots, 4, moments[: len(shots)]))
        seconds = time.perf_counter() - started
        height, width = animation.portrait.picture.shape[:2]
        score, rtf = animation.portrait.face.score, seconds * fps / count
        return Result(clip.output, count, fps, width, height, seconds, rtf, score)

    def stream(self, clip: ClipConfig, sound: Iterable[Wave] | None = None) -> Iterator[Picture]:
        """Yield the frames of a clip, uint8 (H, W, 3) RGB, as soon as their sound is there.

        sound: blocks (n,) at 16 kHz that may still be arriving; without them the clip's audio is
        read. The clip's outputs are not written. Models that hear through a speech encoder sample
        in the causal form of decisions.md 10; `mini` makes the frames that `generate` makes. Raises
        InputError for what cannot be read or shows no usable face.
        """
        timeline = parse_emotion(clip.emotion)
        with LiveSound(clip.audio if sound is None else sound) as live:
            animation = self._animate(clip, timeline, live)
            yield from animation.frames(animation.motion, clip.render.fps)

    def _animate(
        self, clip: ClipConfig, timeline: Timeline, sound: LiveSound | StoredWave | Recording
    ) -> "Animation":
        """The clip's portrait and how it moves to a sound, or as recorded."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(self.look, clip)
            if isinstance(sound, Recording):
                made = iter([sound.motion])
            else:
                heard = sound.read if isinstance(sound, LiveSound) else sound
                made = self.move(heard, timeline, clip, looking)
            # Windows are made ahead, while the portrait is looked at too; a whole clip, which a
            # speech encoder's model makes at once, would keep an interrupt waiting in its thread.
            ahead = prefetch(made) if self.encoder is None else made
            portrait = looking.result()
        if isinstance(sound, Recording):
            neutral, absolute = sound.neutral, sound.absolute
        else:
            neutral = self.neutral(portrait)
            absolute = self.starts_from_portrait
        renderer = self.renderer(portrait, neutral, absolute=absolute)
        motion = (edit_motion(piece, neutral, clip.render) for piece in ahead)
        return Animation(portrait, neutral, absolute, motion, renderer)

    def look(self, clip: ClipConfig) -> Portrait:
        """The clip's portrait as this pipeline's networks need it."""
        released = self.networks is not None
        kept = store.cache_dir() / "portraits"
        return read_portrait(
            clip, self.detector, self.extractors, released=released, seen_before=kept
        )

    def move(
        self,
        sound: Samples | Read,
        timeline: Timeline,
        clip: ClipConfig,
        portrait: "Future[Portrait]",
    ) -> Iterator[Tensor]:
        """Yield physical motion (n, 70) at 25 fps, one row per 640 samples of a 16 kHz wave.

        What is still arriving is given as a function that reads it. `portrait` is waited for by
        models that start from it.
        """
        source = portrait.result().source if self.starts_from_portrait else None
        yield from sample(self.model, self.take(sound, timeline, clip, source))

    def take(
        self,
        sound: Samples | Read,
        timeline: Timeline,
        clip: ClipConfig,
        source: Source | None,
    ) -> Take:
        """The clip as its model samples it. source: of a portrait's model alone."""
        model, config = self.model, clip.sampler
        if self.encoder is None:
            return causal_take(model, sound, timeline, config, source)
        if callable(sound):
            return live_take(model, LiveSpeech(self.encoder, sound), timeline, config, source)
        whole = SpeechFeatures(self.encoder, sound)
        return released_take(model, whole, timeline, config, source)

    def neutral(self, portrait: Portrait) -> Tensor:
        """The motion (70) at which a frame is the portrait itself."""
        if not self.starts_from_portrait:
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


def check_config(clip: ClipConfig) -> None:
    """Refuse before any work what could not be read or written.

    Raises UsageError, InputError for an input that is not there, DeviceError for an encoder
    without its GPU.
    """
    parse_emotion(clip.emotion)
    parse_colour(clip.background)
    media.check_output(clip.output, clip.codec, clip.crf)
    if clip.codec:
        media.check_encoder(clip.codec)
    if media.streams(clip.output) and (clip.plot or clip.preview):
        raise UsageError("a stream has no --plot or --preview", hint="give a file to --output")
    pictures = (clip.plot, clip.preview, clip.show_landmarks, clip.save_crop)
    for path in filter(None, pictures):
        check_image(path)
    side = (clip.save_motion, *pictures)
    output = [] if media.streams(clip.output) else [clip.output]
    written = [*output, *(path for path in side if path)]
    inputs = [path for path in (clip.portrait, clip.audio, clip.motion) if path]
    for path in inputs:
        if str(path) != "-" and not path.exists():
            raise InputError(f"there is no file {path}", hint="check the path")
    for position, path in enumerate(written):
        resolved = path.resolve()
        if resolved in [other.resolve() for other in inputs]:
            raise UsageError(f"{path} is an input of this clip", hint="give another output name")
        if resolved in [other.resolve() for other in written[:position]]:
            raise UsageError(f"{path} is named for two outputs", hint="give each its own name")
        if not path.parent.is_dir() and path != clip.output:
            reason = f"there is no folder {path.parent}"
            raise UsageError(f"cannot write {path}: {reason}", hint="choose a folder that exists")
        taken = media.written(path)
        if taken.exists() and taken != Path() and not clip.overwrite:
            raise UsageError(f"{taken} exists", hint="pass -y to overwrite it")
