"""How a face is lit: what its skin's light says of the way it faces."""

import numpy as np

from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample
from moda_cli.render.rig.frame import Grid

_DEEPEST, _WIDEST = 1.1, 0.85  # of the face that is looked at: IOD below the eyes, and to a side
_TOP = -0.75  # IOD above the eyes
_FITS = 4  # times what differs most is left out: brows, lips, nostrils, cast shadows
_LEAST = 40  # places on a face that are enough to tell
_MOST = 0.5  # of the light that may depend on the way a surface faces


def find_light(picture: Picture, grid: Grid, surface: Floats) -> Floats:
    """(3, 3) how much lighter than skin that faces the viewer skin is that faces along each axis.

    In each colour. A surface whose normal n has unit length and points out of the head has the
    light 1 + (n - (0, 0, -1)) @ light, as Lambert's law has it for one lamp far away and light from
    all around. surface: (rows, cols, 3), see `Head`.
    """
    across, down = (np.gradient(surface, axis=axis) for axis in (1, 0))
    normal = np.cross(down, across)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-6)
    normal *= -np.sign(normal[..., 2:])  # out of the head
    seen = (normal[..., 2] < -0.5) & (np.abs(surface[..., 0]) < _WIDEST)
    seen &= (surface[..., 1] > _TOP) & (surface[..., 1] < _DEEPEST)
    seen &= (grid.pixels >= 0).all(axis=-1)
    seen &= (grid.pixels < np.array(picture.shape[1::-1])).all(axis=-1)
    colour = sample(picture, floats(grid.pixels[seen][None]))[0].astype(np.float64)
    rows = np.column_stack([normal[seen] + (0, 0, 1), np.ones(seen.sum())])
    if len(rows) < _LEAST or colour.max(initial=0) < 1:
        return np.zeros((3, 3), np.float32)
    kept = np.ones(len(rows), bool)
    fit = np.zeros((4, 3))
    for _ in range(_FITS):
        fit = np.linalg.lstsq(rows[kept], colour[kept], rcond=None)[0]
        off = np.abs((colour - rows @ fit) @ LUMA)
        kept = off <= np.percentile(off[kept], 80)
    relative = fit[:3] / np.maximum(fit[3], 1)
    size = float(np.linalg.norm(relative, axis=0).max())
    return floats(relative * min(1.0, _MOST / max(size, 1e-6)))
