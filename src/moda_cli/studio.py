"""Where a portrait is looked at and drawn, chosen once: by the rig, or by LivePortrait."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from moda_cli.config import ClipConfig
from moda_cli.face.extractors import Extractors
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.portrait import Portrait, read_portrait, resized
from moda_cli.media.pictures import Picture
from moda_cli.render.liveportrait.engine import Engine
from moda_cli.render.liveportrait.paste import PasteBack
from moda_cli.render.liveportrait.renderer import LivePortrait
from moda_cli.render.renderer import Renderer
from moda_cli.render.rig.rig import Rig
from moda_cli.weights import store


class Studio(Protocol):
    """Reads portraits as one renderer needs them, and draws on them."""

    @property
    def name(self) -> str:
        """Which renderer it is."""

    def look(self, clip: ClipConfig) -> Portrait:
        """The clip's portrait. Raises InputError, UsageError."""

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
        return read_portrait(
            clip, self.landmarks, self.extractors, released=False, seen_before=_kept_portraits()
        )

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """A rig of the portrait; it takes every motion relative to its neutral."""
        return Rig(portrait.picture, portrait.face, neutral)


@dataclass(frozen=True, slots=True)
class LivePortraitStudio:
    """LivePortrait's networks."""

    landmarks: LandmarkNetwork
    extractors: Extractors
    engine: Engine
    name: ClassVar[str] = "liveportrait"

    def look(self, clip: ClipConfig) -> Portrait:
        """The portrait as the release frames it, with what F and M see of it."""
        return read_portrait(
            clip, self.landmarks, self.extractors, released=True, seen_before=_kept_portraits()
        )

    def renderer(self, portrait: Portrait, neutral: Tensor, *, absolute: bool) -> Renderer:
        """The networks on this portrait, pasted back where its whole picture is shown."""
        assert portrait.source is not None
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


def _kept_portraits() -> Path:
    return store.cache_dir() / "portraits"
