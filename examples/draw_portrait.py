"""Draw the example portrait from splines, a shaded height field and hair strokes.

    python examples/draw_portrait.py [--palette umber] [--output FOLDER]

writes `portrait.png` (512x512) and `portrait.json`, the exact landmarks in pixels of that picture.
All shapes are in the face frame of `canvas`.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from canvas import Array, Canvas, Colour, Points, mirrored, ribbon, shifted, spline, to_pixels
from numpy.typing import NDArray

SEAM = ((-0.385, 1.032), (-0.25, 1.058), (-0.12, 1.060), (0.0, 1.072))  # mirrored on the right
CHIN = (0.0, 1.735)


@dataclass(frozen=True)
class Palette:
    """Base colours of one person."""

    skin: Colour
    shadow: Colour
    light: Colour
    blush: Colour
    lip: Colour
    hair: Colour
    hair_light: Colour
    iris: Colour
    cloth: Colour
    background: Colour


PALETTES = {
    "amber": Palette(
        skin=(229, 178, 147), shadow=(146, 84, 66), light=(255, 228, 204), blush=(219, 112, 98),
        lip=(186, 88, 86), hair=(62, 36, 26), hair_light=(158, 100, 62), iris=(104, 132, 112),
        cloth=(44, 84, 98), background=(176, 194, 200),
    ),
    "umber": Palette(
        skin=(150, 98, 70), shadow=(66, 36, 28), light=(216, 160, 122), blush=(160, 70, 54),
        lip=(126, 58, 58), hair=(26, 21, 22), hair_light=(92, 78, 74), iris=(92, 58, 34),
        cloth=(176, 120, 52), background=(206, 196, 182),
    ),
}  # fmt: skip


def face_outline() -> Points:
    left = [
        (0, -1.50), (-0.50, -1.40), (-0.90, -1.05), (-1.06, -0.50), (-1.08, 0.0), (-1.05, 0.42),
        (-0.965, 0.85), (-0.81, 1.22), (-0.57, 1.52), (-0.28, 1.695), CHIN,
    ]  # fmt: skip
    return spline(np.concatenate((left, np.multiply(left[-2:0:-1], (-1, 1)))), closed=True)


def face_height(canvas: Canvas) -> Array:
    """Depth of the face towards the viewer in IOD; smooth, for shading only."""
    x, y, spot, spots = canvas.x, canvas.y, canvas.spot, canvas.spots
    width = 1.18 - 0.42 * np.clip((y - 0.35) / 1.4, 0, 1) ** 2
    dome = 1 - np.abs(x / width) ** 2.5 - np.abs((y - 0.12) / 1.78) ** 2.6
    z = 1.05 * np.clip(dome, 0.004, 1) ** 0.5
    z = z + 0.12 * spot(0, 0.20, 0.13, 0.40) + 0.19 * spot(0, 0.575, 0.145, 0.145)  # bridge, tip
    z = z + 0.095 * spots(0.158, 0.635, 0.085, 0.085) - 0.05 * spot(0, 0.80, 0.14, 0.07)
    z = z - 0.12 * spots(0.49, -0.02, 0.26, 0.17) - 0.03 * spots(0.22, 0.02, 0.10, 0.14)  # sockets
    z = z + 0.05 * spots(0.50, 0.0, 0.20, 0.11)  # eyeballs
    z = z + 0.05 * spots(0.50, -0.30, 0.36, 0.10) + 0.04 * spot(0, -0.85, 0.6, 0.35)  # forehead
    z = z + 0.10 * spots(0.60, 0.42, 0.30, 0.22) - 0.04 * spots(0.66, 0.92, 0.24, 0.26)  # cheeks
    z = z + 0.06 * spot(0, 1.02, 0.44, 0.24)  # the teeth under the lips
    z = z - 0.018 * spot(0, 0.86, 0.036, 0.075) + 0.008 * spots(0.075, 0.88, 0.04, 0.08)  # philtrum
    z = z + 0.04 * spots(0.10, 1.00, 0.14, 0.05) + 0.06 * spot(0, 1.155, 0.22, 0.06)  # lips
    z = z - 0.015 * spots(0.41, 1.05, 0.10, 0.11) - 0.05 * spot(0, 1.295, 0.22, 0.06)
    return canvas.soften((z + 0.09 * spot(0, 1.52, 0.30, 0.16)).astype(np.float32), 0.012)


def draw_background(canvas: Canvas) -> None:
    canvas.glow(0.45 * canvas.spot(-0.9, 0.0, 2.0, 2.2))
    canvas.shade(0.34 * (1 - canvas.spot(-0.5, 0.2, 3.0, 3.0)), (60, 74, 96))


def draw_body(canvas: Canvas, palette: Palette) -> None:
    """Neck, shoulders and a round collar."""
    shadow = palette.shadow
    neck = [(-0.66, 0.9), (-0.63, 1.55), (-0.655, 1.90), (-0.80, 2.20), (-1.2, 2.5), (0, 3.2)]
    skin = canvas.fill(spline(mirrored(neck)))
    canvas.paint(palette.skin, skin)
    canvas.shade(skin * np.clip(0.36 + 0.50 * canvas.x, 0, 0.8), shadow)
    under = canvas.fill(shifted(face_outline(), 0.10, 0.20), blur=0.10)
    under += 0.55 * canvas.spot(0.1, 1.5, 0.9, 0.38)
    canvas.shade(skin * np.clip(0.70 * under, 0, 0.85), shadow)
    for side in (-1, 1):
        tendon = spline(np.multiply([(0.45, 1.75), (0.31, 2.1), (0.13, 2.42)], (side, 1)))
        canvas.shade(0.22 * skin * canvas.stroke(tendon, 0.10, 0.05), shadow)
    canvas.glow(0.10 * skin * canvas.spot(-0.40, 2.15, 0.15, 0.30))

    shoulder = [(-2.6, 3.4), (-2.32, 2.74), (-1.95, 2.46), (-1.4, 2.29), (-1.02, 2.19)]
    shoulder.append((-0.83, 2.16))
    collar = spline([shoulder[-1], (-0.72, 2.31), (-0.42, 2.52), (0, 2.60)])
    cloth = canvas.fill(mirrored(np.concatenate((spline(shoulder), collar))))
    canvas.paint(palette.cloth, cloth)
    canvas.glow(0.22 * cloth * canvas.spot(-1.45, 2.40, 0.8, 0.35))
    canvas.glow(0.07 * cloth * canvas.spot(1.45, 2.38, 0.7, 0.22))
    canvas.shade(cloth * np.clip(0.18 + 0.20 * canvas.x, 0, 0.5), (24, 26, 44))
    folds = ((-1.55, 2.62, 0.16), (-0.95, 2.62, 0.10), (1.0, 2.60, -0.10), (1.6, 2.64, -0.15))
    for x, y, lean in folds:
        crease = spline([(x, y - 0.22), (x + lean * 0.4, y - 0.02), (x + lean * 1.6, y + 0.22)])
        canvas.shade(0.34 * cloth * canvas.stroke(crease, (0.0, 0.06, 0.02), 0.03), (16, 20, 34))
        canvas.glow(0.09 * cloth * canvas.stroke(crease - (0.05, 0), (0.0, 0.05, 0.02), 0.03))
    edge = mirrored(collar)
    canvas.shade(0.55 * cloth * canvas.stroke(shifted(edge, 0, 0.105), 0.016, 0.010), (16, 18, 30))
    canvas.glow(0.13 * cloth * canvas.stroke(shifted(edge, -0.01, 0.05), 0.05, 0.016))
    canvas.shade(0.60 * skin * (1 - cloth) * canvas.stroke(edge - (0, 0.02), 0.07, 0.03), shadow)


def draw_ears(canvas: Canvas, palette: Palette, face: Array) -> None:
    for side in (-1, 1):
        flip = (side, 1)
        dim = 0.26 if side < 0 else 0.52
        outline = [
            (1.00, -0.06), (1.09, -0.115), (1.165, -0.04), (1.165, 0.15), (1.115, 0.33),
            (1.075, 0.47), (1.01, 0.46),
        ]  # fmt: skip
        ear = canvas.fill(spline(np.multiply(outline, flip), closed=True), blur=0.003)
        cast = canvas.soften(ear, 0.05) * (1 - face)
        ear *= 1 - face
        canvas.shade(0.60 * (cast - ear).clip(0), (30, 16, 14))
        canvas.paint(palette.skin, ear)
        canvas.shade(dim * ear, palette.shadow)
        canvas.shade(0.55 * ear * canvas.soften(face, 0.025), palette.shadow)
        fold = spline(
            np.multiply([(1.07, -0.05), (1.125, -0.02), (1.125, 0.13), (1.08, 0.30)], flip)
        )
        canvas.shade(0.55 * ear * canvas.stroke(fold, 0.030, 0.011), palette.shadow)
        canvas.shade(0.50 * ear * canvas.spot(side * 1.075, 0.20, 0.03, 0.10), palette.shadow)
        rim = spline(np.multiply([(1.09, -0.09), (1.148, -0.02), (1.145, 0.17)], flip))
        canvas.glow((0.55 - dim) * ear * canvas.stroke(rim, 0.026, 0.010))


def draw_skin(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> Array:
    """The lit face without its features; returns its coverage."""
    z = face_height(canvas)
    dx, dy = canvas.slope(z)
    length = np.sqrt(dx**2 + dy**2 + 1)
    key = (0.46 * dx + 0.40 * dy + 0.80) / length  # from the upper left
    fill = (0.86 - 0.5 * dx) / length  # a weak one from the right
    grain = canvas.soften(rng.normal(0, 1, z.shape).astype(np.float32), 0.018)
    lit = np.clip(0.80 * key + 0.16 * fill + 0.05 + 0.006 * grain / grain.std(), 0, 1)
    half_tone = 0.58 * np.array(palette.skin) + 0.42 * np.array(palette.shadow)
    ramp = np.array([palette.shadow, half_tone, palette.skin, palette.light])
    levels = [0.0, 0.42, 0.80, 1.0]
    colour = np.stack([np.interp(lit, levels, ramp[:, c]) for c in range(3)], -1)
    face = canvas.fill(face_outline(), blur=0.004)
    canvas.paint(colour.astype(np.float32), face)
    gloss = np.clip((0.24 * dx + 0.22 * dy + 0.945) / length, 0, 1) ** 40
    canvas.glow(0.13 * face * gloss)
    canvas.paint(palette.blush, 0.23 * face * canvas.spots(0.66, 0.54, 0.32, 0.23))
    canvas.paint(palette.blush, 0.20 * face * canvas.spot(0, 0.60, 0.17, 0.12))
    canvas.paint(palette.blush, 0.10 * face * canvas.spot(0, 1.55, 0.25, 0.15))
    return face


def draw_nose(canvas: Canvas, palette: Palette) -> None:
    shadow = palette.shadow
    for side in (-1, 1):
        flip, dim = (side, 1), 0.75 if side < 0 else 1.0
        nostril = np.multiply([(0.035, 0.700), (0.085, 0.682), (0.135, 0.700), (0.09, 0.716)], flip)
        canvas.shade(0.80 * canvas.fill(spline(nostril, closed=True), blur=0.012), (66, 28, 26))
        wing = spline(
            np.multiply([(0.185, 0.555), (0.228, 0.625), (0.212, 0.70), (0.16, 0.715)], flip)
        )
        canvas.shade(0.46 * dim * canvas.stroke(wing, (0.004, 0.024, 0.03, 0.01), 0.014), shadow)
        root = spline(np.multiply([(0.17, -0.16), (0.13, 0.05), (0.14, 0.28), (0.16, 0.48)], flip))
        canvas.shade(0.10 * dim * canvas.stroke(root, (0.05, 0.10, 0.07, 0.02), 0.06), shadow)
        fold = spline(np.multiply([(0.25, 0.69), (0.37, 0.82), (0.455, 0.96)], flip))
        canvas.shade(0.20 * canvas.stroke(fold, (0.012, 0.03, 0.008), 0.024), shadow)
    base = spline([(-0.10, 0.722), (0, 0.745), (0.10, 0.722)])
    canvas.shade(0.42 * canvas.stroke(base, 0.035, 0.022), shadow)
    canvas.shade(0.22 * canvas.spot(0.05, 0.80, 0.16, 0.06), shadow)
    canvas.glow(0.26 * canvas.spot(-0.035, 0.555, 0.045, 0.052))
    canvas.glow(0.10 * canvas.spot(-0.03, 0.20, 0.04, 0.24))


def draw_eye(canvas: Canvas, palette: Palette, side: int, rng: np.random.Generator) -> None:
    """One open eye; `side` is -1 for the picture's left."""
    flip, shadow = (side, 1), palette.shadow

    def curve(*points: tuple[float, float]) -> Points:
        return spline(np.multiply(points, flip))

    upper = curve((0.268, 0.046), (0.345, -0.03), (0.45, -0.082), (0.57, -0.082), (0.68, -0.032),
                  (0.752, 0.020))  # fmt: skip
    lower = curve(
        (0.268, 0.046), (0.34, 0.066), (0.46, 0.092), (0.58, 0.090), (0.68, 0.062), (0.752, 0.020)
    )
    eye = canvas.fill(np.concatenate((upper, lower[::-1])), blur=0.003)
    canvas.shade(0.26 * canvas.soften(eye, 0.05) * (1 - eye), shadow)
    canvas.paint((233, 227, 222), eye)
    canvas.shade(eye * np.clip(9 * (canvas.x - side * 0.5) ** 2, 0, 0.5), (170, 130, 124))
    canvas.paint((206, 128, 120), 0.75 * eye * canvas.spot(side * 0.283, 0.040, 0.035, 0.03))

    dx, dy = canvas.x - side * 0.5, canvas.y + 0 * canvas.x
    radius, angle = np.hypot(dx, dy) / 0.104, np.arctan2(dy, dx)
    fibres = np.interp(angle, np.linspace(-np.pi, np.pi, 121), rng.normal(0, 0.12, 121))
    tone = 0.58 + 0.62 * np.exp(-(((radius - 0.55) / 0.24) ** 2)) * (1 + fibres)
    tone *= 1 - 0.72 * np.clip((radius - 0.78) / 0.2, 0, 1)
    tone *= 0.86 + 0.30 * np.clip(dy / 0.104, -1, 1)
    iris = np.clip(tone[..., None] * np.array(palette.iris), 0, 255)
    canvas.paint(iris, eye * np.clip((1 - radius) / 0.06, 0, 1))
    canvas.paint((14, 10, 10), eye * np.clip((0.43 - radius) / 0.07, 0, 1))
    overhang = canvas.stroke(shifted(upper, 0, 0.018), (0.02, 0.075, 0.075, 0.03), 0.018)
    canvas.shade(0.62 * eye * overhang, (70, 46, 50))
    spark = np.clip(1.6 - np.hypot(dx + 0.036, dy + 0.034) / 0.015, 0, 1)
    canvas.glow(0.95 * eye * spark, (255, 255, 255))
    canvas.glow(0.28 * eye * canvas.spot(side * 0.5 + 0.038, 0.046, 0.026, 0.018), (220, 236, 255))

    dark = 0.5 * np.array(palette.hair)
    crease = curve(
        (0.258, 0.0), (0.35, -0.100), (0.47, -0.160), (0.60, -0.156), (0.71, -0.094), (0.785, -0.02)
    )
    canvas.shade(0.50 * canvas.stroke(crease, (0.006, 0.022, 0.026, 0.008), 0.013), shadow)
    lid = canvas.fill(np.concatenate((upper, crease[::-1])), blur=0.014) * (1 - eye)
    canvas.shade(0.16 * lid, shadow)
    canvas.glow(0.15 * lid * canvas.spot(side * 0.50 - 0.02, -0.118, 0.10, 0.03))
    canvas.paint(dark, 0.90 * canvas.stroke(upper, (0.008, 0.020, 0.028, 0.034, 0.012), 0.005))
    lashes = []
    for t in np.linspace(0.35, 1.0, 20):
        root = upper[int(t * (len(upper) - 1))]
        reach = rng.uniform(0.75, 1.1) * np.array([side * (0.13 * t - 0.045), -0.018 - 0.034 * t])
        bend = root + (0.55, 0.30) * reach
        lashes.append(ribbon(spline([root, bend, root + reach], steps=8), (0.011, 0.009, 0.002)))
    canvas.paint(dark, 0.62 * canvas.fill(*lashes, blur=0.003))
    canvas.shade(
        0.20 * canvas.stroke(shifted(lower, 0, 0.060), (0.01, 0.04, 0.04, 0.01), 0.026), shadow
    )
    canvas.glow(0.26 * canvas.stroke(shifted(lower, 0, 0.010), (0.004, 0.014, 0.014, 0.004), 0.006))
    canvas.shade(
        0.55 * canvas.stroke(shifted(lower, 0, 0.020), (0.004, 0.008, 0.014, 0.010), 0.008), shadow
    )


