"""The work of a batch of clips: what its processes hold, and what they do for a job."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from moda_cli import media
from moda_cli.animation import heard_timeline
from moda_cli.checks import Clip, resolve
from moda_cli.config import ClipConfig
from moda_cli.control.timeline_file import read_timeline
from moda_cli.device import use_threads
from moda_cli.errors import InputError, ModaError
from moda_cli.face.film import FilmedPortrait, find_portrait
from moda_cli.face.portrait import Portrait
from moda_cli.face.video_motion import OnWatched, check_recording
from moda_cli.files import Row
from moda_cli.generator.takes import Take, sample_together
from moda_cli.jobs.clip_list import Job
from moda_cli.jobs.places import local_files
from moda_cli.jobs.processes import Work
from moda_cli.media.provenance import versions
from moda_cli.media.sound import stored_wave
from moda_cli.motion import Recording
from moda_cli.pipeline import OnFrame, Pipeline
from moda_cli.render.renderer import Renderer
from moda_cli.studio import Studio
from moda_cli.weights import store

log = logging.getLogger(__name__)

T = TypeVar("T")

PORTRAITS_KEPT = 16  # LivePortrait's features and a full HD picture are 25 MB


class LeastRecent(OrderedDict[object, T]):
    """The values used last, at most so many, made when they are first asked for."""

    def __init__(self, most: int = PORTRAITS_KEPT) -> None:
        super().__init__()
        self.most = most

    def get_or(self, key: object, make: Callable[[], T]) -> T:
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return self[key]


@dataclass(frozen=True, slots=True)
class KeepingStudio:
    """A studio that remembers the portraits it has looked at, and who draws on them."""

    studio: Studio
    seen: LeastRecent[Portrait | InputError] = field(default_factory=LeastRecent)
    renderers: LeastRecent[tuple[Portrait, Renderer]] = field(default_factory=LeastRecent)

    @property
    def name(self) -> str:
        """That of the studio itself."""
        return self.studio.name

    def look(self, clip: ClipConfig) -> Portrait:
        """The clip's portrait, from memory where it is still the same file."""
        if clip.show_landmarks or clip.save_crop or not clip.portrait.is_file():
            return self.studio.look(clip)
        stat = clip.portrait.stat()
        key = (
            *(clip.portrait, stat.st_mtime_ns, stat.st_size, stat.st_ino),
            *(clip.face, clip.face_points, clip.force, clip.background),
            *(clip.render.full_frame, clip.render.size, clip.render.aspect),
            *(clip.render.fps, clip.render.redrive),
        )

        def once() -> Portrait | InputError:
            try:
                return self.studio.look(clip)
            except InputError as error:
                return error

        found = self.seen.get_or(key, once)
        if isinstance(found, InputError):
            raise InputError(str(found), hint=found.hint)
        return found

    def recording(self, path: Path, on_watched: OnWatched) -> Recording:
        """As the studio itself."""
        return self.studio.recording(path, on_watched)

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """A renderer takes half a second to build, and holds no state from clip to clip.

        But for one of a film, which goes on from frame to frame.
        """
        if isinstance(portrait, FilmedPortrait):
            return self.studio.renderer(portrait, neutral, absolute=absolute)
        key = (id(portrait), neutral.numpy().tobytes(), absolute)  # its portrait is kept beside it
        build = self.studio.renderer
        made = self.renderers.get_or(
            key, lambda: (portrait, build(portrait, neutral, absolute=absolute))
        )
        return made[1]


Ahead = dict[ClipConfig, tuple[Clip, Tensor]]  # with what was heard, and motion (T, 70)


def sample_ahead(pipeline: Pipeline, clips: Sequence[ClipConfig]) -> Ahead:
    """Clips that are generated next, as they are then to be made, sampled side by side.

    What cannot be read is left out, for `generate` to say so; so is a clip that is alone in its
    number of steps.
    """
    made: Ahead = {}
    asked = [clip for clip in clips if not clip.motion or clip.take]
    for steps in {clip.sampler.steps for clip in asked}:
        alike = [clip for clip in asked if clip.sampler.steps == steps]
        made.update(_sample_alike(pipeline, alike))
    return made


