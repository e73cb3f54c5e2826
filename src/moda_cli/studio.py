"""Where a portrait is looked at and drawn, chosen once: by the rig, or by LivePortrait."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from moda_cli.config import TRANSPARENT, ClipConfig
from moda_cli.errors import UsageError
from moda_cli.face.extractors import Extractors
from moda_cli.face.film import FilmedPortrait, read_film
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.portrait import Portrait, read_portrait, resized
from moda_cli.face.video_motion import Looks, OnWatched
from moda_cli.media.pictures import Picture, is_video
from moda_cli.motion import Recording
from moda_cli.render.liveportrait.engine import Engine
from moda_cli.render.liveportrait.paste import PasteBack
from moda_cli.render.liveportrait.renderer import LivePortrait
from moda_cli.render.liveportrait.retarget import RedrivenLivePortrait
from moda_cli.render.renderer import Renderer
from moda_cli.render.rig.redrive import RedrivenRig
from moda_cli.render.rig.rig import Rig
from moda_cli.weights import store


class Studio(Protocol):
    """Reads portraits as one renderer needs them, and draws on them."""

    @property
    def name(self) -> str:
        """Which renderer it is."""

    def look(self, clip: ClipConfig) -> Portrait:
        """The clip's portrait. Raises InputError, UsageError."""

    def recording(self, path: Path, on_watched: OnWatched) -> Recording:
        """What a motion file holds or a video shows, see `Looks`. Raises InputError."""

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """Who draws on a portrait.

        neutral: (70) the motion at which a frame is the portrait; absolute: as in `Recording`.
        """


@dataclass(frozen=True, slots=True)
class RigStudio:
    """The renderer without weights. The extractors serve models that start from the portrait."""

    landmarks: LandmarkNetwork | None  # where the extractors are
    extractors: Extractors | None
    name: ClassVar[str] = "rig"

    def look(self, clip: ClipConfig) -> Portrait:
        """The portrait at the video's size."""
        return _look(clip, self.landmarks, self.extractors, released=False)

    def recording(self, path: Path, on_watched: OnWatched) -> Recording:
        """Videos are looked at by the extractors where they are loaded."""
        return _recording(path, self.landmarks, self.extractors, on_watched)

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """A rig of the portrait; it takes every motion relative to its neutral."""
        if isinstance(portrait, FilmedPortrait):
            return RedrivenRig(portrait.film, neutral)
        return Rig(portrait.picture, portrait.face, neutral)


@dataclass(frozen=True, slots=True)
class LivePortraitStudio:
    """LivePortrait's networks."""

    landmarks: LandmarkNetwork
    extractors: Extractors
    engine: Engine
    name: ClassVar[str] = "liveportrait"

    def look(self, clip: ClipConfig) -> Portrait:
        """The portrait as the release frames it, with what F and M see of it.

        Raises UsageError for a transparent video.
        """
        if clip.background == TRANSPARENT:
            hint = "--renderer rig does"
            raise UsageError("LivePortrait draws no transparent video", hint=hint)
        return _look(clip, self.landmarks, self.extractors, released=True)

    def recording(self, path: Path, on_watched: OnWatched) -> Recording:
        """Videos are looked at by M."""
        return _recording(path, self.landmarks, self.extractors, on_watched)

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """The networks on this portrait, pasted back where its whole picture is shown."""
        assert portrait.source is not None
        if isinstance(portrait, FilmedPortrait):
            first = portrait.source.motion if absolute else neutral
            return RedrivenLivePortrait(
                *(self.engine, self.landmarks, self.extractors, portrait.film, first),
                absolute=absolute,
            )
        assert portrait.feature_volume is not None
        if portrait.from_crop is None:
            paste: Callable[[Picture], Picture] = partial(resized, side=len(portrait.picture))
        else:
            paste = PasteBack(portrait.picture, portrait.from_crop)
        return LivePortrait(
            self.engine,
            portrait.source,
            portrait.feature_volume,
            paste,
            None if absolute else neutral,
        )


def _look(
    clip: ClipConfig,
    landmarks: LandmarkNetwork | None,
    extractors: Extractors | None,
    *,
    released: bool,
) -> Portrait:
    """As `read_portrait`, or `read_film` where the portrait is a video."""
    seen_before = store.seen_portraits()
    if is_video(clip.portrait):
        return read_film(clip, landmarks, extractors, seen_before=seen_before)
    return read_portrait(clip, landmarks, extractors, released=released, seen_before=seen_before)


def _recording(
    path: Path,
    landmarks: LandmarkNetwork | None,
    extractors: Extractors | None,
    on_watched: OnWatched,
) -> Recording:
    return Looks(landmarks, extractors, store.seen_portraits()).recording(path, on_watched)
