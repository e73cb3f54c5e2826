"""Smoothness: how well every second frame follows from its neighbours (VBench, arXiv:2311.17982).

The raw score, as in the MoDA paper's tables, not the leaderboard's rescaled one.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from moda_cli.errors import InputError
from moda_cli.media.pictures import Picture
from moda_cli.metrics.networks.amt import DIVISOR, AmtS

MIN_SIDE = 128  # pixels; below, the coarsest correlation level is one cell and the result NaN


@torch.inference_mode()
def midpoints(network: AmtS, first: Tensor, second: Tensor) -> Tensor:
    """Pictures halfway between two, uint8 (B, 3, H, W) each, truncated like the reference's."""
    height, width = first.shape[-2:]
    over_y, over_x = -height % DIVISOR, -width % DIVISOR
    left, top = over_x // 2, over_y // 2
    edges = (left, over_x - left, top, over_y - top)
    padded = [F.pad(x.float() / 255, edges, mode="replicate") for x in (first, second)]
    middle: Tensor = network(*padded)[..., top : top + height, left : left + width]
    return (255 * middle).clamp(0, 255).to(torch.uint8)


def interpolation_errors(
    network: AmtS, frames: Iterable[Picture], batch: int = 1
) -> NDArray[np.float64]:
    """Mean absolute difference (P,), 0 to 255, of every odd frame from AMT-S's of its neighbours.

    frames: a clip, read once, at least three frames; the last of an even number is not used.
    `batch` pairs are interpolated at once, on the network's device.
    Raises InputError for a clip too short or too small.
    """
    device = next(network.parameters()).device
    errors: list[Tensor] = []
    for before, dropped, after in _triples(frames, batch):
        made = midpoints(network, before.to(device), after.to(device)).cpu()
        apart = (made.float() - dropped.float()).abs()
        errors.append(apart.flatten(1).mean(dim=1, dtype=torch.float64))
    if not errors:
        raise InputError("fewer than 3 frames: no smoothness", hint="use a longer clip")
    return torch.cat(errors).numpy()


def smoothness(errors: NDArray[np.float64]) -> float:
    """Score of a clip, 1 at best, from its interpolation errors (P,)."""
    return float((255 - errors.mean()) / 255)


def _triples(frames: Iterable[Picture], batch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of even frame, odd frame, next even frame, uint8 (B, 3, H, W) each."""
    window: list[Tensor] = []
    for frame in frames:
        if min(frame.shape[:2]) < MIN_SIDE:
            height, width = frame.shape[:2]
            raise InputError(
                f"frames of {width}x{height} are too small for the smoothness score",
                hint=f"both sides need {MIN_SIDE} pixels or more",
            )
        window.append(torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1))
        if len(window) == 2 * batch + 1:
            yield _split(window)
            window = window[-1:]
    if len(window) >= 3:
        yield _split(window[: len(window) - 1 + len(window) % 2])


def _split(window: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    even, odd = torch.stack(window[::2]), torch.stack(window[1::2])
    return even[:-1], odd, even[1:]