def _sample_alike(pipeline: Pipeline, clips: Sequence[ClipConfig]) -> Ahead:
    """The same of clips with as many steps; fewer at once where memory is short."""
    if len(clips) < 2:
        return {}
    try:
        return _sample_together(pipeline, clips)
    except torch.OutOfMemoryError:
        log.warning("out of memory: sampling %d clips in two halves", len(clips))
    half = len(clips) // 2
    return {
        **_sample_alike(pipeline, clips[:half]),
        **_sample_alike(pipeline, clips[half:]),
    }


def _sample_together(pipeline: Pipeline, clips: Sequence[ClipConfig]) -> Ahead:
    takes: dict[ClipConfig, tuple[Clip, Take]] = {}
    with ExitStack() as stack:
        for config in clips:
            with suppress(ModaError):
                clip = resolve(config)
                starts = pipeline.model.starts_from_portrait
                source = pipeline.studio.look(config).source if starts else None
                sound = stack.enter_context(stored_wave(config.audio))
                clip = replace(clip, timeline=heard_timeline(clip, sound))  # heard once
                take = pipeline.hearing.take(
                    pipeline.model, sound, clip.timeline, config.sampler, source
                )
                takes[config] = clip, take
        if not takes:
            return {}
        motions = sample_together(pipeline.model, [take for _, take in takes.values()])
        return {
            config: (clip, motion)
            for (config, (clip, _)), motion in zip(takes.items(), motions, strict=True)
        }


@dataclass(frozen=True)
class ClipMaker:
    """Makes the function that makes clips, once a process. Travels to it by name and settings."""

    model: str
    renderer: str
    dtype: str
    compiled: bool = False

    def __call__(self, device: str, threads: int) -> Work:
        """threads: of the CPU, 0 leaves it to torch. Raises WeightsError or DeviceError."""
        if threads:
            use_threads(threads)
        loaded = Pipeline.load(self.model, device, self.renderer, self.dtype, self.compiled)
        pipeline = replace(loaded, studio=KeepingStudio(loaded.studio))
        used = str(pipeline.model.device)
        ahead: Ahead = {}

        def make(job: Job, following: Sequence[Job], on_frame: OnFrame) -> Row:
            with local_files(job) as clip:
                near = [clip, *(job.clip for job in following if not job.urls)] if following else []
                ahead.update(sample_ahead(pipeline, [each for each in near if each not in ahead]))
                settled, sampled = ahead.pop(clip, (clip, None))
                measures = asdict(pipeline.generate(settled, on_frame, sampled=sampled))
            del measures["output"]
            return {**measures, "device": used, "versions": versions()}

        return make


def input_faults(jobs: Sequence[Job]) -> Iterator[str]:
    """What is wrong with the jobs' files, each portrait and each sound looked at once."""
    known: dict[object, str | None] = {}

    def fault(key: object, check: Callable[[], object]) -> str | None:
        if key not in known:
            try:
                check()
                known[key] = None
            except ModaError as error:
                known[key] = str(error)
        return known[key]

    for job in jobs:
        with local_files(
            replace(job, urls={k: v for k, v in job.urls.items() if k != "output"})
        ) as clip:
            unseen = replace(clip, show_landmarks=None)
            portrait = (job.urls.get("portrait", clip.portrait), clip.face, clip.face_points)

            def look(clip: ClipConfig = unseen) -> None:
                find_portrait(clip, store.seen_portraits())

            checks: list[tuple[object, Callable[[], object]]] = [
                (portrait, look),
                (job.urls.get("audio", clip.audio), partial(media.read_audio, clip.audio)),
            ]
            if clip.motion:
                checks.append((clip.motion, partial(check_recording, clip.motion)))
            if clip.timeline:
                checks.append((clip.timeline, partial(read_timeline, clip.timeline)))
            for key, check in checks:
                if reason := fault(key, check):
                    yield f"{job.origin}: {reason}"
