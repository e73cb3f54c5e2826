"""Downloaded components as modules."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from moda_cli.errors import WeightsError
from moda_cli.weights import store
from moda_cli.weights.manifest import load_manifest
from moda_cli.weights.state import load_strict

Network = TypeVar("Network", bound=nn.Module)
State = Mapping[str, Tensor]


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
