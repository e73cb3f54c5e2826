"""From a portrait and a sound to a video: the only module that knows every stage."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from moda_cli import media
from moda_cli.checks import Clip, resolve
from moda_cli.choice import choose
from moda_cli.config import FPS, SAMPLE_RATE, ClipConfig
from moda_cli.control import edit_motion
from moda_cli.device import enough_memory, forbid_tf32, resolve_device, resolve_dtype
from moda_cli.face.answer import MouthAnswer
from moda_cli.face.extractors import EXTRACTORS, load_extractors
from moda_cli.face.landmarks203 import load_landmarks
from moda_cli.face.portrait import Portrait
from moda_cli.files import atomic_write
from moda_cli.generator.hearing import Hearing, HearsMel, HearsSpeech
from moda_cli.generator.model import MotionGenerator, load_moda
from moda_cli.generator.takes import sample
from moda_cli.media import figures
from moda_cli.media.pictures import Picture
from moda_cli.media.sound import LiveSound, StoredWave, stored_wave
from moda_cli.media.waves import Samples, Wave, frames_to_cover
from moda_cli.motion import Recording, load_motion, resample, save_motion
from moda_cli.render.liveportrait.renderer import load_renderer
from moda_cli.render.renderer import Renderer
from moda_cli.speech.encoder import ENCODERS, load_encoder
from moda_cli.studio import LivePortraitStudio, RigStudio, Studio
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

FRAMES_APART = 2  # that a given motion and the sound may be without a word

PREVIEW_FRAMES = 12

Sound = LiveSound | StoredWave | Samples
Watch = Callable[[str], AbstractContextManager[None]]
OnFrame = Callable[[int, int | None], None]  # (done, total); None while sound may still arrive


def watched(items: Iterable[Tensor], stage: str, watch: Watch) -> Iterator[Tensor]:
    """The same items, each made under the eyes of `watch`."""
    iterator = iter(items)
    while True:
        with watch(stage):
            item = next(iterator, None)
        if item is None:
            return
        yield item


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
    face_score: float | None  # probability of a face; None where its points were given


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
        """Yield a frame per 1 / fps seconds of motion at 25 fps.

        A mouth that stays shut in the first seconds although it is asked to open is warned of.
        """
        answer = MouthAnswer(self.portrait.face, self.neutral, fps)
        for piece in resample(motion, fps):
            for row, frame in zip(piece, self.renderer.render(piece), strict=True):
                answer.see(row, frame)
                yield frame
        answer.judge()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A motion generator and who draws its motion, loaded once, for any number of clips."""

    model: MotionGenerator
    name: str  # of the model, as the user chose it
    hearing: Hearing
    studio: Studio

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
        precision = resolve_dtype(dtype, where)
        forbid_tf32()
        choice = choose(model, renderer, where)
        ensure(choice.components, on_progress)
        log.info("model %s, renderer %s on %s", choice.model, choice.renderer, where)
        listens = choice.config.audio in ENCODERS
        looks = EXTRACTORS[0] in choice.components
        with enough_memory(where):
            generator = (
                load_moda(where)
                if choice.model == "moda"
                else MotionGenerator.load(choice.directory, where)
            )
            if compiled:
                # windows of the others are sampled ahead, in a thread of each clip's own
                graphs = where.type == "cuda" and listens
                generator.compile(store.cache_dir() / "inductor", graphs=graphs)
            hearing = HearsSpeech(load_encoder(choice.config, where)) if listens else HearsMel()
            landmarks = load_landmarks() if looks else None
            extractors = load_extractors(where, precision) if looks else None
            if choice.renderer == "rig":
                studio: Studio = RigStudio(landmarks, extractors)
            else:
                assert landmarks is not None  # its components hold them
                assert extractors is not None
                engine = load_renderer(where, precision, compiled)
                studio = LivePortraitStudio(landmarks, extractors, engine)
            return cls(generator, choice.model, hearing, studio)

    def generate(
        self,
        clip: ClipConfig | Clip,
        on_frame: OnFrame | None = None,
        *,
        sampled: Tensor | None = None,
    ) -> Result:
        """Make one video and the side files `clip` asks for; `-` streams it to standard output.

        on_frame(done, total) is called for every finished frame. sampled: the clip's motion
        (T, 70), where it was sampled ahead. Raises UsageError for what cannot be written,
        InputError for what cannot be read or shows no usable face.
        """
        started = time.perf_counter()
        clip = resolve(clip)
        config, fps = clip.config, clip.config.render.fps
        given = load_motion(config.motion) if config.motion else None
        with ExitStack() as stack:
            stack.enter_context(enough_memory(self.model.device))
            sound: LiveSound | StoredWave
            total = None
            if media.is_stdout(config.output) and not given:
                sound = stack.enter_context(LiveSound(config.audio))
            else:
                sound = stack.enter_context(stored_wave(config.audio))
                length = frames_to_cover(len(sound))
                if given and abs(len(given.motion) - length) > FRAMES_APART:
                    lasts = f"{len(given.motion) / FPS:.2f} s, the sound {length / FPS:.2f} s"
                    log.warning("%s lasts %s: the picture ends with it", config.motion, lasts)
                lasts_s = len(given.motion) / FPS if given else len(sound) / SAMPLE_RATE
                total = math.ceil(round(lasts_s * fps, 6))
            track = sound.track() if config.sound else None
            animation = self.animate(clip, given or sound, sampled=sampled)
            apart = (total or 0) / PREVIEW_FRAMES
            shown = {round((k + 0.5) * apart - 0.5) for k in range(PREVIEW_FRAMES)}
            shots: list[Picture] = []
            kept: list[Tensor] = []  # motion at 25 fps, for its file and its plot

            def motion() -> Iterator[Tensor]:
                for piece in animation.motion:
                    if config.save_motion or config.plot:
                        kept.append(piece)
                    yield piece

            def frames() -> Iterator[Picture]:
                for done, frame in enumerate(animation.frames(motion(), fps)):
                    if total is not None and done >= total:
                        continue  # the sound ends within the last frame of motion
                    if config.preview and done in shown:
                        shots.append(frame)
                    yield frame

            origin = {"model": self.name, "seed": str(config.sampler.seed)}
            count = media.write_video(
                frames(),
                config.output,
                fps,
                audio=track,
                codec=config.codec,
                crf=config.crf,
                metadata=origin,
                on_frame=(lambda done: on_frame(done, total)) if on_frame else None,
            )
            if config.save_motion:
                with atomic_write(config.save_motion) as path:
                    recording = Recording(torch.cat(kept), animation.neutral, animation.absolute)
                    save_motion(path, recording, origin)
            if config.plot and isinstance(sound, StoredWave):
                plot = figures.plot_motion(torch.cat(kept), animation.neutral, sound[:])
                media.write_image(config.plot, plot)
        if config.preview:
            moments = [f"{frame / fps:.2f} s" for frame in sorted(shown)]
            sheet = figures.contact_sheet(shots, 4, moments[: len(shots)])
            media.write_image(config.preview, sheet)
        seconds = time.perf_counter() - started
        height, width = animation.portrait.picture.shape[:2]
        score, rtf = animation.portrait.face.score, seconds * fps / count
        return Result(config.output, count, fps, width, height, seconds, rtf, score)

    def stream(
        self, clip: ClipConfig | Clip, sound: Iterable[Wave] | None = None
    ) -> Iterator[Picture]:
        """Yield the frames of a clip, uint8 (H, W, 3) RGB, as soon as their sound is there.

        sound: blocks (n,) at 16 kHz that may still be arriving; without them the clip's audio is
        read. The clip's outputs are not written. Models that hear through a speech encoder sample
        window by window with a running normalisation, close to what `generate` makes of a file;
        `mini` makes the same frames. Raises InputError for what cannot be read or shows no usable
        face.
        """
        if isinstance(clip, ClipConfig):
            piped = Path("-")
            audio = clip.audio if sound is None else piped
            clip = resolve(replace(clip, audio=audio, output=piped, plot=None, preview=None))
        with LiveSound(clip.config.audio if sound is None else sound) as live:
            animation = self.animate(clip, live)
            yield from animation.frames(animation.motion, clip.config.render.fps)

    def animate(
        self,
        clip: Clip,
        sound: Sound | Recording,
        *,
        sampled: Tensor | None = None,
        watch: Watch = lambda _: nullcontext(),
    ) -> Animation:
        """The clip's portrait and how it moves to a sound, or as recorded.

        Everything that makes a clip goes through here. sampled: as in `generate`. watch(stage) is
        entered while `portrait` and `motion` are worked on. Raises InputError for a portrait
        without a usable face.
        """
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(self._look, clip, watch)
            if isinstance(sound, Recording):
                made = iter([sound.motion])
            elif sampled is not None:
                made = iter([sampled])
            else:
                source = looking.result().source if self.model.starts_from_portrait else None
                heard = sound.read if isinstance(sound, LiveSound) else sound
                config = clip.config.sampler
                take = self.hearing.take(self.model, heard, clip.timeline, config, source)
                made = sample(self.model, take)
            made = watched(made, "motion", watch)
            # Windows are made ahead, while the portrait is looked at too; a whole clip, which a
            # speech encoder's model makes at once, would keep an interrupt waiting in its thread.
            ahead = prefetch(made) if self.hearing.causal else made
            portrait = looking.result()
        if isinstance(sound, Recording):
            neutral, absolute = sound.neutral, sound.absolute
        else:
            neutral = self.model.neutral(portrait.source)
            absolute = self.model.starts_from_portrait
        renderer = self.studio.renderer(portrait, neutral, absolute=absolute)
        motion = (edit_motion(piece, neutral, clip.config.render) for piece in ahead)
        return Animation(portrait, neutral, absolute, motion, renderer)

    def _look(self, clip: Clip, watch: Watch) -> Portrait:
        with watch("portrait"):
            return self.studio.look(clip.config)
