"""LivePortrait's networks that draw, as published: the reference of engine.py."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moda_cli.device import tf32
from moda_cli.render.liveportrait.keypoints import Retargeting
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork, WarpSource


@dataclass(frozen=True, slots=True)
class Networks:
    """S, W and G as published, the reference of `Engine`. W and G run in `dtype` by autocast."""

    retargeting: Retargeting
    warping: WarpingNetwork
    generator: SpadeGenerator
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.fc.weight.device

    @property
    def fixed_batch(self) -> bool:
        """Whether every batch should have the same size."""
        return False

    def autocast(self) -> torch.autocast:
        """The context of `dtype`; none for float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=half)

    def prepare(self, feature_volume: Tensor, kp_source: Tensor) -> WarpSource:
        """What W needs of a portrait: feature_volume (1, 32, 16, 64, 64), kp_source (1, 21, 3)."""
        with tf32(False), self.autocast():
            return self.warping.prepare(feature_volume.to(self.device), kp_source)

    def picture(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Float32 images (B, 3, 512, 512) in [0, 1] for kp_driving (B, 21, 3)."""
        with tf32(False), self.autocast():
            image: Tensor = self.generator(self.warping(source, kp_driving))
        return image.float()

    def pixels(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Images (B, 512, 512, 3) uint8 for kp_driving (B, 21, 3)."""
        return to_pixels(self.picture(source, kp_driving))


def to_pixels(image: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as uint8 (B, H, W, 3), truncated as the release does."""
    return (image.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
