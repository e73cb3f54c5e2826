"""From a portrait and a sound to a video: the only module that knows every stage."""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from moda_cli import media
from moda_cli.animation import Animation, Sound, gaze_at, heard_timeline, num_frames, within_sound
from moda_cli.checks import Clip, resolve
from moda_cli.choice import choose
from moda_cli.config import FPS, SAMPLE_RATE, ClipConfig
from moda_cli.control.edits import Edits
from moda_cli.control.inserts import laid_over, look_at_videos, taken
from moda_cli.control.silence import Silence, told_of_rests
from moda_cli.control.timeline import Timeline
from moda_cli.control.timeline_file import write_timeline
from moda_cli.device import forbid_tf32, resolve_device, resolve_dtype, usable, wake
from moda_cli.errors import UsageError
from moda_cli.face.extractors import EXTRACTORS, load_extractors
from moda_cli.face.landmarks203 import load_landmarks
from moda_cli.face.portrait import Portrait, search_ahead
from moda_cli.files import atomic_write
from moda_cli.generator.hearing import Hearing, HearsMel, HearsSpeech
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import sample
from moda_cli.media import figures
from moda_cli.media.lettering import Lettering
from moda_cli.media.pictures import Picture, opaque
from moda_cli.media.provenance import record
from moda_cli.media.sound import LiveSound, StoredWave, stored_wave
from moda_cli.media.waves import Read, Samples, Wave, frames_to_cover, reader
from moda_cli.motion import Recording, save_motion
from moda_cli.render.liveportrait.renderer import load_renderer
from moda_cli.speech.encoder import ENCODERS, load_encoder
from moda_cli.stopwatch import DETAIL, Stopwatch, Watch, unwatched, watched
from moda_cli.studio import LivePortraitStudio, RigStudio, Studio
from moda_cli.weights import store
from moda_cli.weights.download import OnProgress, ensure

log = logging.getLogger(__name__)

FRAMES_APART = 2  # that a given motion and the sound may be without a word

PREVIEW_FRAMES = 12

