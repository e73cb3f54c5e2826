"""What a portrait with parted lips shows of its own mouth: kept, carried on beyond its edges, and
moved with the skull, with the jaw or between them."""

import cv2
import numpy as np

from moda_cli.face.landmarks import Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, carried_on, floats, sample, smoothstep
from moda_cli.render.rig.expression import Aperture
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.lip_line import BEYOND, LipLine
from moda_cli.render.rig.palette import Palette

_INSET = 0.06  # IOD within the lips' edges in which a pixel may be of the lips
_LIP_LIKE = 0.18  # of the lips' light: what differs less from them there is theirs
_CARRIED = 0.12  # IOD that it goes on beyond the lips' edges
_TOOTH = 0.15  # IOD that upper teeth are high
_LEAST_DIP = 0.07  # of the brightest by which the dark line between two rows of teeth shows
_BESIDE = 0.025  # IOD from the line of lips brought together where teeth may be left
_FADE = 0.02  # IOD of change in the gap over which the portrait's own pixels give way
_TEXELS = 100  # per IOD where what is hidden is guessed
_SCALES = ((0.10, 0.10, 1e-4), (0.04, 0.05, 0.01), (0.012, 0.03, 1.0))  # IOD across and down


class Seam:
    """Where lips parted in the portrait meet when they close; of what is between them it shows
    nothing."""

    def __init__(self, frame: FaceFrame, lips: LipLine, palette: Palette) -> None:
        self._shadow = palette.shadow(0.42)
        self._line = np.float32(max(0.010, 0.9 / frame.iod))
        edges = frame.plane(lips.edges)
        self._x, self._gaps = edges[0, :, 0], edges[1, :, 1] - edges[0, :, 1]

    def moved(self, aperture: Aperture) -> np.float32:
        """0..1 how far the portrait gives way to the inside."""
        return np.float32(1)

    def meet(self, frame: Picture, x: Floats, away: Floats, aperture: Aperture) -> None:
        """Darken the line where lips meet, as far as they are closed.

        x, away: (h, w) of each pixel along the mouth and from the line, IOD.
        """
        near = np.float32(0.75 * aperture.closed) * self._closing(x, aperture)
        line = near * np.exp(-((away / self._line) ** 2))
        mixed = frame + (self._shadow - frame) * line[..., None]
        frame[:] = np.rint(mixed).astype(np.uint8)

    def _closing(self, x: Floats, aperture: Aperture) -> Floats:
        """0..1 how far lips have come together at x (h, w): not where they always were."""
        ends = self._x[[BEYOND, -BEYOND - 1]]
        own = np.interp(x, aperture.corners, ends, *self._x[[0, -1]])  # where it was at rest
        rest = floats(np.interp(own, self._x, self._gaps))
        return np.float32(aperture.closed) * smoothstep(rest / np.float32(0.05))

    def over(
        self, colour: Floats, at: Floats, drop: Floats, share: Floats, widest: float
    ) -> Floats:
        """`colour` (h, w, 3) with the own mouth over it; see `OwnMouth`."""
        return colour


