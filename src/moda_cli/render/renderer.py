"""What the pipeline asks of a renderer."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from moda_cli.media.pictures import Picture


class Renderer(Protocol):
    """Draws motion on one portrait."""

    def render(self, motion: Tensor, gaze: Tensor | None = None) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order.

        (H, W, 4) RGBA where the portrait is cut out. gaze: (T, 2) where the eyes look off the
        portrait's own gaze, as shares of what they can reach, to the picture's right and down,
        -1..1.
        """