def draw_brow(canvas: Canvas, palette: Palette, side: int, rng: np.random.Generator) -> None:
    low = [(0.205, -0.235), (0.40, -0.292), (0.60, -0.325), (0.77, -0.292), (0.90, -0.200)]
    high = [(0.215, -0.335), (0.40, -0.392), (0.60, -0.415), (0.77, -0.348), (0.90, -0.200)]
    low, high = (spline(np.multiply(line, (side, 1))) for line in (low, high))
    dark = np.array(palette.hair, np.float64)
    canvas.paint(dark, 0.50 * canvas.fill(np.concatenate((low, high[::-1])), blur=0.026))
    for tone in (0.75, 1.0, 1.2, 1.5):
        hairs = []
        for _ in range(70):
            t, across = rng.uniform(0, 0.97), rng.uniform(0.05, 0.95)
            i = int(t * (len(low) - 1))
            ahead = min(i + 9 + int(8 * t), len(low) - 1)
            target = across + (0.50 * (1 - t) ** 2 if t < 0.5 else 0.25 * (0.5 - across))
            start = low[i] * (1 - across) + high[i] * across
            end = low[ahead] * (1 - target) + high[ahead] * target
            bow = spline([start, (start + end) / 2 - (0, 0.006), end], steps=8)
            hairs.append(ribbon(bow, (0.009, 0.009, 0.001)))
        canvas.paint(np.minimum(dark * tone, 255), 0.42 * canvas.fill(*hairs, blur=0.003))


def draw_mouth(canvas: Canvas, palette: Palette) -> Points:
    """Closed lips; returns their seam (n, 2) from corner to corner."""
    shadow, lip = palette.shadow, np.array(palette.lip, np.float64)
    seam = spline(mirrored(SEAM))
    top = spline(mirrored([SEAM[0], (-0.24, 0.992), (-0.095, 0.945), (0, 0.962)]))
    bottom = spline(mirrored([SEAM[0], (-0.26, 1.145), (-0.12, 1.207), (0, 1.217)]))
    upper = canvas.fill(np.concatenate((top, seam[::-1])), blur=0.010)
    lower = canvas.fill(np.concatenate((seam, bottom[::-1])), blur=0.012)
    skin = canvas.picture @ np.array([0.3, 0.59, 0.11], np.float32) / np.mean(palette.skin)
    canvas.paint(0.86 * lip, 0.80 * upper)
    canvas.paint(np.minimum(1.10 * lip + 6, 255), 0.76 * lower)
    lips = np.clip(upper + lower, 0, 1)
    canvas.picture *= (1 + 0.55 * lips * (np.clip(skin, 0.5, 1.25) - 1))[..., None]
    canvas.shade(0.36 * lower * canvas.stroke(bottom, 0.05, 0.022), shadow)
    canvas.shade(0.34 * lower * canvas.stroke(shifted(seam, 0, 0.025), 0.05, 0.016), shadow)
    for x, y, width, height, amount in (
        (-0.09, 1.135, 0.11, 0.026, 0.30),
        (0.10, 1.140, 0.07, 0.022, 0.14),
        (-0.13, 1.000, 0.07, 0.018, 0.12),
    ):
        canvas.glow(amount * lips * canvas.spot(x, y, width, height), (255, 226, 220))
    canvas.glow(0.20 * canvas.stroke(top - (0.004, 0.014), (0.0, 0.016, 0.016, 0.0), 0.010))
    taper = (0.006, 0.015, 0.014, 0.017, 0.014, 0.015, 0.006)
    canvas.shade(0.86 * canvas.stroke(seam, taper, 0.005), (74, 22, 26))
    canvas.shade(0.45 * canvas.spots(0.392, 1.030, 0.026, 0.024), (96, 42, 36))
    canvas.shade(0.28 * canvas.spot(0.02, 1.280, 0.19, 0.042), shadow)
    return seam


