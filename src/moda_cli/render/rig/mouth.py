"""The inside of an open mouth: teeth, tongue and darkness, painted between the moved lips."""

import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample, smoothstep
from moda_cli.render.rig.expression import Aperture
from moda_cli.render.rig.lip_line import Seam

_BOX = (0.62, 0.22, 0.42)  # half width, above, below the seam covered by the textures, IOD
_TOOTH_EDGES = (0.0, 0.128, 0.232, 0.345, 0.44, 0.53, 0.62)  # from the midline, upper jaw
_LOWER_EDGES = (0.0, 0.078, 0.164, 0.262, 0.36, 0.46, 0.56)


class Mouth:
    """Textures of the mouth's inside for one picture, and how they are laid into a frame."""

    def __init__(self, picture: NDArray[np.uint8], face: FaceLandmarks, seam: Seam) -> None:
        self._seam = seam
        self._per_iod = float(np.clip(face.iod, 60, 400))  # texels per IOD
        skin, upper_lip, lower_lip = _colours(picture, face, seam)
        self._lips = 0.5 * (upper_lip + lower_lip)
        light = float(skin @ LUMA) / 255
        colourful = float(np.clip((max(np.ptp(skin), np.ptp(self._lips)) - 2) / 28, 0, 1))
        half, above, below = _BOX
        size = self._per_iod
        x, y = np.meshgrid(
            np.arange(-half, half, 1 / size, dtype=np.float32),
            np.arange(-above, below, 1 / size, dtype=np.float32),
        )
        tint = (0.5 + 0.5 * skin / max(float(skin.max()), 1)) * (0.50 + 0.55 * light)
        self._upper = _upper_teeth(x, y, tint, visible=seam.teeth == 0)
        self._lower = _lower_jaw(x, y, tint, 0.5 + 0.6 * light)
        self._cavity = floats([50, 20, 22]) * (0.45 + 0.6 * light)
        for colour in (self._upper[..., :3], self._lower[..., :3], self._cavity):
            mean = colour.mean(axis=-1, keepdims=True)
            colour[:] = mean + (colour - mean) * np.float32(colourful)

    def paint(
        self, frame: Picture, x: Floats, y: Floats, aperture: Aperture, narrow: float
    ) -> None:
        """Lay the inside into `frame` (h, w, 3), whose pixels lie at face-frame x, y (h, w).

        narrow: 0..1, how far the lips are rounded, which hides the teeth.
        """
        edge = aperture.at(x)
        below, above = y - edge[..., 0], edge[..., 1] - y
        gap = edge[..., 1] - edge[..., 0]
        pixel = np.float32(self._per_px(x, y))
        feather = 1.5 * pixel
        alpha = np.clip(below / feather + 0.5, 0, 1) * np.clip(above / feather + 0.5, 0, 1)
        fine = 0.05 if self._seam.teeth else 0.022
        alpha *= smoothstep(gap / np.maximum(2.5 * pixel, np.float32(fine)))
        if self._seam.teeth:
            self._close(frame, y - edge[..., 1], gap)
        if not alpha.any():
            return
        widest = float((aperture.lower - aperture.upper).max())
        drop = float((aperture.lower - self._seam.y_at(aperture.x))[len(aperture.x) // 2])
        colour = np.empty((*x.shape, 3), np.float32)
        colour[:] = self._cavity
        colour *= (0.55 + 0.45 * smoothstep(below / np.float32(0.25)))[..., None]
        colour = _over(
            colour, self._sampled(self._lower, x, y - drop), np.float32(min(widest / 0.12, 1))
        )
        colour *= (0.35 + 0.65 * smoothstep(above / np.float32(0.03)))[..., None]
        teeth = self._sampled(self._upper, x, y)
        teeth[..., :3] *= (0.40 + 0.60 * smoothstep((below + 0.006) / np.float32(0.055)))[..., None]
        teeth[..., :3] *= (0.40 + 0.60 * smoothstep(gap / np.float32(0.13)))[..., None]
        teeth[..., 3] *= smoothstep((gap - np.float32(0.05)) / np.float32(0.06))
        colour = _over(colour, teeth, np.float32(1 - 0.45 * narrow))
        edge_distance = above * 0.7 if self._seam.teeth else np.minimum(below, above * 0.7)
        rim = np.exp(-edge_distance.clip(0) / np.float32(0.012))
        small = 1 - smoothstep(gap / np.float32(0.07))
        t = np.abs(x - self._seam.x) / np.float32(self._seam.half_width)
        corner = smoothstep((t - 0.65) / np.float32(0.35))
        mix = np.maximum(np.maximum(0.75 * small, 0.6 * rim), 0.75 * corner)[..., None]
        colour += (self._lips * np.float32(0.40) - colour) * mix
        alpha = alpha[..., None]
        frame[:] = np.rint(frame + (colour - frame) * alpha).clip(0, 255).astype(np.uint8)

    def _close(self, frame: Picture, below: Floats, gap: Floats) -> None:
        """Darken the edge, `below` IOD away, of a lower lip risen over the source's teeth."""
        line = np.exp(-((below / np.float32(0.011)) ** 2)) * np.clip(gap / np.float32(-0.03), 0, 1)
        mixed = frame + (self._lips * np.float32(0.5) - frame) * (0.85 * line)[..., None]
        frame[:] = np.rint(mixed).astype(np.uint8)

    def _per_px(self, x: Floats, y: Floats) -> float:
        """IOD per pixel of the painted region."""
        middle = (x.shape[0] // 2, x.shape[1] // 2)
        dx = x[middle[0], 1:] - x[middle[0], :-1]
        dy = y[middle[0], 1:] - y[middle[0], :-1]
        return float(np.hypot(dx, dy).mean())

    def _sampled(self, texture: Floats, x: Floats, y: Floats) -> Floats:
        half, above, _ = _BOX
        level = self._seam.y_at(floats([self._seam.x]))[0]
        slope = (self._seam.curve[-1] - self._seam.curve[0]) / (2 * self._seam.half_width)
        along = x - self._seam.x
        u = (along + half) * np.float32(self._per_iod)
        v = (y - level - along * slope + above) * np.float32(self._per_iod)
        return sample(texture, np.dstack([u, v]))


def _over(colour: Floats, texture: Floats, opacity: np.float32) -> Floats:
    return colour + (texture[..., :3] - colour) * (texture[..., 3:] * opacity)


def _teeth_row(
    x: Floats, y: Floats, edges: tuple[float, ...], edge: Floats
) -> tuple[Floats, Floats]:
    """Shade and coverage of a row of teeth that ends at height `edge`; y points to its tips."""
    distance = np.abs(x)
    tooth = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, len(edges) - 2)
    start, end = floats(edges)[tooth], floats(edges)[tooth + 1]
    across = (2 * (distance - start) / (end - start) - 1).astype(np.float32)
    bite = edge - 0.010 * np.abs(across) ** 4 - np.where(tooth == 1, np.float32(0.006), 0)
    cover = smoothstep((bite - y) / np.float32(0.012) + 0.5)
    shade = 1 - 0.16 * np.abs(across) ** 6
    shade *= 1 - 0.62 * smoothstep((distance - 0.12) / np.float32(0.36))
    shade *= 1 - 0.10 * smoothstep(1 - (bite - y) / np.float32(0.02))
    return shade.astype(np.float32), cover


def _upper_teeth(x: Floats, y: Floats, tint: Floats, visible: bool) -> Floats:
    """(h, w, 4) colour and coverage; y is down from the seam at rest, fixed to the skull."""
    shade, cover = _teeth_row(x, y, _TOOTH_EDGES, 0.050 - 0.16 * x**2)
    gum = smoothstep((-y - 0.10) / np.float32(0.04))[..., None]
    enamel = floats([240, 230, 214]) * tint
    flesh = floats([168, 92, 92]) * tint
    colour = (enamel * (1 - gum) + flesh * gum) * shade[..., None]
    fade = 1 - smoothstep((np.abs(x) - 0.40) / np.float32(0.14))
    return np.dstack([colour, cover * fade * visible]).astype(np.float32)


def _lower_jaw(x: Floats, y: Floats, tint: Floats, light: float) -> Floats:
    """(h, w, 4) tongue and lower teeth; y is down from the lower lip's edge, fixed to the jaw."""
    shade, cover = _teeth_row(x, -y, _LOWER_EDGES, 0.026 - 0.10 * x**2)
    enamel = floats([215, 204, 190]) * tint * (0.62 * shade)[..., None]
    top = (y + 0.105 + 0.9 * x**2) / np.float32(0.05)
    tongue_cover = smoothstep(top) * (1 - smoothstep((np.abs(x) - 0.20) / np.float32(0.10)))
    lit = 0.55 + 0.45 * smoothstep(top * 0.5) - 0.12 * np.exp(-((x / 0.02) ** 2))
    tongue = floats([150, 66, 66]) * np.float32(light) * lit[..., None]
    both = tongue * (1 - cover[..., None]) + enamel * cover[..., None]
    return np.dstack([both, np.maximum(tongue_cover, cover)]).astype(np.float32)


def _colours(
    picture: NDArray[np.uint8], face: FaceLandmarks, seam: Seam
) -> tuple[Floats, Floats, Floats]:
    """Median colours (3,) of the cheeks, the upper lip and the lower lip."""
    t = np.linspace(-0.6, 0.6, 25, dtype=np.float32)
    x = seam.x + seam.half_width * t
    cheeks = [
        np.stack([side * (0.5 + 0.1 * t), np.full_like(t, 0.55 + row)], axis=-1)
        for side in (-1, 1)
        for row in (0.0, 0.1)
    ]
    lips = [
        [np.stack([x, seam.y_at(x) + sign * d], axis=-1) for d in (0.03, 0.05, 0.065)]
        for sign in (-1, 1)
    ]

    def median(strips: list[Floats]) -> Floats:
        at = face.to_picture(np.stack(strips).astype(np.float64)).astype(np.float32)
        values = sample(picture, at)
        return floats(np.median(values.reshape(-1, 3), axis=0))

    return median(cheeks), median(lips[0]), median(lips[1])
