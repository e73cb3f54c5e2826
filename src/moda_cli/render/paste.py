"""Generated crops back into the portrait they were cut from (LivePortrait, released code)."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.render.arrays import Picture, floats

_MASK = Path(__file__).parent.parent / "assets" / "mask_template.png"  # 512 x 512 grey


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
        self._inside = (slice(y0, y0 + height), slice(x0, x0 + width))
        self._matrix = matrix - np.array([[0, 0, x0], [0, 0, y0]])
        self._canvas = canvas
        self._share = floats(self.mask[self._inside])[..., None] / np.float32(255)
        self._rest = (1 - self._share) * canvas[self._inside]

    def __call__(self, crop: Picture) -> Picture:
        """The portrait (H, W, 3) uint8 with a crop (512, 512, 3) uint8 in its place."""
        out = self._canvas.copy()
        height, width = self._rest.shape[:2]
        if height and width:
            warped = cv2.warpAffine(crop, self._matrix, (width, height))
            # Truncated as released; a mean of bytes never leaves their range.
            out[self._inside] = (self._share * warped + self._rest).astype(np.uint8)
        return out