def draw_back_hair(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> None:
    """What falls behind the neck and the shoulders."""
    left = [
        (0, -1.60), (-0.62, -1.48), (-1.08, -1.05), (-1.26, -0.5), (-1.32, 0.1), (-1.35, 0.7),
        (-1.45, 1.25), (-1.44, 1.75), (-1.56, 2.2), (-1.40, 2.7), (0, 2.4),
    ]  # fmt: skip
    colours = (palette.hair, palette.hair_light)
    hair = canvas.fill(spline(mirrored(left)), blur=0.014)
    canvas.paint(0.6 * np.array(palette.hair), hair)
    for side in (-1, 1):
        guides = [
            [(0.50, 0.3), (0.60, 1.0), (0.55, 1.4), (0.64, 1.8), (0.60, 2.5)],
            [(0.92, 0.2), (0.98, 0.9), (0.94, 1.4), (1.00, 1.8), (0.96, 2.55)],
            [(1.16, -0.2), (1.20, 0.6), (1.28, 1.25), (1.26, 1.7), (1.36, 2.5)],
            [(1.25, -0.5), (1.33, 0.5), (1.45, 1.25), (1.43, 1.7), (1.56, 2.5)],
        ]
        canvas.strands(np.multiply(guides, (side, 1)), colours, 1300, rng)
    depth = 0.80 - 0.9 * (np.abs(canvas.x) - 0.60) + 0.12 * canvas.x + 0 * canvas.y
    canvas.shade(hair * np.clip(depth, 0.05, 0.9), (30, 16, 14))
    canvas.glow(0.30 * hair * canvas.spot(-1.32, 1.15, 0.14, 0.35), palette.hair_light)
    canvas.glow(0.12 * hair * canvas.spot(1.32, 1.15, 0.12, 0.35), palette.hair_light)


def draw_front_hair(
    canvas: Canvas, palette: Palette, face: Array, rng: np.random.Generator
) -> None:
    """Side-parted hair combed back behind the ears, fading into the back hair below them."""
    behind, colours = canvas.picture.copy(), (palette.hair, palette.hair_light)
    part, crown = (-0.36, -1.00), (-0.20, -1.70)
    lines = [
        [part, (0.05, -0.975), (0.50, -0.85), (0.85, -0.56), (1.01, -0.18),
         (1.10, 0.10), (1.09, 0.6), (1.16, 1.3)],
        [part, (-0.58, -0.89), (-0.80, -0.68), (-0.95, -0.42), (-1.03, -0.16),
         (-1.10, 0.10), (-1.09, 0.6), (-1.16, 1.3)],
    ]  # fmt: skip
    edges = [
        [crown, (0.36, -1.70), (0.86, -1.44), (1.19, -0.95), (1.30, -0.40),
         (1.33, 0.10), (1.36, 0.7), (1.46, 1.3)],
        [crown, (-0.58, -1.60), (-0.94, -1.33), (-1.19, -0.90), (-1.29, -0.40),
         (-1.33, 0.10), (-1.36, 0.7), (-1.46, 1.3)],
    ]  # fmt: skip
    hair = np.zeros_like(face)
    for line, edge, count in zip(lines, edges, (3400, 2800), strict=True):
        mass = np.concatenate((spline(line), spline(edge)[::-1]))
        hair = np.maximum(hair, canvas.fill(mass, blur=0.012))
        cast = canvas.fill(shifted(mass, 0.03, 0.05), blur=0.05)
        canvas.shade(0.55 * face * cast, palette.shadow)
        canvas.paint(0.8 * np.array(palette.hair), canvas.fill(mass, blur=0.018))
        a, b = np.array(line), np.array(edge)
        bulge = np.array([0, 0.3, 0.8, 1.0, 0.8, 0.5, 0.8, 0.5])[:, None]
        guides = [
            a + (b - a) * t + 0.025 * bulge * np.sin(9 * t) for t in np.linspace(-0.01, 1.01, 8)
        ]
        canvas.strands(guides, colours, count, rng)
        loose = [a + (b - a) * t for t in (-0.035, 0.02)], [a + (b - a) * t for t in (0.98, 1.03)]
        for pair in loose:
            canvas.strands(pair, colours, 14, rng)
    ring = np.hypot(canvas.x / 1.25, (canvas.y - 0.1) / 1.74)
    shine = np.exp(-(((ring - 0.80) / 0.085) ** 2)) * np.clip(0.75 - 0.45 * canvas.x, 0, 1)
    canvas.glow(0.50 * hair * shine, palette.hair_light)
    canvas.shade(0.50 * hair * np.clip((ring - 0.88) / 0.14, 0, 1), (40, 24, 22))
    parting = spline([part, (-0.30, -1.3), crown])
    canvas.shade(0.45 * canvas.stroke(parting, (0.06, 0.04, 0.01), 0.018), (40, 22, 18))
    scalp = 0.6 * np.array(palette.skin) + 0.4 * np.array(palette.hair)
    canvas.paint(scalp, 0.55 * canvas.stroke(parting, (0.018, 0.012, 0.0), 0.006))
    fade = np.clip((canvas.y - 0.45) / 0.6, 0, 1) + 0 * canvas.x
    canvas.paint(behind, fade)


def draw(palette: Palette) -> tuple[NDArray[np.uint8], dict[str, object]]:
    """The portrait, uint8 (512, 512, 3) RGB, and its landmarks in pixels."""
    rng = np.random.default_rng(7)
    canvas = Canvas(palette.background)
    draw_background(canvas)
    draw_back_hair(canvas, palette, rng)
    draw_body(canvas, palette)
    face = draw_skin(canvas, palette, rng)
    draw_nose(canvas, palette)
    seam = draw_mouth(canvas, palette)
    for side in (-1, 1):
        draw_eye(canvas, palette, side, rng)
        draw_brow(canvas, palette, side, rng)
    draw_front_hair(canvas, palette, face, rng)
    draw_ears(canvas, palette, face)
    shapes = {
        "pupils": [(-0.5, 0), (0.5, 0)],
        "mouth": SEAM[-1],
        "corners": [seam[0], seam[-1]],
        "chin": CHIN,
        "seam": seam[:: len(seam) // 24],
    }
    landmarks = {name: np.round(to_pixels(np.array(p)), 2).tolist() for name, p in shapes.items()}
    return canvas.finished(), landmarks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--palette", choices=PALETTES, default="amber")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    picture, landmarks = draw(PALETTES[arguments.palette])
    cv2.imwrite(str(arguments.output / "portrait.png"), picture[..., ::-1])
    (arguments.output / "portrait.json").write_text(json.dumps(landmarks) + "\n")


if __name__ == "__main__":
    main()
