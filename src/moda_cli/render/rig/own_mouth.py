"""What a portrait with parted lips shows of its own mouth: kept where it is, carried on beyond its
edges, and split between the skull and the jaw."""

import numpy as np

from moda_cli.render.rig.arrays import LUMA, Floats, Picture, floats, sample, smoothstep
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.lip_line import CLOSABLE, LipLine

_INSET = 0.012  # IOD from a lip's edge where the inside is taken to begin
_CARRIED = 0.12  # IOD that it goes on beyond the lip's edge
_WIDE_SPLIT = 0.55  # share of a wide opening's height above which all belongs to the skull
_LEAST_DIP = 0.12  # of the white by which the dark line between two rows of teeth shows


class OwnMouth:
    """Two textures (h, w, 4) over `rect` of the picture: what moves with the skull, with the jaw."""

    def __init__(self, picture: Picture, rect: Rect, frame: FaceFrame, lips: LipLine) -> None:
        self._gap = lips.gap
        x0, y0, x1, y1 = rect
        pixels = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        at = frame.plane(pixels)
        upper, lower = (
            floats(np.interp(at[..., 0], edge[:, 0], edge[:, 1]))
            for edge in frame.plane(lips.edges)
        )
        y, height = floats(at[..., 1]), lower - upper
        inset = np.minimum(max(_INSET, 1.2 / frame.iod), 0.3 * height)
        held = np.clip(y, upper + inset, lower - inset)  # beyond the edges, the edge's own colour
        source = frame.pixels(np.dstack([at[..., 0], held]))
        colour = floats(sample(picture, floats(source)))
        share = (y - upper) / np.maximum(height, 1e-3)
        split = self._split(picture, frame, lips)
        soft = np.float32(max(0.02, 1.5 / frame.iod) / lips.gap)
        from_skull = 1 - smoothstep((share - split) / soft + 0.5)
        near = (height > 0.004) * (1 - smoothstep((upper - y) / np.float32(_CARRIED)))
        near = near * (1 - smoothstep((y - lower) / np.float32(_CARRIED)))
        end = 1 - smoothstep((y - lower) / np.float32(1.5 / frame.iod) + 0.5)
        if split >= 1:
            self._skull = np.dstack([colour, near * end]).astype(np.float32)
            self._jaw = None
        else:
            self._skull = np.dstack([colour, near * from_skull]).astype(np.float32)
            self._jaw = np.dstack([colour, near * (1 - from_skull)]).astype(np.float32)

    def over(self, colour: Floats, in_skull: Floats, in_jaw: Floats, widest: float) -> Floats:
        """`colour` (h, w, 3) with the own mouth over it; widest: how far the lips are open, IOD."""
        dimmed = np.float32(0.5 + 0.5 * min(max(widest, 0) / self._gap, 1))
        for texture, at in ((self._jaw, in_jaw), (self._skull, in_skull)):
            if texture is not None:
                laid = sample(texture, at)
                colour = colour + (laid[..., :3] * dimmed - colour) * laid[..., 3:]
        return colour

    @staticmethod
    def _split(picture: Picture, frame: FaceFrame, lips: LipLine) -> float:
        """The share of the opening's height above which all belongs to the skull, 1 for all of it.

        Between two rows of teeth runs a dark line; a wide open mouth shows its floor below.
        """
        rows, middle = np.linspace(0.06, 0.94, 45), slice(24, 57)
        upper, lower = lips.edges[0, middle], lips.edges[1, middle]
        at = upper + (lower - upper) * rows[:, None, None]
        light = (sample(picture, floats(at)) @ LUMA).mean(axis=1)
        light = np.convolve(np.pad(light, 2, mode="edge"), np.ones(5) / 5, mode="valid")
        inner = np.flatnonzero((rows > 0.3) & (rows < 0.9))
        dark = inner[light[inner].argmin()]
        dip = min(light[:dark].max(initial=0), light[dark:].max()) - light[dark]
        if dip > _LEAST_DIP * light.max():
            return float(rows[dark])
        return _WIDE_SPLIT if lips.gap > CLOSABLE else 1.0
