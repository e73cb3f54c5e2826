"""What the pipeline asks of a renderer."""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from moda_cli.media.pictures import Picture


class Renderer(Protocol):
    """Draws motion on one portrait."""

    def render(self, motion: Tensor) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order."""
