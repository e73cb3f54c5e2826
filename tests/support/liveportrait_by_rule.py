"""LivePortrait's networks with weights made from their released names, full-size and smaller."""

from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn

from by_rule import key_table, state_by_rule
from moda_cli.face.extractors import AppearanceExtractor, MotionExtractor
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork
from moda_cli.weights.renames.liveportrait import (
    APPEARANCE,
    GENERATOR,
    MOTION,
    WARPING,
    Table,
    liveportrait_state,
)
from moda_cli.weights.state import load_strict, rename

TABLES: dict[type[nn.Module], tuple[str, Table]] = {
    AppearanceExtractor: ("appearance_feature_extractor.json", APPEARANCE),
    MotionExtractor: ("motion_extractor.json", MOTION),
    WarpingNetwork: ("warping_module.json", WARPING),
    SpadeGenerator: ("spade_generator.json", GENERATOR),
}


Network = TypeVar("Network", bound=nn.Module)


def facing_state(network: nn.Module) -> dict[str, Tensor]:
    """Released weights by rule, of a motion extractor that sees a head turned little."""
    state = state_by_rule(released_shapes(network))
    for key in state:
        if key.startswith(("detector.fc_pitch", "detector.fc_yaw", "detector.fc_roll")):
            state[key] *= 0.1  # random logits are a head turned too far
    return state


def released_shapes(network: nn.Module) -> dict[str, list[int]]:
    """Released names that a network of any size needs, with its shapes.

    A folded norm has the shape of its convolution's bias, a spectral norm that of its weight.
    """
    name, table = TABLES[type(network)]
    full = key_table(name)
    wanted = {ours: list(tensor.shape) for ours, tensor in network.state_dict().items()}

    def shape_of(key: str) -> list[int] | None:
        (ours,) = rename({key: torch.empty(0)}, table)
        return wanted.get(ours)

    shapes: dict[str, list[int] | None] = {}
    for key in full:
        layer, _, leaf = key.rpartition(".")
        block, _, norm = layer.rpartition(".")
        if leaf.startswith("weight_"):
            if weight := shape_of(f"{layer}.weight"):
                parts = {"orig": weight, "u": weight[:1], "v": [prod(weight[1:])]}
                shapes[key] = parts[leaf.removeprefix("weight_")]
        elif f"{layer}.running_mean" in full and norm != "norm1":
            convs = {"norm": ("conv", "compress"), "norm2": ("conv1",)}[norm]
            (conv,) = (conv for conv in convs if f"{block}.{conv}.bias" in full)
            bias = shape_of(f"{block}.{conv}.bias")
            shapes[key] = [] if bias and leaf == "num_batches_tracked" else bias
        else:
            shapes[key] = shape_of(key)
    return {key: shape for key, shape in shapes.items() if shape is not None}


def by_rule(network: Network) -> Network:
    """The network with released weights made by rule; it may be on the meta device."""
    source, table = TABLES[type(network)]
    state = state_by_rule(released_shapes(network))
    load_strict(network, liveportrait_state(state, table), source)
    return network.eval()


def retargeting_file() -> dict[str, Tensor]:
    """The tensors of the three small networks as `<group>.<key>`."""
    tables = {"retarget_shoulder": "stitching", "retarget_mouth": "retarget_lip"}
    return {
        f"{group}.{name}": tensor
        for group in ("retarget_shoulder", "retarget_mouth", "retarget_eye")
        for name, tensor in state_by_rule(
            key_table(f"{tables.get(group, group)}.json"), f"{group}."
        ).items()
    }
