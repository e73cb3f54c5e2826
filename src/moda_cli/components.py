"""Which downloaded networks a model and a renderer need, and their loading."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from moda_cli.config import ModelConfig
from moda_cli.errors import WeightsError
from moda_cli.face.detect import FaceDetector
from moda_cli.face.extractors import AppearanceExtractor, Extractors, MotionExtractor
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.model import MotionGenerator
from moda_cli.motion import Stats
from moda_cli.render.liveportrait.keypoints import Retargeting
from moda_cli.render.liveportrait.renderer import Engine, Networks
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork
from moda_cli.speech.encoder import SpeechEncoder, SpeechEncoderConfig
from moda_cli.weights import store
from moda_cli.weights.manifest import load_manifest
from moda_cli.weights.renames import liveportrait
from moda_cli.weights.renames.liveportrait import liveportrait_state
from moda_cli.weights.renames.moda import motion_generator_state
from moda_cli.weights.renames.speech import speech_encoder_state
from moda_cli.weights.state import load_strict

MODA = "motion_generator"
FACE = ("face_detector", "face_landmarks")
EXTRACTORS = ("appearance_extractor", "motion_extractor")
RENDERER = ("warping", "spade", "stitching")
ENCODERS = {"hubert": "speech_encoder", "wav2vec2": "wav2vec2"}
RELEASED_STATS = Path(__file__).parent / "assets" / "moda" / "stats.json"

Network = TypeVar("Network", bound=nn.Module)
State = Mapping[str, Tensor]


def needed(config: ModelConfig, renderer: str) -> tuple[str, ...]:
    """Components, beside its own weights, that a model of this shape and a renderer load."""
    names = [ENCODERS[config.audio]] if config.audio in ENCODERS else []
    if config.source == "extracted" or renderer == "liveportrait":
        names += [*FACE, *EXTRACTORS]
    if renderer == "liveportrait":
        names += RENDERER
    return tuple(names)


def moda_config() -> ModelConfig:
    """Shape of the official motion generator."""
    return ModelConfig(**load_manifest().component(MODA).config)


def missing(names: Sequence[str]) -> list[str]:
    """Those of these components that are not installed."""
    return [name for name in names if store.installed(name) is None]


def load_network(
    name: str,
    build: Callable[..., Network],
    state_of: Callable[[State], State],
    device: torch.device,
) -> Network:
    """A downloaded component as a module on `device`, of the sizes weights.toml gives it.

    Raises WeightsError where it is missing, damaged or of another shape.
    """
    path = store.require(name)[name]
    with torch.device("meta"):
        module = build(**load_manifest().component(name).config)
    try:
        state = load_file(path, device="cpu" if device.type == "mps" else str(device))
    except (OSError, SafetensorError) as error:
        hint = "run `moda download --verify`, then `moda download`"
        raise WeightsError(f"cannot read {path}: {error}", hint=hint) from None
    load_strict(module, state_of(state), str(path))
    return module.to(device).eval()


def load_moda(device: torch.device) -> MotionGenerator:
    """The official motion generator, with the statistics of its release."""
    shape = moda_config()
    network = load_network(
        MODA,
        lambda **_: MMDiT(shape),
        partial(motion_generator_state, audio_dim=shape.audio_dim),
        device,
    )
    numbers = {
        key: torch.tensor(row) for key, row in json.loads(RELEASED_STATS.read_text()).items()
    }
    unused = torch.zeros(shape.identity_dim)  # the portrait's own are taken
    return MotionGenerator(network, Stats(**numbers, neutral=numbers["mean"], identity=unused))


def load_encoder(config: ModelConfig, device: torch.device) -> SpeechEncoder:
    """The speech encoder a model listens through."""
    return load_network(
        ENCODERS[config.audio],
        lambda **sizes: SpeechEncoder(SpeechEncoderConfig(**sizes)),
        speech_encoder_state,
        device,
    )


def load_extractors(device: torch.device, dtype: torch.dtype) -> Extractors:
    """LivePortrait's F and M."""
    return Extractors(
        _liveportrait("appearance_extractor", AppearanceExtractor, liveportrait.APPEARANCE, device),
        _liveportrait("motion_extractor", MotionExtractor, liveportrait.MOTION, device),
        dtype,
    )


def load_renderer(device: torch.device, dtype: torch.dtype, compiled: bool) -> Engine:
    """LivePortrait's S, W and G; compiled, what torch makes of them is kept with the weights."""
    networks = Networks(
        _liveportrait("stitching", Retargeting, liveportrait.RETARGETING, device),
        _liveportrait("warping", WarpingNetwork, liveportrait.WARPING, device),
        _liveportrait("spade", SpadeGenerator, liveportrait.GENERATOR, device),
        dtype,
    )
    return Engine(networks, "default" if compiled else None, store.cache_dir() / "inductor")


def _liveportrait(
    name: str, build: Callable[..., Network], table: liveportrait.Table, device: torch.device
) -> Network:
    return load_network(name, build, partial(liveportrait_state, table=table), device)


def load_detector() -> FaceDetector | None:
    """The face networks where they are downloaded."""
    detector, landmarks = map(store.installed, FACE)
    return FaceDetector(detector, landmarks) if detector and landmarks else None
