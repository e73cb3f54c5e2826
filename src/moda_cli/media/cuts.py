"""Where a video cuts from one shot to another."""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.media.pictures import Picture

# Mean change of a Lab value (0 to 255) between frames of 64 px. Filmed heads stay below 5, drawn
# ones below 7.1; unrelated pictures differ by 17 and more. The mean change of hue, saturation and
# value of whole frames, which SyncNet's released pipeline holds against 27, separates them less: up
# to 22 in a drawn head, 33 and more between unrelated pictures.
CUT_CHANGE = 10.0
SMALL_SIDE = 64


class CutDetector:
    """Says of each frame (H, W, 3) RGB whether it begins another shot."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None

    def __call__(self, frame: Picture) -> bool:
        scale = SMALL_SIDE / max(frame.shape[:2])
        size = [max(1, round(scale * side)) for side in frame.shape[1::-1]]
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
        last, self._last = self._last, lab
        return last is not None and float(np.abs(lab - last).mean()) >= CUT_CHANGE
