"""Checkpoint tensors to module tensors: explicit renames, then a strict load."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

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
