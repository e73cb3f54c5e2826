"""Pickled checkpoints to safetensors, once, without running anything a pickle asks for."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moda_cli.errors import WeightsError
from moda_cli.files import atomic_write
from moda_cli.weights.manifest import Component
from moda_cli.weights.transfer import disk_error

NESTED = ("state_dict", "model_state_dict", "model", "net")  # beside optimizers, counters, ...


def convert(source: Path, target: Path, component: Component) -> None:
    """Write the tensors of `source`, a torch pickle, to `target` as safetensors, whole or not.

    Raises WeightsError for a pickle that holds anything but plain data and tensors, or for a full
    disk.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        loaded = torch.load(
            source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source)
        )
    except Exception as error:  # bytes of no format raise whatever torch stumbles over
        raise WeightsError(
            f"{source.name} is refused: it is not a plain file of tensors",
            hint="nothing in it was run; report it to the repository it came from",
        ) from error
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in state_of(loaded, component, source.name).items()
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:  # the latter is also how it reports a full disk
            raise disk_error(error, target.parent) from error


def state_of(loaded: Any, component: Component, source: str) -> dict[str, Any]:
    """The network's tensors by name, `module.` prefixes removed."""
    if component.groups:
        return {
            f"{group}.{name}": tensor
            for group in component.groups
            for name, tensor in _tensors(_entry(loaded, group, source), source).items()
        }
    return _tensors(loaded, source)


def _entry(loaded: Any, name: str, source: str) -> Any:
    if not isinstance(loaded, Mapping) or name not in loaded:
        raise WeightsError(f"{source} has no entry {name}")
    return loaded[name]


def _tensors(loaded: Any, source: str) -> dict[str, Any]:
    import torch

    if isinstance(loaded, Mapping):
        for name in NESTED:
            if isinstance(loaded.get(name), Mapping):
                return _tensors(loaded[name], source)
        tensors = {name: x for name, x in loaded.items() if isinstance(x, torch.Tensor)}
        state = {str(name).removeprefix("module."): x for name, x in tensors.items()}
        if state and len(state) == len(tensors):
            return state
    raise WeightsError(f"{source} holds no network: no tensors under any name we know")
