"""Generated crops back into the portrait they were cut from (LivePortrait, released code)."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import floats

_MASK = Path(__file__).parents[2] / "assets" / "mask_template.png"  # 512 x 512 grey


class PasteBack:
    """Blends crops of one portrait into it through LivePortrait's soft-edged mask.

    canvas: (H, W, 3) uint8. from_crop: (3, 3) matrix taking 512 px crops to it (`portrait_crop`).
    mask: (H, W) uint8, 255 where a frame shows the crop alone.
    """

    def __init__(self, canvas: Picture, from_crop: NDArray[np.floating]) -> None:
        height, width = canvas.shape[:2]
        template = cv2.imread(str(_MASK), cv2.IMREAD_GRAYSCALE)
        assert template is not None  # it ships with the package
        matrix = from_crop[:2].astype(np.float64)
        self.mask = np.asarray(cv2.warpAffine(template, matrix, (width, height)), np.uint8)
        x0, y0, width, height = cv2.boundingRect(self.mask)  # nothing changes beyond
        self.inside = (slice(y0, y0 + height), slice(x0, x0 + width))
        self.matrix = matrix - np.array([[0, 0, x0], [0, 0, y0]])
        self.canvas = canvas
        self.share = floats(self.mask[self.inside])[..., None] / np.float32(255)
        self.rest = (1 - self.share) * canvas[self.inside]

    def __call__(self, crop: Picture) -> Picture:
        """The portrait (H, W, 3) uint8 with a crop (512, 512, 3) uint8 in its place."""
        out = self.canvas.copy()
        height, width = self.rest.shape[:2]
        if height and width:
            warped = cv2.warpAffine(crop, self.matrix, (width, height))
            # Truncated as released; a mean of bytes never leaves their range.
            out[self.inside] = (self.share * warped + self.rest).astype(np.uint8)
        return out


class TensorPaste:
    """`PasteBack` for batches of crops where they are drawn; at most one level from it."""

    def __init__(self, paste: PasteBack, device: torch.device) -> None:
        self._inside = paste.inside
        self._canvas, self._share, self._rest = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device)
            for array in (paste.canvas, paste.share, paste.rest)
        )
        height, width = self._rest.shape[:2]
        back = cv2.invertAffineTransform(paste.matrix)
        y, x = np.mgrid[:height, :width]
        at = np.stack((x, y, np.ones_like(x)), axis=-1) @ back.T
        self._at = torch.from_numpy(at.astype(np.float32)).to(device)  # (h, w, 2), pixels of a crop

    def __call__(self, crops: Tensor) -> Tensor:
        """Portraits (B, H, W, 3) uint8 with crops (B, side, side, 3) uint8 in their place."""
        batch = len(crops)
        out = self._canvas.repeat(batch, 1, 1, 1)
        if self._rest.numel():
            grid = ((2 * self._at + 1) / crops.shape[1] - 1).expand(batch, -1, -1, -1)
            image = crops.permute(0, 3, 1, 2).float()
            warped = F.grid_sample(image, grid, align_corners=False).permute(0, 2, 3, 1).round()
            out[:, *self._inside] = (self._share * warped + self._rest).to(torch.uint8)
        return out
