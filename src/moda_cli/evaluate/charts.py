"""Small SVG charts, coloured by the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, LEFT, RIGHT = 340, 80, 22  # pixels
ROOM = 40  # characters of an axis

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from below `low` to above `high`."""
    span = high - low
    if span < 1e-6:
        span = abs(high) if abs(high) > 1e-6 else 1.0
    raw = span / about
    power = 10.0 ** floor(log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def spelled(value: float, step: float) -> str:
    """A tick's number, of as many digits as the steps need."""
    steps = (step * 10**digits for digits in range(20))
    digits = next(d for d, x in enumerate(steps) if round(x) and abs(x - round(x)) < 1e-6 * x)
    return f"{value + 0.0:.{digits}f}"


@dataclass(frozen=True, slots=True)
class Dot:
    """A clip's value, with its name and the place on the page that a click leads to."""

    value: float
    name: str
    place: str


def strips(
    rows: Sequence[tuple[str, Sequence[Dot], float, tuple[float, float]]], about: str
) -> str:
    """A dot per clip on one line per side, with the mean and, of several clips, its interval.

    rows: name, dots, mean, interval.
    """
    values = [
        v for _, dots, mean, bounds in rows for v in (*(d.value for d in dots), mean, *bounds)
    ]
    marks = ticks(min(values), max(values))
    if sum(len(spelled(mark, marks[1] - marks[0])) + 2 for mark in marks) > ROOM:
        marks = ticks(min(values), max(values), 2)
    height = 26 + 46 * len(rows)
    x = Scale(marks[0], marks[-1], LEFT, WIDTH - RIGHT)
    parts = _x_axis(marks, x, height)
    for row, (name, points, mean, (low, high)) in enumerate(rows):
        y = 26 + 46 * row
        kind = "ours" if row == 0 else "real"
        parts.append(f'<text class="name" x="{LEFT - 10}" y="{y + 4}">{escape(name)}</text>')
        parts.append(f'<path class="rule" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        for k, dot in enumerate(points):
            spread = (k * 7 % 11 - 5) * 1.5
            told = f"<title>{escape(dot.name)}: {dot.value:.4g}</title>"
            parts.append(
                f'<a href="#{dot.place}"><circle class="dot {kind}" cx="{x(dot.value):.1f}"'
                f' cy="{y + spread:.1f}" r="3.2">{told}</circle></a>'
            )
        if len(points) > 1:
            line = f"M{x(low):.1f} {y + 15}H{x(high):.1f}"
            parts.append(f'<path class="interval {kind}" d="{line}"/>')
        parts.append(f'<circle class="mean {kind}" cx="{x(mean):.1f}" cy="{y + 15}" r="4"/>')
    return _svg(parts, height, about)


def bars(counts: Sequence[tuple[int, int]], unit: str, about: str) -> str:
    """A histogram: (value, count), one bar per whole value."""
    height = 190
    top = ticks(0, max(count for _, count in counts), 3)
    top = [t for t in top if t == int(t)]
    y = Scale(0, top[-1], height - 40, 12)
    first, last = counts[0][0], counts[-1][0]
    x = Scale(first - 0.5, last + 0.5, 40, WIDTH - RIGHT)
    step = x(1) - x(0)
    parts = []
    for mark in top:
        parts.append(f'<path class="grid" d="M40 {y(mark):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="name" x="32" y="{y(mark) + 4:.1f}">{mark:.0f}</text>')
    for value, count in counts:
        left, bottom = x(value) - step * 0.42, y(0)
        if count:
            parts.append(
                f'<rect class="bar" x="{left:.1f}" y="{y(count):.1f}" width="{step * 0.84:.1f}"'
                f' height="{bottom - y(count):.1f}"><title>{value}: {count}</title></rect>'
            )
        if value % 5 == 0:
            lag = f"{value:+d}" if value else "0"
            parts.append(f'<text class="tick" x="{x(value):.1f}" y="{height - 24}">{lag}</text>')
    middle = (40 + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:.0f}" y="{height - 6}">{escape(unit)}</text>')
    return _svg(parts, height, about)


def lines(clips: Sequence[Line], mean: Line, unit: str, about: str) -> str:
    """Thin lines for clips and a thick one for their mean, over seconds."""
    height = 200
    values = [v for points in (*clips, mean) for _, v in points]
    marks = ticks(min(values), max(values), 4)
    times = [t for points in (*clips, mean) for t, _ in points]
    hours = ticks(0, max(max(times), 1), 5)
    y = Scale(marks[0], marks[-1], height - 40, 12)
    x = Scale(0, max(max(times), 1), 56, WIDTH - RIGHT)
    parts = []
    for mark in marks:
        text = spelled(mark, marks[1] - marks[0])
        parts.append(f'<path class="grid" d="M56 {y(mark):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="name" x="48" y="{y(mark) + 4:.1f}">{text}</text>')
    for mark in hours:
        if mark <= x.high:
            text = spelled(mark, hours[1] - hours[0])
            parts.append(f'<text class="tick" x="{x(mark):.1f}" y="{height - 24}">{text}</text>')
    for points in clips:
        parts.append(_path(points, x, y, "clip"))
    parts.append(_path(mean, x, y, "all"))
    middle = (56 + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:.0f}" y="{height - 6}">{escape(unit)}</text>')
    return _svg(parts, height, about)


def _path(points: Line, x: Scale, y: Scale, kind: str) -> str:
    if len(points) == 1:
        ((time, value),) = points
        return f'<circle class="{kind}" cx="{x(time):.1f}" cy="{y(value):.1f}" r="2.5"/>'
    steps = "L".join(f"{x(time):.1f} {y(value):.1f}" for time, value in points)
    return f'<path class="line {kind}" d="M{steps}"/>'


def _x_axis(marks: Sequence[float], x: Scale, height: int) -> list[str]:
    parts = []
    for mark in marks:
        text = spelled(mark, marks[1] - marks[0])
        parts.append(f'<path class="grid" d="M{x(mark):.1f} 8V{height - 22}"/>')
        parts.append(f'<text class="tick" x="{x(mark):.1f}" y="{height - 6}">{text}</text>')
    return parts


def _svg(parts: Sequence[str], height: int, about: str) -> str:
    label = escape(about, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )
