"""What a portrait with parted lips shows of its own mouth: kept, carried on beyond its edges, and
moved with the skull, with the jaw or between them."""

import numpy as np

from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample, smoothstep
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.lip_line import LipLine
from moda_cli.render.rig.palette import Palette

_INSET = 0.03  # IOD within the lips' edges from where on a pixel shows the inside alone
_CARRIED = 0.12  # IOD that it goes on beyond the lips' edges
_LEAST_DIP = 0.07  # of the brightest by which the dark line between two rows of teeth shows
_FADE = 0.02  # IOD of change in the gap over which the portrait's own pixels give way


class OwnMouth:
    """The inside of a mouth open in the portrait, as textures over `rect` of its picture."""

    def __init__(
        self, picture: Picture, rect: Rect, frame: FaceFrame, lips: LipLine, palette: Palette
    ) -> None:
        self._gap, self._shadow = lips.gap, palette.shadow(0.42)
        self._line = np.float32(max(0.010, 0.9 / frame.iod))
        x0, y0, x1, y1 = rect
        pixels = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        at = frame.plane(pixels)
        edges = frame.plane(lips.edges)
        self._x, self._gaps = edges[0, :, 0], edges[1, :, 1] - edges[0, :, 1]
        upper, lower = (np.interp(at[..., 0], edge[:, 0], edge[:, 1]) for edge in edges)
        y, height = at[..., 1], lower - upper
        inset = np.minimum(max(_INSET, 2.5 / frame.iod), 0.3 * height)
        held = np.clip(y, upper + inset, lower - inset)  # beyond the edges, the edge's own colour
        colour = sample(picture, floats(frame.pixels(np.dstack([at[..., 0], held]))))
        outside = np.maximum(upper - y, y - lower)
        colour = colour * (1 - 0.5 * smoothstep(floats(outside / _CARRIED)))[..., None]
        near = (height > 0.004) * (1 - smoothstep(floats(outside / _CARRIED)))
        split = self._split(picture, lips)
        self._stretched = lips.closes < 1
        if self._stretched:
            self._skull, self._jaw = np.dstack([floats(colour), floats(near)]), None
            return
        soft = np.float32(max(0.02, 1.5 / frame.iod))
        end = upper + height * (split or 1.0)
        above = 1 - smoothstep(floats((y - end) / soft + 0.5))
        self._skull = np.dstack([floats(colour), floats(near * above)])
        self._jaw = np.dstack([floats(colour), floats(near * (1 - above))]) if split else None

    def moved(self, x: Floats, gap: Floats) -> Floats:
        """0..1 how far lips at x (h, w) have left their gap at rest: at 0 the portrait shows."""
        rest = floats(np.interp(x, self._x, self._gaps))
        return floats(np.clip(np.abs(gap - rest) / np.float32(_FADE), 0, 1))

    def meet(self, frame: Picture, x: Floats, away: Floats, closed: float) -> None:
        """Darken the line where lips meet that are `closed` (0..1) as far as they can.

        away: (h, w) of each pixel from the line, IOD.
        """
        rest = floats(np.interp(x, self._x, self._gaps))
        near = np.float32(0.75 * closed**2) * smoothstep(rest / np.float32(0.05))
        line = near * np.exp(-((away / self._line) ** 2))
        mixed = frame + (self._shadow - frame) * line[..., None]
        frame[:] = np.rint(mixed).astype(np.uint8)

    def over(
        self, colour: Floats, at: Floats, drop: Floats, share: Floats, widest: float
    ) -> Floats:
        """`colour` (h, w, 3) with the own mouth over it.

        at: (h, w, 2) place in the textures of what is fixed to the skull. drop: (2,) pixels the jaw
        has moved. share: (h, w) of the opening's height. widest: how far it is open, IOD.
        """
        dimmed = np.float32(0.5 + 0.5 * min(max(widest, 0) / self._gap, 1))
        layers = [(self._jaw, at - drop), (self._skull, at)]
        if self._stretched:
            layers = [(self._skull, at - drop * smoothstep((share - 0.2) / 0.8)[..., None])]
        for texture, place in layers:
            if texture is not None:
                laid = sample(texture, floats(place))
                colour = colour + (laid[..., :3] * dimmed - colour) * laid[..., 3:]
        return colour

    @staticmethod
    def _split(picture: Picture, lips: LipLine) -> float | None:
        """The share of the opening's height where a dark line parts two rows of teeth, if any."""
        rows, count = np.linspace(0.06, 0.94, 45), lips.edges.shape[1]
        middle = slice(int(0.36 * count), int(0.64 * count))
        upper, lower = lips.edges[:, middle]
        at = floats(upper + (lower - upper) * rows[:, None, None])
        light = (sample(picture, at) @ LUMA).mean(axis=1)
        inner = np.flatnonzero((rows > 0.3) & (rows < 0.85))
        dark = inner[light[inner].argmin()]
        dip = min(light[:dark].max(initial=0), light[dark:].max()) - light[dark]
        return float(rows[dark]) if dip > _LEAST_DIP * light.max() else None
