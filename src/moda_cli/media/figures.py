"""Figures drawn with OpenCV: the contact sheet of `--preview` and the curves of `--plot`."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.media.pictures import Picture
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode

Colour = tuple[int, int, int]

SHEET_WIDTH = 1600  # pixels, at most
LABEL_HEIGHT = 28
FONT = cv2.FONT_HERSHEY_SIMPLEX
INK, FAINT, WAVE_INK = (45, 45, 50), (228, 228, 232), (120, 130, 150)
CURVE_INKS: tuple[Colour, ...] = ((31, 119, 180), (214, 96, 30), (44, 140, 60), (170, 60, 130))

PLOT_WIDTH, LEFT, RIGHT, GAP = 1500, 90, 150, 42  # pixels; names stand right of the curves
WAVE_HEIGHT, PANEL_HEIGHT, TITLE_HEIGHT, TIME_HEIGHT = 110, 170, 30, 44
PANELS = {  # articulators that share an axis, in the units of motion.DIRECTION_TABLE
    "mouth": ("jaw", "spread", "round"),
    "smile": ("smile",),
    "lids": ("lid_a", "lid_b"),
    "brows": ("brow_up", "brow_frown"),
}
HEAD = ("pitch", "yaw", "roll")  # degrees


def contact_sheet(frames: Sequence[Picture], columns: int, labels: Sequence[str]) -> Picture:
    """Frames (H, W, 3) of one size in rows of `columns`, each over its label; at most 1600 wide."""
    height, width = frames[0].shape[:2]
    columns = min(columns, len(frames))
    cell_width = min(width, SHEET_WIDTH // columns)
    cell_height = max(1, round(height * cell_width / width))
    rows = math.ceil(len(frames) / columns)
    pitch = cell_height + LABEL_HEIGHT
    sheet = np.full((rows * pitch, columns * cell_width, 3), 255, np.uint8)
    for index, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        x, y = index % columns * cell_width, index // columns * pitch
        small = cv2.resize(frame, (cell_width, cell_height), interpolation=cv2.INTER_AREA)
        sheet[y : y + cell_height, x : x + cell_width] = small
        _text(sheet, label, x + 6, y + cell_height + 20, INK)
    return sheet


def plot_motion(motion: Tensor, neutral: Tensor, wave: NDArray[np.float32]) -> Picture:
    """The articulators and the pose of a motion (T, 70) over time, under the sound (N,) at 16 kHz.

    All are relative to `neutral` (70).
    """
    articulators = decode((motion - neutral)[:, EXPRESSION].double())
    by_name = dict(zip(ARTICULATORS, articulators.T.numpy(), strict=True))
    panels = {title: {name: by_name[name] for name in names} for title, names in PANELS.items()}
    pose = (motion - neutral)[:, POSE].double().T.numpy()
    panels["head (degrees)"] = dict(zip(HEAD, pose, strict=True))

    duration = max(len(motion) / FPS, len(wave) / SAMPLE_RATE, 1 / FPS)
    height = TITLE_HEIGHT + WAVE_HEIGHT + len(panels) * (GAP + PANEL_HEIGHT) + TIME_HEIGHT
    canvas = np.full((height, PLOT_WIDTH, 3), 255, np.uint8)
    top = TITLE_HEIGHT
    times = _ticks(0, duration, 12)
    _frame(canvas, "sound", top, WAVE_HEIGHT, times, duration)
    _draw_wave(canvas, wave, top, duration)
    top += WAVE_HEIGHT
    for title, curves in panels.items():
        top += GAP
        _frame(canvas, title, top, PANEL_HEIGHT, times, duration)
        _draw_curves(canvas, curves, top, duration)
        top += PANEL_HEIGHT
    for time in times:
        _text(canvas, f"{time:g} s", _column(time, duration) - 14, top + 24, INK)
    return canvas


def _text(canvas: Picture, text: str, x: int, y: int, colour: Colour, scale: float = 0.5) -> None:
    cv2.putText(canvas, text, (x, y), FONT, scale, colour, 1, cv2.LINE_AA)


def _column(time: float, duration: float) -> int:
    return LEFT + round((PLOT_WIDTH - LEFT - RIGHT) * time / duration)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """At most `count` + 1 round numbers from `low` to `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _frame(
    canvas: Picture, title: str, top: int, height: int, times: list[float], duration: float
) -> None:
    """Title, border and time grid of a panel."""
    _text(canvas, title, LEFT, top - 9, INK, 0.6)
    for time in times:
        x = _column(time, duration)
        cv2.line(canvas, (x, top), (x, top + height), FAINT, 1)
    cv2.rectangle(canvas, (LEFT, top), (PLOT_WIDTH - RIGHT, top + height), (160, 160, 165), 1)


def _draw_wave(canvas: Picture, wave: NDArray[np.float32], top: int, duration: float) -> None:
    """Lowest and highest sample of every pixel column."""
    if not len(wave):
        return
    middle, reach = top + WAVE_HEIGHT / 2, WAVE_HEIGHT / 2 - 4
    columns = max(1, _column(len(wave) / SAMPLE_RATE, duration) - LEFT)
    edges = np.linspace(0, len(wave), columns, endpoint=False).astype(int)
    low, high = np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)
    for x, (bottom, peak) in enumerate(zip(low, high, strict=True), start=LEFT):
        ends = [(x, round(middle - reach * float(value))) for value in (bottom, peak)]
        cv2.line(canvas, ends[0], ends[1], WAVE_INK, 1)


def _draw_curves(
    canvas: Picture, curves: dict[str, NDArray[np.float64]], top: int, duration: float
) -> None:
    """Curves on one labelled axis that holds 0, and their names."""
    values = np.stack(list(curves.values()))
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    margin = max(0.08 * (high - low), 0.5)
    low, high = low - margin, high + margin
    scale = PANEL_HEIGHT / (high - low)
    for tick in _ticks(low, high, 5):
        y = round(top + (high - tick) * scale)
        colour = (170, 170, 175) if tick == 0 else FAINT
        cv2.line(canvas, (LEFT + 1, y), (PLOT_WIDTH - RIGHT - 1, y), colour, 1)
        (width, _), _ = cv2.getTextSize(f"{tick:g}", FONT, 0.45, 1)
        _text(canvas, f"{tick:g}", LEFT - 10 - width, y + 5, INK, 0.45)
    x = LEFT + (PLOT_WIDTH - LEFT - RIGHT) * np.arange(values.shape[1]) / FPS / duration
    # a plot may have fewer curves than there are inks
    for row, (name, ink) in enumerate(zip(curves, CURVE_INKS, strict=False)):
        points = np.stack((x, top + (high - values[row]) * scale), axis=1)
        fixed = np.rint(points * 16).astype(np.int32)
        cv2.polylines(canvas, [fixed], False, ink, 2, cv2.LINE_AA, 4)
        y = top + 22 + 26 * row
        cv2.line(canvas, (PLOT_WIDTH - RIGHT + 12, y - 5), (PLOT_WIDTH - RIGHT + 36, y - 5), ink, 3)
        _text(canvas, name, PLOT_WIDTH - RIGHT + 44, y, INK)
