"""The inside of an open mouth, laid between the moved lips: what the portrait shows of it, and
beyond that teeth, tongue and darkness in the picture's own colours."""

import numpy as np

from moda_cli.face.landmarks import LIP_MIDDLES, LOWER_LIP, UPPER_LIP, Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import Floats, floats, sample_each, smoothstep
from moda_cli.render.rig.expression import Aperture
from moda_cli.render.rig.frame import FaceFrame, Rect
from moda_cli.render.rig.lip_line import LipLine
from moda_cli.render.rig.own_mouth import OwnMouth, Seam
from moda_cli.render.rig.palette import Palette

_BOX = (0.75, 0.35, 0.5)  # beside, above and below the mouth's middle covered by textures, IOD
_HIDDEN = 0.035  # IOD of the upper teeth that rounded lips hide
_TOOTH_EDGES = (0.0, 0.128, 0.232, 0.345, 0.44, 0.53, 0.62)  # from the midline, upper jaw
_LOWER_EDGES = (0.0, 0.078, 0.164, 0.262, 0.36, 0.46, 0.56)


class Mouth:
    """Textures of the mouth's inside for one picture, in its pixels, and how they are laid."""

    def __init__(
        self,
        picture: Picture,
        frame: FaceFrame,
        lips: LipLine,
        mesh: Points,
        palette: Palette,
        own: Seam | None = None,
    ) -> None:
        """own: what the picture shows of its own mouth; found in it unless it is given."""
        self._pixel = np.float32(1 / frame.iod)
        self._behind = floats(frame.shown(np.array([0.0, _HIDDEN, 0.0])))
        self._cavity, self._rim = palette.shadow(0.20), palette.shadow(0.36)
        corners = frame.plane(mesh[[UPPER_LIP[0], UPPER_LIP[-1]], :2])
        self._middle = float(corners[:, 0].mean())
        self._half_width = float(np.ptp(corners[:, 0])) / 2
        inner = (mesh[UPPER_LIP, :2] + mesh[LOWER_LIP, :2]) / 2
        centre = frame.plane(inner[5])
        beside, above, below = _BOX
        reach = np.array([[x, y] for x in (-beside, beside) for y in (-above, below)])
        box = frame.pixels(centre + reach)
        height, width = picture.shape[:2]
        x0, y0 = np.clip(np.floor(box.min(axis=0)), 0, (width - 2, height - 2)).astype(int)
        x1, y1 = np.clip(np.ceil(box.max(axis=0)), (x0 + 2, y0 + 2), (width, height)).astype(int)
        self._rect: Rect = (int(x0), int(y0), int(x1), int(y1))

        pixels = np.dstack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))).astype(np.float64)
        at = frame.plane(pixels)
        # Along the mouth in the face's own width: a turned head shows the far side narrower.
        true = frame.to_face(mesh[UPPER_LIP])[:, 0]
        along = np.interp(at[..., 0], frame.plane(inner)[:, 0], true)
        beyond = np.abs(at[..., 0] - self._middle) - self._half_width
        along += np.where(beyond > 0, np.sign(at[..., 0] - self._middle) * beyond, 0)
        slope = float(corners[1, 1] - corners[0, 1]) / (2 * self._half_width)
        tilt = slope * (at[..., 0] - centre[0])
        upper, lower = (
            float(frame.plane(mesh[row[5], :2])[1]) if lips.gap else float(centre[1])
            for row in (UPPER_LIP, LOWER_LIP)
        )
        x = floats(along - frame.to_face(mesh[LIP_MIDDLES])[:, 0].mean())
        self._rows = np.stack(
            [
                _upper_teeth(x, floats(at[..., 1] - tilt - upper), palette),
                _lower_jaw(x, floats(at[..., 1] - tilt - lower), palette),
            ]
        )
        self._own = own
        if own is None and lips.gap:
            self._own = OwnMouth(picture, self._rect, frame, lips, palette)

    def paint(
        self,
        frame: Picture,
        seen: Floats,
        at: Floats,
        edge: Floats,
        aperture: Aperture,
        narrow: float,
    ) -> None:
        """Lay the inside into `frame` (h, w, 3).

        seen: (h, w, 2) pixels of the portrait's head at rest that its pixels show. at: (h, w, 2)
        the same in the eyes' plane. edge: (h, w, 2) of the lips there, of `aperture`. narrow: 0..1,
        how far the lips are rounded, which hides the teeth.
        """
        x, y = at[..., 0].copy(), at[..., 1]
        below, above = y - edge[..., 0], edge[..., 1] - y
        gap = edge[..., 1] - edge[..., 0]
        pixel = self._pixel
        feather = 1.5 * pixel
        alpha = np.clip(below / feather + 0.5, 0, 1) * np.clip(above / feather + 0.5, 0, 1)
        alpha *= smoothstep(gap / max(2.5 * pixel, np.float32(0.022)))
        if self._own:
            alpha *= self._own.moved(aperture)
            if aperture.closed:
                middle = (edge[..., 0] + edge[..., 1]) / 2
                self._own.meet(frame, x, y - middle, aperture)
        if not alpha.any():
            return
        widest = float((aperture.lower - aperture.upper).max())
        in_skull = seen - floats(self._rect[:2])
        hidden = self._behind * np.float32(narrow)
        upper, lower = sample_each(
            self._rows, np.stack([in_skull + hidden, in_skull - aperture.drop])
        )
        colour = np.empty((*x.shape, 3), np.float32)
        colour[:] = self._cavity
        colour *= (0.55 + 0.45 * smoothstep(below / np.float32(0.25)))[..., None]
        colour = _over(colour, lower, np.float32(min(widest / 0.12, 1)))
        colour *= (0.30 + 0.70 * smoothstep(above / np.float32(0.04)))[..., None]
        lit = 0.45 + 0.55 * smoothstep((below + 0.004) / np.float32(0.035))
        lit *= (0.70 + 0.30 * smoothstep(gap / np.float32(0.12))) * np.float32(1 - 0.35 * narrow)
        upper[..., :3] *= lit[..., None]
        upper[..., 3] *= smoothstep((gap - np.float32(0.025)) / np.float32(0.04))
        colour = _over(colour, upper, np.float32(1))
        rim = np.exp(-np.minimum(below, above * 0.7).clip(0) / np.float32(0.012))
        small = 1 - smoothstep(gap / np.float32(0.05))
        t = np.abs(x - self._middle) / np.float32(self._half_width)
        corner = smoothstep((t - 0.65) / np.float32(0.35))
        mix = np.maximum(np.maximum(0.7 * small, 0.6 * rim), 0.75 * corner)[..., None]
        colour += (self._rim - colour) * mix
        if self._own:
            share = below / np.maximum(gap, 1e-3)
            colour = self._own.over(colour, in_skull, aperture.drop, share, widest)
        frame[:] = (
            np.rint(frame + (colour - frame) * alpha[..., None]).clip(0, 255).astype(np.uint8)
        )


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


