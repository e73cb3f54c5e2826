"""Compiles the renderer's Triton kernels for an H100, on a machine without one; launches nothing.

Run as a script: a process in which Triton interprets cannot compile.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from liveportrait_by_rule import by_rule
from moda_cli.render.liveportrait import convolutions, fused, kernels
from moda_cli.render.liveportrait.engine import FastGenerator, FastWarping
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork


class Hopper:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def main() -> None:
    compiled = Counter[str]()

    def launch(kernel: JITFunction, grid: tuple[int, ...]) -> Callable[..., None]:
        def compile(*given: Any, **options: Any) -> None:
            made = kernel.warmup(*given, grid=grid, **options)
            assert made.asm["cubin"]
            compiled[kernel.__name__] += 1

        return compile

    driver.set_active(Hopper())
    JITFunction.__getitem__ = launch
    for module in (fused, convolutions):
        module.triton_kernels = lambda x: kernels
    warping = by_rule(WarpingNetwork(5, 8, 8, 16, 2, 8, 16, 3))
    generator = by_rule(SpadeGenerator(16, 32, 8, 2))
    kp = torch.zeros(1, 5, 3)
    with torch.inference_mode():
        source = warping.prepare(torch.zeros(1, 8, 8, 8, 8), kp)
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            features = FastWarping(warping, dtype)(source, kp)
            FastGenerator(generator, dtype)(features)
    print(*sorted(compiled))


if __name__ == "__main__":
    main()
