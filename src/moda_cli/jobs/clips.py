"""The work of a batch of clips: what its processes hold, and what they do for a job."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from moda_cli import components, media
from moda_cli.config import ClipConfig
from moda_cli.control import Timeline, parse_emotion
from moda_cli.device import use_threads
from moda_cli.errors import ModaError
from moda_cli.face.portrait import Portrait, find_face
from moda_cli.files import Row
from moda_cli.generator.model import Take, sample_together
from moda_cli.jobs.clip_list import Job
from moda_cli.jobs.places import at_hand
from moda_cli.jobs.processes import Work
from moda_cli.media.provenance import versions
from moda_cli.media.sound import stored_wave
from moda_cli.media.waves import Read, Samples
from moda_cli.motion import load_motion
from moda_cli.pipeline import OnFrame, Pipeline, Renderer

log = logging.getLogger(__name__)

T = TypeVar("T")

PORTRAITS_KEPT = 16  # LivePortrait's features and a full HD picture are 25 MB


class Recent(OrderedDict[object, T]):
    """The values used last, made when they are first asked for."""

    def get_or(self, key: object, make: Callable[[], T]) -> T:
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > PORTRAITS_KEPT:
            self.popitem(last=False)
        return self[key]


@dataclass(frozen=True)
class CachingPipeline(Pipeline):
    """A pipeline that remembers portraits and their rigs, and samples clips side by side."""

    seen: Recent[Portrait] = field(default_factory=Recent)
    rigs: Recent[tuple[Portrait, Renderer]] = field(default_factory=Recent)
    foreseen: dict[ClipConfig, Tensor] = field(default_factory=dict)  # motion (T, 70)

    def foresee(self, clips: Sequence[ClipConfig]) -> None:
        """Sample the motion of clips that are generated next side by side, where it lacks.

        What cannot be read is left to `generate`, which says so.
        """
        lacking = [clip for clip in clips if clip not in self.foreseen and not clip.motion]
        for steps in {clip.sampler.steps for clip in lacking}:
            self._foresee_alike([clip for clip in lacking if clip.sampler.steps == steps])

    def _foresee_alike(self, clips: Sequence[ClipConfig]) -> None:
        """The same of clips with as many steps; fewer at once where memory is short."""
        if len(clips) < 2:
            return
        try:
            self._sample_together(clips)
            return
        except torch.OutOfMemoryError:
            log.warning("out of memory: sampling %d clips in two halves", len(clips))
        half = len(clips) // 2
        for part in (clips[:half], clips[half:]):
            self._foresee_alike(part)

    def _sample_together(self, clips: Sequence[ClipConfig]) -> None:
        takes: dict[ClipConfig, Take] = {}
        with ExitStack() as stack:
            for clip in clips:
                with suppress(ModaError):
                    source = self.look(clip).source if self.starts_from_portrait else None
                    sound = stack.enter_context(stored_wave(clip.audio))
                    takes[clip] = self.take(sound, parse_emotion(clip.emotion), clip, source)
            if takes:
                made = sample_together(self.model, list(takes.values()))
                self.foreseen.update(zip(takes, made, strict=True))

    def move(
        self,
        sound: Samples | Read,
        timeline: Timeline,
        clip: ClipConfig,
        portrait: Future[Portrait],
    ) -> Iterator[Tensor]:
        """The clip's motion, if it was foreseen, else as it is sampled."""
        if clip in self.foreseen:
            yield self.foreseen.pop(clip)
        else:
            yield from super().move(sound, timeline, clip, portrait)

    def look(self, clip: ClipConfig) -> Portrait:
        """The clip's portrait, from memory where it is still the same file."""
        look = super().look
        if clip.show_landmarks or clip.save_crop or not clip.portrait.is_file():
            return look(clip)
        stat = clip.portrait.stat()
        key = (
            *(clip.portrait, stat.st_mtime_ns, stat.st_size, stat.st_ino),
            *(clip.face, clip.face_points, clip.background),
            *(clip.render.full_frame, clip.render.size),
        )
        return self.seen.get_or(key, lambda: look(clip))

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """The renderer of a portrait; a rig takes half a second to build and holds no state."""
        build = super().renderer
        if self.networks is not None:
            return build(portrait, neutral, absolute=absolute)
        key = (id(portrait), neutral.numpy().tobytes())  # kept beside its rig, so the id is its own
        made = self.rigs.get_or(
            key, lambda: (portrait, build(portrait, neutral, absolute=absolute))
        )
        return made[1]


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
        pipeline = CachingPipeline.load(
            self.model, device, self.renderer, self.dtype, self.compiled
        )
        used = str(pipeline.model.device)

        def make(job: Job, following: Sequence[Job], on_frame: OnFrame) -> Row:
            with at_hand(job) as clip:
                if following:
                    pipeline.foresee([clip, *(job.clip for job in following if not job.urls)])
                try:
                    measures = asdict(pipeline.generate(clip, on_frame))
                finally:
                    pipeline.foreseen.pop(clip, None)
            del measures["output"]
            return {**measures, "device": used, "versions": versions()}

        return make


def input_faults(jobs: Sequence[Job]) -> Iterator[str]:
    """What is wrong with the jobs' files, each portrait and each sound looked at once."""
    detector = components.load_detector()
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
        with at_hand(
            replace(job, urls={k: v for k, v in job.urls.items() if k != "output"})
        ) as clip:
            unseen = replace(clip, show_landmarks=None)
            portrait = (job.urls.get("portrait", clip.portrait), clip.face, clip.face_points)

            def look(clip: ClipConfig = unseen) -> None:
                find_face(media.read_image(clip.portrait, clip.background), clip, detector)

            checks: list[tuple[object, Callable[[], object]]] = [
                (portrait, look),
                (job.urls.get("audio", clip.audio), partial(media.read_audio, clip.audio)),
            ]
            if clip.motion:
                checks.append((clip.motion, partial(load_motion, clip.motion)))
            for key, check in checks:
                if reason := fault(key, check):
                    yield f"{job.origin}: {reason}"
