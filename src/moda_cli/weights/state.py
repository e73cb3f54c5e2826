"""Checkpoint tensors to module tensors: explicit renames, then a strict load."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from moda_cli.errors import WeightsError


def rename(state: Mapping[str, Tensor], table: Mapping[str, str | None]) -> dict[str, Tensor]:
    """`state` under our names: the longest prefix wins, {} is a block's index, None drops a tensor.

    Raises WeightsError for a name the table does not know.
    """
    rules = sorted(table.items(), key=lambda rule: -len(rule[0]))
    patterns = [(re.compile(re.escape(old).replace(r"\{\}", r"(\d+)")), new) for old, new in rules]
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, new in patterns:
            if match := pattern.match(name):
                if new is not None:
                    renamed[new.format(*match.groups()) + name[match.end() :]] = tensor
                break
        else:
            raise WeightsError(f"unexpected tensor {name} in the checkpoint")
    return renamed


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return function(*args, **given)


@contextmanager
def unfilled() -> Iterator[None]:
    """Networks made here are on the meta device: `load_strict` brings their first weights.

    Nobody draws random ones, which on the meta device too takes longer than all the rest.
    """
    with torch.device("meta"), _Undrawn():
        yield


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Assign float32 `state` to `module` (its modules may be on the meta device).

    Raises WeightsError naming `source` and every missing, extra or misshapen tensor.
    """
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    faults = [f"missing {name}" for name in wanted.keys() - state.keys()]
    faults += [f"unexpected {name}" for name in state.keys() - wanted.keys()]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    if faults:
        shown = "; ".join(sorted(faults)[:5])
        raise WeightsError(
            f"{source} does not fit the network: {shown} ({len(faults)} faults)",
            hint="the file is damaged or belongs to another model",
        )
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def halved(tensor: Tensor) -> Tensor:
    """`tensor` in float16 if it is a matrix or a kernel whose numbers that can hold, up to 65504.

    Vectors, such as biases, gains and statistics, stay as they are: they are no load to read.
    """
    half = tensor.half() if tensor.ndim > 1 else tensor
    return half if half.isfinite().all() else tensor
