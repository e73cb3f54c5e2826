"""Drawings for the page as SVG: a waveform with what is asked for when, and lip curves.

They take the page's own colours, light or dark, and stretch to its width; narrower ones scroll.
"""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.control.timeline import Entry
from moda_cli.media.waves import Wave

WIDTH, WAVE, LANE, TIMES = 1000, 90, 26, 22  # units of the drawings
KINDS = {  # of entries, each with a lane of its own: columns of a timeline's file
    "emotion": ("emotion", "intensity"),
    "gaze": ("gaze_x", "gaze_y"),
    "pose": ("pitch", "yaw", "roll"),
}
LANE_INKS = ("#d9730d", "#0f7b6c", "#3b6fd4")
INKS = ("#d9730d", "#3b6fd4")
CURVE = 140
COLUMNS = 500  # of a waveform


def timeline_drawing(wave: Wave, entries: Sequence[Entry], emotions: Sequence[str]) -> str:
    """The sound (N,) at 16 kHz over a lane for each kind of entry.

    emotions: names by class, as entries hold them.
    """
    duration = max(len(wave) / SAMPLE_RATE, 1 / FPS)
    parts = [_wave(wave)]
    for row, ((lane, tracks), ink) in enumerate(zip(KINDS.items(), LANE_INKS, strict=True)):
        top = WAVE + row * LANE
        parts.append(_text(4, top + 17, lane, "opacity='.6'"))
        for entry in entries:
            asked = {track: entry.values[track] for track in tracks if track in entry.values}
            if asked and entry.at < duration:
                words = ", ".join(_said(track, value, emotions) for track, value in asked.items())
                parts.append(_bar(entry, duration, top, ink, words))
    height = WAVE + len(KINDS) * LANE + TIMES
    parts += _times(duration, height)
    return _svg(height, parts, f"Waveform of {duration:.1f} seconds, {len(entries)} entries")


def curves_drawing(curves: Sequence[NDArray[np.float64]], names: Sequence[str]) -> str:
    """Two curves (T,) at 25 fps on one axis, and a line that a script moves with the time."""
    duration = max(len(curve) for curve in curves) / FPS
    low = min(0.0, *(float(curve.min()) for curve in curves))
    high = max(0.05, *(float(curve.max()) for curve in curves))
    parts = [_line(0, y := CURVE * high / (high - low), WIDTH, y, "opacity='.3'")]
    for row, (curve, name, ink) in enumerate(zip(curves, names, INKS, strict=True)):
        x = np.arange(len(curve)) / FPS / duration * WIDTH
        y_of = CURVE * (high - curve) / (high - low)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y_of, strict=True))
        parts.append(f"<polyline points='{points}' fill='none' stroke='{ink}' stroke-width='2'/>")
        parts.append(_text(WIDTH - 6, 16 + 18 * row, name, f"fill='{ink}' text-anchor='end'"))
    parts += _times(duration, CURVE + TIMES)
    parts.append(_line(0, 0, 0, CURVE, "class='now' stroke-width='2'"))
    return _svg(CURVE + TIMES, parts, f"Opening of the lips of {' and '.join(names)}")


def _svg(height: float, parts: Iterable[str], label: str) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height:g}' role='img' aria-label='{html.escape(label)}'"
        " width='100%' style='display:block;min-width:640px' fill='currentColor' font-size='14'"
        f" font-family='system-ui, sans-serif'>{''.join(parts)}</svg>"
    )


def _wave(wave: Wave) -> str:
    """Lowest and highest sample of every column."""
    if not len(wave):
        return ""
    edges = np.unique(np.linspace(0, len(wave), COLUMNS, endpoint=False).astype(int))
    tops, bottoms = np.maximum.reduceat(wave, edges), np.minimum.reduceat(wave, edges)
    middle, reach = WAVE / 2, WAVE / 2 - 4
    x = edges / len(wave) * WIDTH
    strokes = "".join(
        f"M{a:.1f} {middle - reach * float(high):.1f}V{middle - reach * float(low) + 0.5:.1f}"
        for a, high, low in zip(x, tops, bottoms, strict=True)
    )
    return f"<path d='{strokes}' stroke='currentColor' stroke-width='1.4' opacity='.5'/>"


def _bar(entry: Entry, duration: float, top: float, ink: str, words: str) -> str:
    x = entry.at / duration * WIDTH
    width = min(entry.until, duration) / duration * WIDTH - x
    shape = f"<rect x='{x:.1f}' y='{top + 3}' width='{max(width, 3):.1f}' height='{LANE - 6}'"
    fill = f" rx='4' fill='{ink}' opacity='.25'/>"
    beside = max(x + 6, 66)  # of the lane's name
    return f"{shape}{fill}{_line(x, 0, x, top + LANE - 3, '')}{_text(beside, top + 17, words, '')}"


def _said(track: str, value: object, emotions: Sequence[str]) -> str:
    if track == "emotion" and isinstance(value, tuple):
        label, share = value
        return emotions[label] if share == 1 else f"{emotions[label]} {share:g}"
    return f"{track} {value:g}" if isinstance(value, int | float) else track


def _times(duration: float, height: float) -> list[str]:
    step = next(s for s in (0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 600) if duration / s <= 14)
    moments = [step * k for k in range(math.floor(duration / step) + 1)]
    return [_text(m / duration * WIDTH, height - 6, f"{m:g}", "opacity='.7'") for m in moments]


def _line(x: float, y: float, to_x: float, to_y: float, more: str) -> str:
    ends = f"x1='{x:.1f}' y1='{y:.1f}' x2='{to_x:.1f}' y2='{to_y:.1f}'"
    return f"<line {ends} stroke='currentColor' {more}/>"


def _text(x: float, y: float, words: str, more: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{html.escape(words)}</text>"
