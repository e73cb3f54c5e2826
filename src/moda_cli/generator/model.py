"""A model directory: a trained MMDiT with the statistics of its motion; and the official model."""

import json
import math
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import AudioKind, ModelConfig, SourceKind, least
from moda_cli.device import tf32
from moda_cli.errors import WeightsError, did_you_mean
from moda_cli.files import atomic_write, parse_json
from moda_cli.generator.mmdit import MMDiT
from moda_cli.graphs import recorded
from moda_cli.motion import Source, Stats
from moda_cli.weights.load import load_network
from moda_cli.weights.manifest import load_manifest
from moda_cli.weights.renames.moda import motion_generator_state
from moda_cli.weights.state import halved, load_strict, unfilled

MODEL_FILES = ("config.json", "model.safetensors", "stats.json")
MODA = "motion_generator"  # the official model's component
RELEASED_STATS = Path(__file__).parents[1] / "assets" / "moda" / "stats.json"


@dataclass(frozen=True)
class MotionGenerator:
    """A network and the statistics of the motion it was trained on."""

    network: MMDiT
    stats: Stats

    @property
    def device(self) -> torch.device:
        """Where the network is; statistics stay on the CPU."""
        return self.network.null_audio.device

    @property
    def starts_from_portrait(self) -> bool:
        """Whether the model begins at the portrait's own motion, not at one of its own."""
        return self.network.config.source == "extracted"

    def neutral(self, source: Source | None) -> Tensor:
        """The motion (70) at which a frame is the portrait itself."""
        if not self.starts_from_portrait:
            return self.stats.neutral
        assert source is not None  # such models have their portraits looked at by the extractors
        return source.motion

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> "MotionGenerator":
        """Read model.safetensors, config.json and stats.json.

        Raises WeightsError where one is missing, corrupt or of another shape.
        """
        config = read_config(directory)
        try:
            stats = Stats.read(directory / "stats.json")
            state = load_file(directory / "model.safetensors")
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise _no_model(directory, error) from None
        with unfilled():
            network = MMDiT(config)
        load_strict(network, state, str(directory / "model.safetensors"))
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise _no_model(directory, ValueError("model.safetensors holds non-finite numbers"))
        return cls(network.to(device).eval(), stats)

    @cached_property
    def stream(self) -> torch.cuda.Stream | None:
        """Where all its sampling is launched on a GPU, beside what else is done there."""
        if self.device.type != "cuda":
            return None
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.default_stream(self.device))  # where the weights are loaded
        return stream

    @cached_property
    def forward(self) -> Callable[..., Tensor]:
        """The network's forward as sampling calls it.

        On a GPU recorded, on `stream`, with TF32 matrix products: 2e-4 of the motion away.
        """
        network = self.network

        def in_tf32(*given: Any) -> Tensor:
            with tf32(True):
                return network(*given)  # type: ignore[no-any-return]

        return recorded(in_tf32, self.device) if self.stream else network

    def save(self, directory: Path) -> None:
        """Write the model directory, the weights as float16 where that can hold them."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(asdict(self.network.config), indent=2))
        self.stats.write(directory / "stats.json")
        state = {name: halved(tensor) for name, tensor in self.network.state_dict().items()}
        with atomic_write(directory / "model.safetensors") as path:
            save_file(state, path)


def read_config(directory: Path) -> ModelConfig:
    """The shape of a model directory's network. Raises WeightsError where it is no such thing."""
    try:
        config = ModelConfig(**parse_json((directory / "config.json").read_text()))
        if config.audio not in get_args(AudioKind) or config.source not in get_args(SourceKind):
            raise ValueError(f"unknown audio {config.audio!r} or source {config.source!r}")
        for field in fields(config):
            if not _is_usable(field, value := getattr(config, field.name)):
                raise ValueError(f"{field.name} is {value!r}")
        if max(config.overlap, config.known) >= config.window:
            raise ValueError(
                f"windows of {config.window} frames share {config.overlap}, know {config.known}"
            )
        return config
    except (OSError, ValueError, TypeError) as error:
        raise _no_model(directory, error) from None


def _is_usable(field: Field[Any], value: Any) -> bool:
    """Whether a number of a config.json is one that its field can have."""
    if isinstance(field.default, bool):
        return isinstance(value, bool)
    if isinstance(field.default, int):
        return type(value) is int and value >= least(field.name)
    if isinstance(field.default, str):
        return isinstance(value, str)
    return value is None or math.isfinite(value)


def _no_model(directory: Path, error: Exception) -> WeightsError:
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
    anyway = "give mini, moda, or a training run's folder: " + ", ".join(MODEL_FILES)
    hint = did_you_mean(str(directory), ("mini", "moda", "auto"), anyway)
    return WeightsError(f"{directory} is not a model directory: {reason}", hint=hint)


def moda_config() -> ModelConfig:
    """Shape of the official motion generator."""
    return ModelConfig(**load_manifest().component(MODA).config)


def load_moda(device: torch.device) -> MotionGenerator:
    """The official motion generator, with the statistics of its release.

    Raises WeightsError where it is not installed, damaged or of another shape.
    """
    shape = moda_config()
    network = load_network(
        MODA,
        lambda **_: MMDiT(shape),
        partial(motion_generator_state, audio_dim=shape.audio_dim),
        device,
        half=device.type == "cuda",  # where its steps multiply in TF32, with as many bits
    )
    numbers = {
        key: torch.tensor(row) for key, row in json.loads(RELEASED_STATS.read_text()).items()
    }
    unused = torch.zeros(shape.identity_dim)  # the portrait's own are taken
    return MotionGenerator(network, Stats(**numbers, neutral=numbers["mean"], identity=unused))
