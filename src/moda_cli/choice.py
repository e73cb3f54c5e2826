"""What `auto` comes to: the device, its precision, the model and its renderer."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from moda_cli.config import ModelConfig
from moda_cli.face.extractors import EXTRACTORS
from moda_cli.face.landmarks203 import LANDMARKS
from moda_cli.files import sha256_of
from moda_cli.generator.model import (
    MODA,
    MODEL_FILES,
    MotionGenerator,
    load_moda,
    moda_config,
    read_config,
)
from moda_cli.render.liveportrait.renderer import RENDERER
from moda_cli.speech.encoder import ENCODERS
from moda_cli.weights import store

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "assets" / "mini"


@dataclass(frozen=True, slots=True)
class Choice:
    """A model and a renderer."""

    model: str  # mini, moda, or a directory written by training
    renderer: str  # rig or liveportrait
    config: ModelConfig  # of the model's network

    @property
    def directory(self) -> Path:
        """Where a model lies that is not a downloaded component."""
        return BUNDLED if self.model == "mini" else Path(self.model)

    def load(self, device: torch.device) -> MotionGenerator:
        """Raises WeightsError for a model that is not there, damaged or of another shape."""
        if self.model == "moda":
            return load_moda(device)
        return MotionGenerator.load(self.directory, device)

    @property
    def components(self) -> tuple[str, ...]:
        """All that is to be downloaded for it."""
        own = (MODA,) if self.model == "moda" else ()
        return (*own, *needed(self.config, self.renderer))

    def described(self) -> dict[str, str]:
        """What is said of the model beside a result, with one hash over all files that are loaded.

        The components must be there.
        """
        own = [] if self.model == "moda" else [self.directory / file for file in MODEL_FILES]
        lock = store.read_lock()
        fetched = [lock[name].path_sha256 for name in self.components]
        sums = " ".join([self.renderer, *map(sha256_of, own), *fetched])
        digest = hashlib.sha256(sums.encode()).hexdigest()
        return {"model": self.model, "model_sha256": digest, "renderer": self.renderer}


def needed(config: ModelConfig, renderer: str) -> tuple[str, ...]:
    """Components, beside its own weights, that a model of this shape and a renderer load."""
    names = [ENCODERS[config.audio]] if config.audio in ENCODERS else []
    if config.source == "extracted" or renderer == "liveportrait":
        names += [LANDMARKS, *EXTRACTORS]
    if renderer == "liveportrait":
        names += RENDERER
    return tuple(names)


def missing(names: Sequence[str]) -> list[str]:
    """Those of these components that are not installed."""
    return [name for name in names if store.installed(name) is None]


def choose(model: str, renderer: str, device: torch.device) -> Choice:
    """`auto` is `moda` on CUDA where its weights are there, else `mini`; and what belongs to it.

    Raises WeightsError for a directory without a model.
    """
    if model == "auto":
        official = choose("moda", renderer, device) if device.type == "cuda" else None
        if official and not missing(official.components):
            return official
        model = "mini"
    config = moda_config() if model == "moda" else None
    config = config or read_config(BUNDLED if model == "mini" else Path(model))
    if renderer == "auto":
        renderer = "liveportrait" if config.source == "extracted" else "rig"
    return Choice(model, renderer, config)
