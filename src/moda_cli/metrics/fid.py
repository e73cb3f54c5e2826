"""FID (arXiv:1706.08500): how frames are prepared, and what Inception makes of them.

As pytorch-fid does: the 2048 features called pool3 of every frame, resized without antialiasing.
The distance is that of frechet.py.
"""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moda_cli.media.pictures import Picture
from moda_cli.metrics.networks.inception import SIDE, Inception

BATCH = 16  # frames at a time: 0.3 GB of activations


def prepare_frames(frames: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, 299, 299) from -1 to 1: bilinear, without antialiasing."""
    x = frames.permute(0, 3, 1, 2).float() / 255
    return 2 * F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1


@torch.inference_mode()
def fid_features(network: Inception, frames: Iterable[Picture], batch: int = BATCH) -> Tensor:
    """Features (N, 2048) float32, on the CPU, of N frames of one size, read once."""
    device = network.Conv2d_1a_3x3.conv.weight.device
    remaining = iter(frames)
    rows = [torch.empty(0, 2048)]
    while group := list(islice(remaining, batch)):
        rows.append(network(prepare_frames(torch.from_numpy(np.stack(group)).to(device))).cpu())
    return torch.cat(rows)