class OwnMouth(Seam):
    """The inside of a mouth open in the portrait, as textures over `rect` of its picture."""

    def __init__(
        self, picture: Picture, rect: Rect, frame: FaceFrame, lips: LipLine, palette: Palette
    ) -> None:
        super().__init__(frame, lips, palette)
        self._gap, self._lips = lips.gap, palette.lips
        x0, y0, x1, y1 = rect
        pixels = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        at = frame.plane(pixels)
        edges = frame.plane(lips.edges)
        upper, lower = (np.interp(at[..., 0], edge[:, 0], edge[:, 1]) for edge in edges)
        y, height = at[..., 1], lower - upper
        colour, outside = _shown(picture[y0:y1, x0:x1], lips.edges - (x0, y0), frame.iod)
        bare = np.float32(max(_TOOTH - self._teeth(picture, lips, palette), 0.01))
        gum = smoothstep((upper - y - bare) / np.float32(0.03))[..., None]
        colour += (palette.lips * np.float32(0.75) - colour) * floats(gum)
        colour *= 1 - 0.5 * smoothstep(outside / np.float32(_CARRIED))[..., None]
        near = 1 - smoothstep(outside / np.float32(_CARRIED))
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

    def moved(self, aperture: Aperture) -> np.float32:
        """0..1 how far the lips have left their gap at rest: at 0 the portrait shows.

        Of all the mouth: where it narrows while it opens, one place keeps its gap.
        """
        rest = np.interp(aperture.x, self._x, self._gaps)
        change = float(np.abs(aperture.lower - aperture.upper - rest).max())
        return np.float32(min(change / _FADE, 1.0))

    def meet(self, frame: Picture, x: Floats, away: Floats, aperture: Aperture) -> None:
        """The same, where what is left of teeth is never lighter than the lips."""
        beside = self._closing(x, aperture) * np.exp(-((away / np.float32(_BESIDE)) ** 4))
        mixed = frame + (np.minimum(frame, self._lips) - frame) * beside[..., None]
        frame[:] = np.rint(mixed).astype(np.uint8)
        super().meet(frame, x, away, aperture)

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
    def _down(picture: Picture, lips: LipLine) -> tuple[Floats, Floats]:
        """The light (45,) down the middle of the opening, and the share of its height there."""
        rows, count = np.linspace(0.06, 0.94, 45), lips.edges.shape[1]
        middle = slice(int(0.36 * count), int(0.64 * count))
        upper, lower = lips.edges[:, middle]
        at = floats(upper + (lower - upper) * rows[:, None, None])
        return (sample(picture, at) @ LUMA).mean(axis=1), floats(rows)

    def _split(self, picture: Picture, lips: LipLine) -> float | None:
        """The share of the opening's height where a dark line parts two rows of teeth, if any."""
        light, rows = self._down(picture, lips)
        inner = np.flatnonzero((rows > 0.3) & (rows < 0.85))
        dark = inner[light[inner].argmin()]
        dip = min(light[:dark].max(initial=0), light[dark:].max()) - light[dark]
        return float(rows[dark]) if dip > _LEAST_DIP * light.max() else None

    def _teeth(self, picture: Picture, lips: LipLine, palette: Palette) -> float:
        """How far down from the upper lip the upper teeth show, IOD; 0 where it is dark there."""
        light, rows = self._down(picture, lips)
        start = int(light[: len(light) // 2].argmax())
        if light[start] < palette.lips @ LUMA:
            return 0.0
        ends = np.flatnonzero(light[start:] < 0.7 * light[start])
        return self._gap * float(rows[start + ends[0]] if len(ends) else 1.0)


def _shown(part: Picture, edges: Points, iod: float) -> tuple[Floats, Floats]:
    """What `part` (h, w, 3) shows between the lips, carried on beyond, and how far beyond, IOD.

    edges: (2, n, 2) of the lips, in its pixels. Lips that a mesh takes for the mouth's inside are
    told by their likeness to what lies outside it.
    """
    zoom = _TEXELS / iod
    size = [max(2, round(side * zoom)) for side in part.shape[1::-1]]
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    small = floats(cv2.resize(part, size, interpolation=how))
    scale = np.array(size) / part.shape[1::-1]
    outline = np.concatenate([edges[0], edges[1, ::-1]]) * scale
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 1, shift=4)
    scales = [(across * _TEXELS, down * _TEXELS, counts) for across, down, counts in _SCALES]
    within, outside = (
        floats(cv2.distanceTransform(m, cv2.DIST_L2, 5)) / np.float32(_TEXELS)
        for m in (mask, 1 - mask)
    )
    lip = carried_on(small, floats((mask == 0) & (outside < _INSET)), scales)
    unlike = np.linalg.norm(small - lip, axis=-1) > _LIP_LIKE * (lip @ LUMA)
    inside = ((within > _INSET) | ((mask > 0) & unlike)).astype(np.uint8)
    inside = cv2.erode(inside, np.ones((3, 3)), borderValue=0)  # at its rim it mixes with the lips
    fill = carried_on(small, floats(inside), scales)
    soft = cv2.GaussianBlur(floats(inside), (0, 0), 1)
    known, guessed, away = (
        floats(cv2.resize(field, part.shape[1::-1], interpolation=cv2.INTER_LINEAR))
        for field in (np.clip(2 * soft - 1, 0, 1), fill, outside)
    )
    return guessed + (part - guessed) * known[..., None], away
