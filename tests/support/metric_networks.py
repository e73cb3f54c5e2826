"""The metrics' networks with weights by rule, and as the ONNX files the product reads."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from by_rule import key_table, state_by_rule
from moda_cli.weights.state import load_strict

GAINS = {"": 1.0, "_g": 2**0.5}  # suffix of a golden's names: gain of the weights (its README)
TOLERANCE = 1e-4  # of the largest magnitude, as the goldens' README says

Network = TypeVar("Network", bound=nn.Module)


def by_rule(kind: type[Network], table: str, gain: float) -> Network:
    """A network whose names are the released ones."""
    with torch.device("meta"):
        network = kind()
    load_strict(network, state_by_rule(key_table(table), gain=gain), table)
    return network.eval()


def shapes_on_meta(kind: type[nn.Module]) -> dict[str, list[int]]:
    with torch.device("meta"):
        return {name: list(tensor.shape) for name, tensor in kind().state_dict().items()}


def to_onnx(
    network: nn.Module, example: Tensor, path: Path, dynamic: dict[int, str] | None = None
) -> Path:
    """The network as ONNX, with a free batch unless other axes of the input are to be free."""
    axes = {"input": dynamic or {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that writes plain graphs is deprecated
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=12,
            input_names=["input"],
            dynamic_axes=axes,
        )
    return path


def apart(value: Any, golden: Any) -> float:
    """Largest difference over largest magnitude, the measure of the goldens' tolerances."""
    value, golden = (np.asarray(x, np.float64) for x in (value, golden))
    assert value.shape == golden.shape
    return float(np.abs(value - golden).max() / np.abs(golden).max())


def red_detector() -> dict[str, Tensor]:
    """S3FD weights that see one face, 0.6 of a 64 px image, in the middle of any with red in it."""
    state = {name: torch.zeros(shape) for name, shape in key_table("s3fd.json").items()}
    for name, tensor in state.items():
        if name.startswith(("vgg", "extras")) and tensor.ndim == 4:  # hand the red channel on
            tensor[0, 0, tensor.shape[2] // 2, tensor.shape[3] // 2] = 1
        if name.startswith("conf") and tensor.ndim == 1:
            tensor[:-1] = 10  # background
    state["conf.5.weight"][1, 0, 1, 1] = 0.3
    smaller = math.log(0.6 * 64 / 512) / 0.2
    state["loc.5.bias"][:] = torch.tensor([-0.625, -0.625, smaller, smaller])  # from the corner
    return state


def assert_close(value: Tensor, golden: Tensor, tolerance: float = TOLERANCE) -> None:
    assert value.shape == golden.shape
    assert (value - golden).abs().max() <= tolerance * golden.abs().max()


def outputs_of(module: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, out: seen.append(out))
    run()
    hook.remove()
    return torch.cat(seen)
