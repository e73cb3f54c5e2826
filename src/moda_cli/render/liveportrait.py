"""The renderer with LivePortrait's networks: motion to frames of one portrait."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.motion import Source
from moda_cli.render.keypoints import (
    Retargeting,
    drive_absolute,
    drive_relative,
    source_keypoints,
)
from moda_cli.render.spade import SpadeGenerator
from moda_cli.render.warp import WarpingNetwork, WarpSource

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True, slots=True)
class Networks:
    """S, W and G, loaded once for any number of portraits. W and G run in `dtype` by autocast."""

    retargeting: Retargeting
    warping: WarpingNetwork
    generator: SpadeGenerator
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.fc.weight.device

    def autocast(self) -> torch.autocast:
        """The context of `dtype`; none for float32."""
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=half)

    def picture(self, source: WarpSource, kp_driving: Tensor) -> Tensor:
        """Float32 images (B, 3, 512, 512) in [0, 1] for kp_driving (B, 21, 3)."""
        with self.autocast():
            image: Tensor = self.generator(self.warping(source, kp_driving))
        return image.float()


def to_pixels(image: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as uint8 (B, H, W, 3), truncated as the release does."""
    return (image.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class LivePortrait:
    """Animates one portrait; every frame depends on its motion row alone.

    source, feature_volume: what features.extractors says of its crop. paste: puts a 512 x 512 crop
    back where it belongs. neutral: (70) motion at which a frame equals the portrait; without it
    poses and faces are taken as they are, the release's absolute mode.
    """

    def __init__(
        self,
        networks: Networks,
        source: Source,
        feature_volume: Tensor,
        paste: Callable[[Picture], Picture],
        neutral: Tensor | None = None,
        batch_size: int = 8,
    ) -> None:
        self._networks, self._source, self._neutral = networks, source, neutral
        self._paste, self._batch_size = paste, batch_size
        self._kp_source = source_keypoints(source)[None].to(networks.device)
        with torch.inference_mode(), networks.autocast():
            volume = feature_volume.to(networks.device)
            self._warp_source = networks.warping.prepare(volume, self._kp_source)

    def render(self, motion: Tensor) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""
        for rows in motion.float().split(self._batch_size):
            for crop in self._crops(rows):
                yield self._paste(crop)

    @torch.inference_mode()
    def _crops(self, motion: Tensor) -> Picture:
        if self._neutral is None:
            kp_driving = drive_absolute(self._source, motion)
        else:
            kp_driving = drive_relative(self._source, motion, self._neutral)
        kp_driving = kp_driving.to(self._networks.device)
        kp_driving = self._networks.retargeting.stitch(self._kp_source, kp_driving)
        image = self._networks.picture(self._warp_source, kp_driving)
        return to_pixels(image).cpu().numpy()
