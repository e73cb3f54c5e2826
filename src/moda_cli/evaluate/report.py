"""One HTML file that shows what was measured, and the clips themselves."""

import base64
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np

from moda_cli.config import FPS
from moda_cli.evaluate import charts
from moda_cli.evaluate.columns import COLUMNS, PAPER, Column
from moda_cli.evaluate.results import Results
from moda_cli.evaluate.tables import (
    ARROWS,
    cell_interval,
    dataset_title,
    left_out_groups,
    number,
    other_columns,
    paper_columns,
    paper_rows,
    title,
    unmeasured,
)

TEMPLATE = Path(__file__).parents[1] / "assets" / "report.html"
EMBED_CLIP, EMBED_ALL = 3_000_000, 24_000_000  # bytes of video in the page; more is linked
TYPES = {".mp4": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/webm"}
BY_KEY = {column.key: column for column in COLUMNS}
WORST_BY = ("sync_c", "lip_sync", "f_sim")  # what players are ordered by at first, if there
PLAYED = (*PAPER, "offset", "lip_sync")  # said under a player; the table below has all
OFFSETS = 15  # frames, on both sides of the histogram


def html(results: Results, folder: Path) -> str:
    """The page, to be written into `folder`: longer clips are linked relative to it."""
    skipped = {row["id"] for row in results["left_out"] if row["metric"] is None}
    facts = [
        f"{len(results['clips'])} clips measured",
        *([f"{len(skipped)} left out"] if skipped else []),
        f"{sum(clip['frames'] for clip in results['clips'])} frames",
        results["device"],
        f"moda {results['versions']['moda']}",
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{results['label']} on {dataset_title(results)}"),
        label=escape(results["label"]),
        dataset=escape(dataset_title(results)),
        facts="".join(f"<li>{escape(fact)}</li>" for fact in facts),
        table=_paper_table(results),
        remarks=_remarks(results),
        others=_other_table(results),
        charts=_charts(results),
        sorter=_sorter(results),
        players=_players(results, folder),
        clips=_clip_table(results),
        left_out=_left_out(results["left_out"]),
        details=_details(results),
    )


def _paper_table(results: Results) -> str:
    columns = paper_columns(results)
    if not columns:
        return '<p class="note">None of the paper’s metrics was measured.</p>'
    head = "".join(f"<th title='{escape(c.about)}'>{escape(title(c))}</th>" for c in columns)
    lines = []
    for row in paper_rows(results):
        cells = "".join(_cell(c, row.cells.get(c.key)) for c in columns)
        kind = "ours" if row.name == results["label"] else "real" if row.measured else "paper"
        lines.append(f'<tr class="{kind}"><th>{escape(row.name)}</th>{cells}</tr>')
    return _table(f"<th>Method</th>{head}", lines)


def _cell(column: Column, cell: dict[str, Any] | None) -> str:
    if cell is None:
        return '<td class="none">–</td>'
    text = number(column, cell["value"])
    if "clips" not in cell:
        return f"<td>{text}</td>"
    count = f"{cell['clips']} clips"
    if "samples" in cell:
        count += f", {cell['samples']} samples"
    bounds = cell_interval(column, cell)
    small = f"<small>{bounds[0]} to {bounds[1]}</small>" if bounds else ""
    return f'<td title="{count}"><b>{text}</b>{small}</td>'


def _table(head: str, lines: Sequence[str], kind: str = "") -> str:
    body = "".join(lines)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _remarks(results: Results) -> str:
    lines = [
        f"<b>{', '.join(names)}</b>: {status}, {_code(reason)}"
        for (status, reason), names in unmeasured(results).items()
    ]
    lines += [escape(note) for note in results["notes"]]
    return "".join(f'<p class="note">{line}</p>' for line in lines)


def _code(text: str) -> str:
    """Text whose `commands` are marked."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if k % 2 else part for k, part in enumerate(parts))


def _other_table(results: Results) -> str:
    columns = other_columns(results)
    if not columns:
        return ""
    has_real = any(c.key in results["summary"]["reference"] for c in columns)
    lines = []
    for column in columns:
        cells = _cell(column, results["summary"]["generated"].get(column.key))
        if has_real:
            cells += _cell(column, results["summary"]["reference"].get(column.key))
        unit = f" <small>{column.unit}</small>" if column.unit else ""
        lines.append(
            f"<tr><th>{escape(column.title)} {ARROWS[column.better]}{unit}</th>{cells}"
            f'<td class="about">{escape(column.about)}</td></tr>'
        )
    real = "<th>Real clips</th>" if has_real else ""
    head = f'<th>Measure</th><th>{escape(results["label"])}</th>{real}<th class="about"></th>'
    return f"<h2>Beyond the paper</h2>{_table(head, lines)}"


def _charts(results: Results) -> str:
    figures = []
    for column in COLUMNS:
        rows = []
        for side, name in (("generated", "generated"), ("reference", "real")):
            values = [charts.Dot(c["values"][side][column.key], c["id"], f"clip-{number}")
                      for number, c in enumerate(results["clips"])
                      if column.key in c["values"][side]]  # fmt: skip
            cell = results["summary"][side].get(column.key)
            if values and cell:
                rows.append((name, values, cell["value"], (cell["low"], cell["high"])))
        if rows and column.key != "offset":
            drawn = charts.strips(rows, f"{column.title} of every clip")
            figures.append(_figure(title(column), column.about, drawn))
    offsets = [c["values"]["generated"]["offset"] for c in results["clips"]
               if "offset" in c["values"]["generated"]]  # fmt: skip
    if offsets:
        counts = Counter(round(value) for value in offsets)
        rows_of = [(k, counts.get(k, 0)) for k in range(-OFFSETS, OFFSETS + 1)]
        drawn = charts.bars(rows_of, "frames", "Histogram of sync offsets")
        figures.append(_figure("Sync offset", "clips by the lag of picture behind sound", drawn))
    figures += [figure for key, name in _over_time(results).items()
                if (figure := _drift(results, key, name))]  # fmt: skip
    return "".join(figures)


def _over_time(results: Results) -> dict[str, str]:
    keys = dict.fromkeys(key for clip in results["clips"] for key in clip["over_time"])
    return {key: BY_KEY[key].title if key in BY_KEY else key for key in keys}


def _drift(results: Results, key: str, name: str) -> str:
    clips = [
        [(t + 0.5, v) for t, v in enumerate(clip["over_time"].get(key, [])) if v is not None]
        for clip in results["clips"]
    ]
    clips = [points for points in clips if points]
    if not clips:
        return ""
    times = sorted({t for points in clips for t, _ in points})
    mean = [(t, float(np.mean([v for p in clips for s, v in p if s == t]))) for t in times]
    drawn = charts.lines(clips, mean, "seconds into the clip", f"{name} over time")
    return _figure(f"{name} over time", "a thin line per clip, their mean thick", drawn)


def _figure(name: str, about: str, drawn: str) -> str:
    return (
        f"<figure><figcaption><b>{escape(name)}</b><span>{escape(about)}</span></figcaption>"
        f"{drawn}</figure>"
    )


def _orders(results: Results) -> list[Column]:
    """The columns by which clips can be told to be better or worse, the first one to begin with."""
    per_clip = [
        column
        for column in COLUMNS
        if column.better and any(column.key in c["values"]["generated"] for c in results["clips"])
    ]
    return sorted(per_clip, key=lambda column: column.key not in WORST_BY)


def _worst_first(results: Results) -> list[tuple[int, dict[str, Any]]]:
    """The clips with their numbers; those without a value last."""
    clips = list(enumerate(results["clips"]))
    if not (orders := _orders(results)):
        return clips
    first, sign = orders[0], 1 if orders[0].better == "high" else -1

    def badness(numbered: tuple[int, dict[str, Any]]) -> tuple[bool, float]:
        value = numbered[1]["values"]["generated"].get(first.key)
        return value is None, sign * (value or 0)

    return sorted(clips, key=badness)


def _sorter(results: Results) -> str:
    """What players are sorted by: a choice, worst first."""
    options = "".join(
        f'<option value="{c.key}" data-better="{c.better}">{escape(c.title)}</option>'
        for c in _orders(results)
    )
    if not options or len(results["clips"]) < 2:
        return ""
    return f'<label>worst first by <select id="order">{options}</select></label>'


def _players(results: Results, folder: Path) -> str:
    left = EMBED_ALL
    cards = []
    for index, clip in _worst_first(results):
        videos = []
        for name, key in (("generated", "generated"), ("real", "reference")):
            if clip[key] is None:
                continue
            source, used = _source(Path(clip[key]), folder, left)
            left -= used
            if key == "reference" and clip["first_frame"]:
                source += f"#t={clip['first_frame'] / FPS:g}"  # where its window begins
            videos.append(
                f"<div><video controls playsinline preload=metadata"
                f' src="{source}"></video><small>{name}</small></div>'
            )
        values = clip["values"]["generated"]
        shown = [c for c in COLUMNS if c.key in PLAYED and c.key in values]
        told = "".join(
            f"<span>{escape(c.title)} <b>{number(c, values[c.key])}</b></span>" for c in shown
        )
        kept = escape(json.dumps({c.key: values.get(c.key) for c in _orders(results)}))
        both = '<button type="button">Play both</button>' if len(videos) > 1 else ""
        cards.append(
            f'<article id="clip-{index}" data-values="{kept}"><header>'
            f"<b>{escape(clip['id'])}</b>{both}</header>"
            f'<div class="pair">{"".join(videos)}</div><p class="values">{told}</p></article>'
        )
    return "".join(cards)


def _source(path: Path, folder: Path, left: int) -> tuple[str, int]:
    """What a player shows: the clip itself if it is small, else a link to it."""
    size = path.stat().st_size
    kind = TYPES.get(path.suffix.lower())
    if kind and size <= min(EMBED_CLIP, left):
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}", size
    relative = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return escape(quote(relative)), 0


def _clip_table(results: Results) -> str:
    columns = [
        c for c in COLUMNS
        if any(c.key in clip["values"]["generated"] for clip in results["clips"])
    ]  # fmt: skip
    lines = []
    for index, clip in _worst_first(results):
        values = clip["values"]["generated"]
        cells = "".join(
            f"<td>{number(c, values[c.key])}</td>" if c.key in values else '<td class="none">–</td>'
            for c in columns
        )
        link = f'<a href="#clip-{index}">{escape(clip["id"])}</a>'
        lines.append(f"<tr><th>{link}</th><td>{clip['frames']}</td>{cells}</tr>")
    head = "".join(f"<th>{escape(title(c))}</th>" for c in columns)
    return _table(f"<th>Clip</th><th>Frames</th>{head}", lines, "sortable")


def _left_out(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each reason, with the clips it holds for."""
    lines = [
        f"<tr><th>{len(ids)}</th>"
        f"<td class='about'>{escape(metric or 'everything')}</td>"
        f"<td class='about'>{side}</td><td class='about'>{escape(reason)}</td>"
        f"<td class='about'>{escape(', '.join(ids))}</td></tr>"
        for (metric, side, reason), ids in left_out_groups(rows).items()
    ]
    names = ("Left out of", "Side", "Reason", "Clips")
    head = "<th>Count</th>" + "".join(f"<th class='about'>{name}</th>" for name in names)
    return f"<h2>Left out</h2>{_table(head, lines)}" if lines else ""


def _details(results: Results) -> str:
    weights = "".join(
        f"<tr><th>{escape(name)}</th><td class='about'>{escape(row['source'])}<br>"
        f"<code>sha256 {row['sha256']}</code></td></tr>"
        for name, row in results["weights"].items()
    )
    versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    blocks = [("Protocol", _named(results["protocol"]))]
    if results["generation"]:
        blocks.append(("How the clips were made", _named(results["generation"])))
    if weights:
        blocks.append(("Weights", f"<table>{weights}</table>"))
    blocks.append(("Versions", f"<p>{escape(versions)}</p>"))
    return "".join(
        f"<details><summary>{name}</summary><div class='wide'>{body}</div></details>"
        for name, body in blocks
    )


def _named(values: Mapping[str, str | int]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th><td class='about'>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"
