"""`python -m benchmarks.fp8`: what 8-bit floats would cost the picture, emulated on any machine.

G of LivePortrait, weights by rule, the golden frame; convolutions read float8_e4m3fn values and add
in float32. dB against the plain float32 path: it is asked for 45.
"""

import re
import sys
from collections.abc import Callable
from copy import deepcopy
from math import log10
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from by_rule import GOLDEN
from liveportrait_by_rule import by_rule
from moda_cli.face.extractors import AppearanceExtractor
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork

LARGEST = torch.finfo(torch.float8_e4m3fn).max
LAYERS = {
    "gamma, beta, shared": r"gamma|beta|shared",
    "gamma, beta": r"gamma|beta",
    "gamma, beta of the last block": r"up\.1.*(gamma|beta)",
    "its shortcut's gamma, beta alone": r"up\.1\.norm_s\.(gamma|beta)",
    "all 3 x 3": r"gamma|beta|shared|conv_[01]|fc|to_rgb",
}
TENSOR, CHANNEL = (0, 1, 2, 3), (0, 2, 3)  # axes of an activation that share a scale


def rounded(x: Tensor, shared: tuple[int, ...]) -> Tensor:
    """`x` through 8 bits, scaled by its largest value over the axes `shared`."""
    scale = x.abs().amax(dim=shared, keepdim=True).clamp(min=1e-12) / LARGEST
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def emulated(
    plain: nn.Module, layers: str, axes: tuple[int, ...] | None, half: bool = False
) -> nn.Module:
    """A copy of which the convolutions named by `layers` have 8-bit weights, a scale for each
    output channel, and 8-bit inputs, scaled over `axes`, unless that is None. half: what the others
    read and all convolutions write is float16.
    """
    network = deepcopy(plain)
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        if re.search(layers, name):
            module.weight.data = rounded(module.weight.data, (1, 2, 3))
            if axes:
                module.register_forward_pre_hook(lambda _m, given: rounded(given[0], axes))
        elif half:
            module.weight.data = module.weight.data.half().float()
            module.register_forward_pre_hook(lambda _m, given: given[0].half().float())
        if half:
            module.register_forward_hook(lambda _m, _i, out: out.half().float())
    return network


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    golden = load_file(GOLDEN / "lp_full_WG.safetensors")
    with torch.device("meta"):
        networks = AppearanceExtractor(), WarpingNetwork(), SpadeGenerator()
    appearance, warping, generator = (by_rule(network) for network in networks)
    volume = appearance(golden["image_uint8"].permute(2, 0, 1)[None] / 255)
    features = warping(warping.prepare(volume, golden["kp_source"]), golden["kp_driving"])
    reference = generator(features)

    def decibels(draw: Callable[[Tensor], Tensor], given: Tensor = features) -> float:
        return -10 * log10((draw(given) - reference).square().mean().item())

    for name, layers in LAYERS.items():
        for inputs, axes in (("-", None), ("per channel", CHANNEL), ("per tensor", TENSOR)):
            value = decibels(emulated(generator, layers, axes))
            print(f"| {name} | {inputs} | {value:.1f} |", flush=True)
    half = emulated(warping, "$^", None, half=True)
    features = half(half.prepare(volume, golden["kp_source"]), golden["kp_driving"])
    for name in list(LAYERS)[:2]:
        value = decibels(emulated(generator, LAYERS[name], TENSOR, half=True), features)
        print(f"| {name}; the rest of W and G float16 | per tensor | {value:.1f} |", flush=True)


if __name__ == "__main__":
    main()