OnFrame = Callable[[int, int | None], None]  # (done, total); None while sound may still arrive
OnPhase = Callable[[str, int, int | None], None]  # (what is being done, done, total)
OnPicture = Callable[[Picture], None]  # a frame on its way to the file, to be looked at only now


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
        first: ClipConfig | None = None,
    ) -> Self:
        """`mini`, `moda` or a model directory, and the renderer `rig` or `liveportrait`.

        `auto` chooses `moda` where it can run at once, the renderer that belongs to the model, and
        half precision on CUDA. compiled: LivePortrait's networks of every frame go through
        torch.compile. Weights that another choice lacks are fetched; on_progress(name, bytes, of
        bytes) follows. first: a clip that comes next; its portrait is searched meanwhile.

        Raises WeightsError for what cannot be had or is corrupt, DeviceError for the device,
        UsageError for a precision it cannot run.
        """
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        forbid_tf32()
        choice = choose(model, renderer, where)
        ensure(choice.components, on_progress)
        note = ""
        if model == "auto" and choice.model == "mini" and store.first_time("bundled model"):
            note = ": the bundled small model; `moda download` fetches MoDA's"
        log.info("model %s, renderer %s on %s%s", choice.model, choice.renderer, where, note)
        listens = choice.config.audio in ENCODERS
        looks = EXTRACTORS[0] in choice.components
        if compiled and choice.renderer == "rig":
            log.warning("nothing is compiled: that is for LivePortrait's networks, not for the rig")
        with usable(where), ThreadPoolExecutor() as pool:  # side by side
            model_there = pool.submit(choice.load, where)
            encoder = pool.submit(load_encoder, choice.config, where) if listens else None
            landmarks = pool.submit(load_landmarks) if looks else None
            extractors = pool.submit(load_extractors, where, precision) if looks else None
            engine = (
                pool.submit(load_renderer, where, precision, compiled)
                if choice.renderer == "liveportrait"
                else None
            )
            pool.submit(wake, where)
            if first and looks:  # without F and M loading takes no longer than a look
                pool.submit(search_ahead, first, store.seen_portraits())
            hearing = HearsSpeech(encoder.result()) if encoder else HearsMel()
            if engine:
                assert landmarks is not None  # its components hold them
                assert extractors is not None
                studio: Studio = LivePortraitStudio(
                    landmarks.result(), extractors.result(), engine.result()
                )
            else:
                studio = RigStudio(
                    landmarks.result() if landmarks else None,
                    extractors.result() if extractors else None,
                )
            return cls(model_there.result(), choice.model, hearing, studio)

    def generate(
        self,
        clip: ClipConfig | Clip,
        on_frame: OnFrame | None = None,
        *,
        sampled: Tensor | None = None,
        on_phase: OnPhase = lambda *_: None,
        on_picture: OnPicture = lambda _: None,
    ) -> Result:
        """Make one video and the side files `clip` asks for; `-` streams it to standard output.

        on_frame(done, total) is called for every finished frame, on_phase(phase, done, total) for
        all that is done before and for the frames too, on_picture with every frame before it is
        written; what one of them raises ends the clip. sampled: the clip's motion (T, 70), where it
        was sampled ahead. Raises UsageError for what cannot be written, InputError for what cannot
        be read or shows no usable face.
        """
        clock = Stopwatch()
        clip = resolve(clip)
        config, fps = clip.config, clip.fps
        with ExitStack() as stack:
            stack.enter_context(usable(self.model.device))
            with clock("motion"):
                given = self._recording(config.motion, on_phase) if config.motion else None
            whole = given if clip.takes_all else None
            on_phase("listening", 0, None)
            sound: LiveSound | StoredWave
            total = None
            if media.is_stdout(config.output) and not whole:
                sound = stack.enter_context(LiveSound(config.audio))
            else:
                sound = stack.enter_context(stored_wave(config.audio))
                length = frames_to_cover(len(sound))
                if given and abs(len(given.motion) - length) > FRAMES_APART:
                    lasts = f"{len(given.motion) / FPS:.2f} s, the sound {length / FPS:.2f} s"
                    what = "the picture" if whole else "what is taken"
                    log.warning("%s lasts %s: %s ends with it", config.motion, lasts, what)
                lasts_s = len(whole.motion) / FPS if whole else len(sound) / SAMPLE_RATE
                total = num_frames(lasts_s, fps)
            track = sound.track() if config.sound else None
            animation = self.animate(
                clip, sound, recorded=given, sampled=sampled, watch=clock, on_phase=on_phase
            )
            apart = (total or 0) / PREVIEW_FRAMES
            shown = {round((k + 0.5) * apart - 0.5) for k in range(PREVIEW_FRAMES)}
            shots: list[Picture] = []
            kept: list[Tensor] = []  # motion at 25 fps, for its file and its plot

            def motion() -> Iterator[Tensor]:
                for piece in watched(animation.motion, "waiting", clock):
                    if config.save_motion or config.plot:
                        kept.append(piece)
                    yield piece

            def frames() -> Iterator[Picture]:
                made = animation.frames(motion(), fps)
                if isinstance(sound, LiveSound):
                    made = within_sound(made, sound, fps, animation.timeline)
                for done, frame in enumerate(made):
                    if total is not None and done >= total:
                        continue  # the sound ends within the last frame of motion
                    if config.preview and done in shown:
                        shots.append(opaque(frame))
                    on_picture(frame)
                    yield frame

            def drawn(done: int) -> None:
                on_phase("drawing", done, total)
                if on_frame:
                    on_frame(done, total)

            if clip.cues and total and clip.cues[-1].start_s >= total / fps:
                late = f"{clip.cues[-1].start_s:.1f} s, the video lasts {total / fps:.1f} s"
                log.warning("a subtitle of %s begins at %s: it is not seen", config.subtitles, late)
            if not config.provenance:
                told = "%s will not say that it is AI-generated: you asked for --no-provenance"
                log.warning(told, config.output)
            said = record(config, self.name, self.studio.name) if config.provenance else None
            origin = {"model": self.name, "seed": str(config.sampler.seed)}
            count = media.write_video(
                watched(frames(), "drawing", clock),
                config.output,
                fps,
                audio=track,
                codec=config.codec,
                crf=config.crf,
                subtitles=clip.cues if config.subtitles_as == "track" else (),
                said=said,
                credentials=clip.credentials,
                on_frame=drawn,
                overwrite=config.overwrite,
                watch=clock,
            )
            if config.save_motion:
                with atomic_write(config.save_motion) as path:
                    save_motion(path, animation.recording(torch.cat(kept)), origin)
            if config.save_timeline:
                write_timeline(config.save_timeline, animation.timeline)
            if config.plot and isinstance(sound, StoredWave):
                plot = figures.plot_motion(torch.cat(kept), animation.neutral, sound[:])
                media.write_image(config.plot, plot)
        if config.preview:
            moments = [f"{frame / fps:.2f} s" for frame in sorted(shown)]
            sheet = figures.contact_sheet(shots, 4, moments[: len(shots)])
            media.write_image(config.preview, sheet, generated=config.provenance)
        seconds = clock.elapsed()
        shares = clock.shares("portrait", "motion", "drawing", "encoding", "waiting")
        log.log(DETAIL, "%d frames in %.2f s: %s", count, seconds, shares)
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
        `mini` makes the same frames. Motion that was made before is drawn as `generate` draws it.
        Raises InputError for what cannot be read or shows no usable face, UsageError for such
        motion beside sound that arrives.
        """
        if isinstance(clip, ClipConfig):
            piped = Path("-")
            audio = clip.audio if sound is None else piped
            clip = resolve(replace(clip, audio=audio, output=piped, plot=None, preview=None))
        config, fps = clip.config, clip.fps
        given = self._recording(config.motion) if config.motion else None
        if given and clip.takes_all:
            if sound is not None:
                hint = "give the whole sound, --take some of it, or leave --motion out"
                raise UsageError("--motion does not follow sound that arrives", hint=hint)
            with stored_wave(config.audio) as stored:
                animation = self.animate(clip, stored, recorded=given)
                frames = animation.frames(animation.motion, fps)
                yield from islice(frames, num_frames(len(given.motion) / FPS, fps))
            return
        with LiveSound(config.audio if sound is None else sound) as live:
            animation = self.animate(clip, live, recorded=given)
            frames = animation.frames(animation.motion, fps)
            yield from within_sound(frames, live, fps, animation.timeline)

    def motion(self, clip: ClipConfig | Clip, *, on_phase: OnPhase = lambda *_: None) -> Recording:
        """The motion that `generate` draws, (T, 70) at 25 fps, and nothing else of the clip.

        on_phase and errors are those of `generate`.
        """
        clip = resolve(clip)
        with usable(self.model.device), stored_wave(clip.config.audio) as sound:
            motion = clip.config.motion
            given = self._recording(motion, on_phase) if motion else None
            animation = self.animate(clip, sound, recorded=given, on_phase=on_phase)
            return animation.recording(torch.cat(list(animation.motion)))

    def animate(
        self,
        clip: Clip,
        sound: Sound,
        *,
        recorded: Recording | None = None,
        sampled: Tensor | None = None,
        watch: Watch = unwatched,
        on_phase: OnPhase = lambda *_: None,
    ) -> Animation:
        """The clip's portrait and how it moves to a sound, or as recorded.

        Everything that makes a clip goes through here. recorded: moves so instead of to the sound,
        or in what the clip takes of it; recorded lips are left alone in pauses unless asked for.
        sampled: as in `generate`. watch(stage) is entered while `portrait` and `motion` are worked
        on, on_phase as in `generate`. Raises InputError for a portrait without a usable face, and
        for a timeline longer than the sound.
        """
        whole = recorded if clip.takes_all else None
        timeline = heard_timeline(clip, sound)
        if not isinstance(sound, LiveSound):
            length_s = len(whole.motion) / FPS if whole else len(sound) / SAMPLE_RATE
            timeline.check_within(length_s)
        timeline = look_at_videos(timeline, partial(self._recording, on_phase=on_phase))
        layer = taken(clip.config.motion or Path(), recorded, clip.take) if recorded else Timeline()
        heard: Samples | Read = sound.read if isinstance(sound, LiveSound) else sound
        silence = None
        if self._closes_in_silence(clip, recorded):
            silence = Silence(None if callable(heard) else reader(heard))
            heard = silence.hearing(heard) if callable(heard) else heard
        with ThreadPoolExecutor(max_workers=1) as pool:
            on_phase("finding the face", 0, None)
            looking = pool.submit(self._look, clip, watch)
            if whole:
                made = iter([whole.motion])
            elif sampled is not None:
                made = iter([sampled])
            else:
                source = looking.result().source if self.model.starts_from_portrait else None
                take = self.hearing.take(self.model, heard, timeline, clip.config.sampler, source)
                made = sample(self.model, take, partial(on_phase, "sampling"))
            made = watched(made, "motion", watch)
            # Windows are made ahead, while the portrait is looked at too. A whole clip, which a
            # speech encoder's model makes at once, would keep an interrupt waiting in its thread,
            # as would a window of it on a CPU.
            live_there = isinstance(sound, LiveSound) and self.model.device.type == "cuda"
            ahead = prefetch(made) if self.hearing.causal or live_there else made
            portrait = looking.result()
        if whole:
            neutral, absolute = whole.neutral, whole.absolute
        else:
            neutral = self.model.neutral(portrait.source)
            absolute = self.model.starts_from_portrait
            if silence:
                ahead = told_of_rests(ahead, silence, neutral)
            ahead = laid_over(ahead, layer, neutral)
        renderer = self.studio.renderer(portrait, neutral, absolute=absolute)
        rest, seed = silence.rest if silence else None, clip.config.sampler.seed
        motion = Edits(neutral, timeline, clip.config.render, rest, seed)(ahead)
        looks = partial(gaze_at, layer, timeline)
        burnt = clip.cues if clip.config.subtitles_as == "burn" else ()
        lettering = Lettering(clip.config.label, burnt, clip.config.font)
        return Animation(portrait, neutral, absolute, motion, renderer, lettering, timeline, looks)

    def _closes_in_silence(self, clip: Clip, recorded: Recording | None) -> bool:
        """Asked for, or unless asked: not lips that were recorded, nor what follows the release."""
        asked = clip.config.render.silence_gate
        left_alone = (recorded and "lips" in clip.take) or self.model.starts_from_portrait
        return not left_alone if asked is None else asked

    def _recording(self, path: Path, on_phase: OnPhase = lambda *_: None) -> Recording:
        """A clip's `--motion`, or one that its timeline names. Raises InputError."""
        return self.studio.recording(path, partial(on_phase, "watching"))

    def _look(self, clip: Clip, watch: Watch) -> Portrait:
        with watch("portrait"):
            return self.studio.look(clip.config)
