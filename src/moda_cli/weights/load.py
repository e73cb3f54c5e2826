"""Downloaded components as modules."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moda_cli.errors import UsageError, WeightsError
from moda_cli.files import atomic_write
from moda_cli.weights import store
from moda_cli.weights.manifest import load_manifest
from moda_cli.weights.state import halved, load_strict, unfilled

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
State = Mapping[str, Tensor]


def load_network(
    name: str,
    build: Callable[..., Network],
    state_of: Callable[[State], State],
    device: torch.device,
    *,
    half: bool = False,
) -> Network:
    """A downloaded component as a module on `device`, float32, of the sizes weights.toml gives it.

    half: its weights need no more than float16's 10 bits of mantissa, so half the bytes are read:
    from a copy that the first run keeps. Raises WeightsError where it is missing, damaged or of
    another shape.
    """
    path = store.require(name)[name]
    with unfilled():
        module = build(**load_manifest().component(name).config)
    there = "cpu" if device.type == "mps" else str(device)
    kept = _half_copy(name) if half else None
    state = _kept(kept, there) if kept else None
    if state is None:
        try:
            state = state_of(load_file(path, device=there))
        except (OSError, SafetensorError) as error:
            hint = f"run `moda download --verify`, then `{store.command_for([name])}`"
            raise WeightsError(f"cannot read {path}: {error}", hint=hint) from None
        if kept:
            state = {key: halved(tensor) for key, tensor in state.items()}
            _keep(kept, state)
    load_strict(module, state, str(path))
    return module.to(device).eval()


def _half_copy(name: str) -> Path:
    """Where a component's weights, under our names, lie in float16.

    Named after the file they come from and the code that gives them their names.
    """
    here = Path(__file__).parent
    code = [here / "state.py", *sorted((here / "renames").glob("*.py"))]
    digest = hashlib.sha256(store.read_lock()[name].path_sha256.encode())
    for file in code:
        digest.update(file.read_bytes())
    return store.cache_dir() / "half" / f"{name}-{digest.hexdigest()[:32]}.safetensors"


def _kept(path: Path, device: str) -> State | None:
    try:
        return load_file(path, device=device)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        log.debug("%s is not used: %s", path, error)
        return None


def _keep(path: Path, state: State) -> None:
    """Write the copy, where that can be done, in place of older ones of the component."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file(dict(state), temporary)
        for old in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.safetensors"):
            if old != path:
                old.unlink(missing_ok=True)
    except (OSError, SafetensorError, UsageError) as error:
        log.debug("%s is not kept: %s", path, error)