def _upper_teeth(x: Floats, y: Floats, palette: Palette) -> Floats:
    """(h, w, 4) colour and coverage; y is down from the lips at rest, fixed to the skull."""
    shade, cover = _teeth_row(x, y, _TOOTH_EDGES, 0.050 - 0.16 * x**2)
    gum = smoothstep((-y - 0.10) / np.float32(0.04))[..., None]
    colour = (palette.enamel * (1 - gum) + palette.lips * 0.8 * gum) * shade[..., None]
    fade = 1 - smoothstep((np.abs(x) - 0.40) / np.float32(0.14))
    return np.dstack([colour, cover * fade]).astype(np.float32)


def _lower_jaw(x: Floats, y: Floats, palette: Palette) -> Floats:
    """(h, w, 4) tongue and lower teeth; y is down from the lower lip's edge, fixed to the jaw."""
    shade, cover = _teeth_row(x, -y, _LOWER_EDGES, 0.026 - 0.10 * x**2)
    enamel = palette.enamel * (0.62 * shade)[..., None]
    top = (y + 0.105 + 0.9 * x**2) / np.float32(0.05)
    tongue_cover = smoothstep(top) * (1 - smoothstep((np.abs(x) - 0.20) / np.float32(0.10)))
    lit = 0.55 + 0.45 * smoothstep(top * 0.5) - 0.12 * np.exp(-((x / 0.02) ** 2))
    tongue = palette.lips * np.float32(0.62) * lit[..., None]
    both = tongue * (1 - cover[..., None]) + enamel * cover[..., None]
    return np.dstack([both, np.maximum(tongue_cover, cover)]).astype(np.float32)
