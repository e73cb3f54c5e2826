"""A model directory: a trained MMDiT with the statistics of its motion; and the official model."""

import json
import math
from dataclasses import Field, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import AudioKind, ModelConfig, SourceKind
from moda_cli.device import keep_compiled
from moda_cli.errors import WeightsError
from moda_cli.files import atomic_write
from moda_cli.generator.mmdit import MMDiT
from moda_cli.motion import Source, Stats
from moda_cli.weights.load import load_network
from moda_cli.weights.manifest import load_manifest
from moda_cli.weights.renames.moda import motion_generator_state
from moda_cli.weights.state import load_strict

MODEL_FILES = ("config.json", "model.safetensors", "stats.json")
MODA = "motion_generator"  # the official model's component
RELEASED_STATS = Path(__file__).parents[1] / "assets" / "moda" / "stats.json"


@dataclass(frozen=True, slots=True)
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
        with torch.device("meta"):
            network = MMDiT(config)
        load_strict(network, state, str(directory / "model.safetensors"))
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise _no_model(directory, ValueError("model.safetensors holds non-finite numbers"))
        return cls(network.to(device).eval(), stats)

    def compile(self, cache: Path, *, graphs: bool) -> None:
        """Send the network's steps through torch.compile.

        graphs: each step becomes one CUDA graph, which belongs to the thread that samples. What is
        made is kept in `cache`, so that only the first run waits for it.
        """
        keep_compiled(cache)
        self.network.compile(mode="reduce-overhead" if graphs else "default")

    def save(self, directory: Path) -> None:
        """Write the model directory, the weights as float16."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(asdict(self.network.config), indent=2))
        self.stats.write(directory / "stats.json")
        state = {
            name: tensor.half() if tensor.half().isfinite().all() else tensor  # beyond 65504
            for name, tensor in self.network.state_dict().items()
        }
        with atomic_write(directory / "model.safetensors") as path:
            save_file(state, path)


def read_config(directory: Path) -> ModelConfig:
    """The shape of a model directory's network. Raises WeightsError where it is no such thing."""
    try:
        config = ModelConfig(**json.loads((directory / "config.json").read_text()))
        if config.audio not in get_args(AudioKind) or config.source not in get_args(SourceKind):
            raise ValueError(f"unknown audio {config.audio!r} or source {config.source!r}")
        for field in fields(config):
            if not _is_usable(field, value := getattr(config, field.name)):
                raise ValueError(f"{field.name} is {value!r}")
        if config.overlap >= config.window:
            raise ValueError(f"windows of {config.window} frames share {config.overlap}")
        return config
    except (OSError, ValueError, TypeError) as error:
        raise _no_model(directory, error) from None


def _is_usable(field: Field[Any], value: Any) -> bool:
    """Whether a number of a config.json is one that its field can have."""
    if isinstance(field.default, int):
        least = 0 if field.name.endswith("_depth") or field.name == "overlap" else 1
        return type(value) is int and value >= least
    if isinstance(field.default, str):
        return isinstance(value, str)
    return value is None or math.isfinite(value)


def _no_model(directory: Path, error: Exception) -> WeightsError:
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
    return WeightsError(
        f"{directory} is not a model directory: {reason}",
        hint="give mini, moda, or a training run's folder: model.safetensors, config.json and"
        " stats.json",
    )


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
    )
    numbers = {
        key: torch.tensor(row) for key, row in json.loads(RELEASED_STATS.read_text()).items()
    }
    unused = torch.zeros(shape.identity_dim)  # the portrait's own are taken
    return MotionGenerator(network, Stats(**numbers, neutral=numbers["mean"], identity=unused))
