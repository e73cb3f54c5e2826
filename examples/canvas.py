"""Splines and soft brushes in the face frame: origin midway between the pupils, x right, y down.

Lengths are in IOD, the distance between the pupils.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]  # RGB, 0-255

SIZE = 512
SUPERSAMPLING = 3
IOD = 110.0  # pixels of the saved picture
ORIGIN = np.array([255.5, 214.0])  # between the pupils; pixel centres at integers


def to_pixels(points: Points) -> Points:
    """Pixels of the saved picture (..., 2) of face-frame points (..., 2)."""
    return ORIGIN + IOD * points


def spline(points: object, *, closed: bool = False, steps: int = 24) -> Points:
    """A Catmull-Rom curve (n, 2) through `points` (k, 2)."""
    p = np.asarray(points, np.float64)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    p = np.concatenate((ends[0], p, ends[1]))
    t = np.linspace(0, 1, steps, endpoint=False)
    weights = np.stack((-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3,
                        t**3 - t**2), axis=1)  # fmt: skip
    parts = [weights @ p[k : k + 4] / 2 for k in range(len(p) - 3)]
    return np.concatenate(parts if closed else [*parts, p[-2:-1]])


def shifted(points: Points, x: float, y: float) -> Points:
    return points + np.array((x, y))


def mirrored(points: object) -> Points:
    """Points of the picture's left half, then their mirror images back to front."""
    left = np.asarray(points, np.float64)
    right = left[::-1] * (-1, 1)
    return np.concatenate((left, right[1:] if left[-1, 0] == 0 else right))


def ribbon(curve: Points, width: object) -> Points:
    """Outline of a line whose `width` is a number or values evenly spaced along it."""
    widths = np.atleast_1d(np.asarray(width, np.float64))
    half = np.interp(np.linspace(0, 1, len(curve)), np.linspace(0, 1, len(widths)), widths) / 2
    direction = np.gradient(curve, axis=0)
    normal = np.stack((-direction[:, 1], direction[:, 0]), 1)
    normal *= half[:, None] / (np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9)
    return np.concatenate((curve + normal, (curve - normal)[::-1]))


class Canvas:
    """A supersampled picture and the face-frame coordinates of its pixels."""

    def __init__(self, background: Colour) -> None:
        side = SIZE * SUPERSAMPLING
        axis = (np.arange(side, dtype=np.float32) + 0.5) / SUPERSAMPLING - 0.5
        self.x = ((axis - ORIGIN[0]) / IOD).astype(np.float32)[None, :]
        self.y = ((axis - ORIGIN[1]) / IOD).astype(np.float32)[:, None]
        self.picture = np.full((side, side, 3), background, np.float32)

    def fixed(self, points: Points) -> NDArray[np.int32]:
        """Supersampled pixels with four fraction bits, as OpenCV's `shift=4` reads them."""
        return np.rint(((to_pixels(points) + 0.5) * SUPERSAMPLING - 0.5) * 16).astype(np.int32)

    def soften(self, layer: Array, radius: float) -> Array:
        """Gaussian blur; `radius` is the standard deviation in IOD."""
        if radius == 0:
            return layer
        sigma = radius * IOD * SUPERSAMPLING
        shrink = max(1, int(sigma / 4))
        small = cv2.resize(layer, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink)
        return cv2.resize(small, layer.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def fill(self, *outlines: Points, blur: float = 0.0) -> Array:
        """Coverage in 0-1 of closed outlines."""
        layer = np.zeros(self.picture.shape[:2], np.uint8)
        for outline in outlines:
            cv2.fillPoly(layer, [self.fixed(outline)], 255, cv2.LINE_AA, 4)
        return self.soften(layer.astype(np.float32) / 255, blur)

    def stroke(self, curve: Points, width: object, blur: float = 0.0) -> Array:
        """Coverage in 0-1 of a line; `width` in IOD is a number or evenly spaced along the line."""
        return self.fill(ribbon(curve, width), blur=blur)

    def spot(self, x: float, y: float, width: float, height: float) -> Array:
        """A Gaussian of peak 1."""
        return np.exp(-(((self.x - x) / width) ** 2) - ((self.y - y) / height) ** 2)

    def spots(self, x: float, y: float, width: float, height: float) -> Array:
        """A Gaussian on either side of the midline."""
        return self.spot(x, y, width, height) + self.spot(-x, y, width, height)

    def paint(self, colour: object, coverage: Array) -> None:
        self.picture += (np.asarray(colour, np.float32) - self.picture) * coverage[..., None]

    def shade(self, coverage: Array, colour: Colour = (96, 44, 36)) -> None:
        """Multiply towards `colour`, as a shadow does."""
        self.picture *= 1 - coverage[..., None] * (1 - np.asarray(colour, np.float32) / 255)

    def glow(self, coverage: Array, colour: Colour = (255, 240, 226)) -> None:
        """Screen with `colour`, as a highlight does."""
        self.picture += (255 - self.picture) * coverage[..., None] * np.float32(colour) / 255

    def strands(
        self, guides: object, colours: tuple[Colour, Colour], count: int, rng: np.random.Generator
    ) -> None:
        """Hair strokes between neighbouring guide curves (g, k, 2), in locks of like colour."""
        g = np.asarray(guides, np.float64)
        dark, light = np.asarray(colours, np.float64)
        locks = rng.normal(0, 1, 24)
        for position in rng.permutation(np.linspace(0, len(g) - 1.001, count)):
            i = int(position)
            curve = g[i] + (g[i + 1] - g[i]) * (position - i) + rng.normal(0, 0.010, g[i].shape)
            lock = np.interp(position * 24 / len(g), np.arange(24), locks)
            tone = np.clip(0.18 + 0.10 * lock + rng.normal(0, 0.10), 0, 0.75)
            colour = dark * (0.72 + 0.35 * tone) + (light - dark) * tone
            points = [self.fixed(spline(curve, steps=10))]
            width = int(rng.integers(1, 4))
            cv2.polylines(self.picture, points, False, colour.tolist(), width, cv2.LINE_AA, 4)

    def slope(self, depth: Array) -> tuple[Array, Array]:
        """Change of a depth in IOD over x and over y."""
        across, down = (np.gradient(depth, axis=axis) for axis in (1, 0))
        return across * (IOD * SUPERSAMPLING), down * (IOD * SUPERSAMPLING)

    def finished(self) -> NDArray[np.uint8]:
        """The picture at its own size, (512, 512, 3) RGB."""
        small = cv2.resize(self.picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return np.clip(np.rint(small), 0, 255).astype(np.uint8)
