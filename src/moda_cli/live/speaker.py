"""A portrait that was looked at, ready for sessions."""

from dataclasses import replace
from pathlib import Path

from moda_cli.checks import Clip, resolve
from moda_cli.config import ClipConfig
from moda_cli.errors import UsageError
from moda_cli.face.film import FilmedPortrait
from moda_cli.generator.hops import Hop
from moda_cli.live.face import LiveFace
from moda_cli.live.session import LiveSession
from moda_cli.pipeline import Pipeline


class Speaker:
    """Begins sessions in which a clip's portrait speaks, on one model, from any thread."""

    def __init__(self, pipeline: Pipeline, clip: ClipConfig | Clip) -> None:
        """Of the clip's options those of the portrait, its size, emotion and seed count.

        Raises InputError for a portrait without a usable face, UsageError for a video as one.
        """
        if isinstance(clip, ClipConfig):
            piped = Path("-")
            clip = resolve(replace(clip, audio=piped, output=piped, plot=None, preview=None))
        self._pipeline, self._clip = pipeline, clip.config
        self._portrait = pipeline.studio.look(clip.config)
        if isinstance(self._portrait, FilmedPortrait):
            raise UsageError("a video cannot be spoken with live", hint="give one picture of it")

    def session(self) -> LiveSession:
        """A face of its own, in real time.

        Raises UsageError for a model that makes long windows.
        """
        model, studio = self._pipeline.model, self._pipeline.studio
        neutral = model.neutral(self._portrait.source)
        absolute = model.starts_from_portrait
        renderer = studio.renderer(self._portrait, neutral, absolute=absolute)
        emotion, seed = self._clip.emotion, self._clip.sampler.seed
        return LiveSession(LiveFace(model, renderer, emotion, seed, Hop()))
