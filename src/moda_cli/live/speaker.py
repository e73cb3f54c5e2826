"""A portrait that was looked at, ready for sessions."""

import logging
from dataclasses import replace
from pathlib import Path

from moda_cli.checks import Clip, resolve
from moda_cli.config import ClipConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.errors import UsageError
from moda_cli.face.film import FilmedPortrait
from moda_cli.generator.hops import Hop
from moda_cli.live.face import LiveFace
from moda_cli.live.session import LiveSession
from moda_cli.pipeline import Pipeline

log = logging.getLogger(__name__)


class Speaker:
    """Begins sessions in which a clip's portrait speaks, on one model, from any thread."""

    def __init__(self, pipeline: Pipeline, clip: ClipConfig | Clip) -> None:
        """Of the clip's options those of the portrait, its size, emotion and sampler count.

        Raises InputError for a portrait without a usable face, UsageError for a video as one.
        """
        if isinstance(clip, ClipConfig):
            piped = Path("-")
            clip = resolve(replace(clip, audio=piped, output=piped, plot=None, preview=None))
        if not pipeline.model.network.config.known and pipeline.model.device.type == "cpu":
            log.warning("this model is made for a GPU: on a CPU a live face will not keep up")
        self._pipeline, self._clip = pipeline, clip.config
        self._portrait = pipeline.studio.look(clip.config)
        if isinstance(self._portrait, FilmedPortrait):
            raise UsageError("a video cannot be spoken with live", hint="give one picture of it")

    def session(self) -> LiveSession:
        """A face of its own, in real time.

        Raises UsageError for a model whose windows are too short, and for emotions that need the
        whole sound.
        """
        model, studio = self._pipeline.model, self._pipeline.studio
        source, timeline = self._portrait.source, parse_emotion(self._clip.emotion)
        sampler = self._pipeline.hearing.hops(
            *(model, timeline, self._clip.sampler, source), Hop.of(model)
        )
        neutral, absolute = model.neutral(source), model.starts_from_portrait
        renderer = studio.renderer(self._portrait, neutral, absolute=absolute)
        return LiveSession(LiveFace(sampler, renderer, neutral, timeline))
