"""The results as tables: beside the paper's published rows, as CSV and as LaTeX."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moda_cli.data.splits import TITLES
from moda_cli.evaluate.columns import COLUMNS, PAPER, Column
from moda_cli.evaluate.evaluation import SIDES
from moda_cli.evaluate.results import Results

PUBLISHED = Path(__file__).parents[1] / "assets" / "published.json"
ARROWS = {"low": "↓", "high": "↑", "": ""}


@dataclass(frozen=True, slots=True)
class TableRow:
    """A line of the paper's table."""

    name: str
    cells: dict[str, dict[str, Any]]  # by column: value, and low and high where measured
    measured: bool = False


def unmeasured(results: Results) -> dict[tuple[str, str], list[str]]:
    """The metrics that were not measured, by their status and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, state in results["metrics"].items():
        if state["status"] != "measured":
            groups.setdefault((state["status"], state["reason"]), []).append(name)
    return groups


def left_out_groups(
    rows: Sequence[Mapping[str, Any]],
) -> dict[tuple[str | None, str, str], list[str]]:
    """The clips left out, by the metric they are left out of (None: of all), side and reason."""
    groups: dict[tuple[str | None, str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row["metric"], row["side"], row["reason"]), []).append(row["id"])
    return groups


def title(column: Column) -> str:
    return f"{column.title} {ARROWS[column.better]}".strip()


def number(column: Column, value: float) -> str:
    return f"{value:z.{column.digits}f}"  # z: no -0.0


def cell_interval(column: Column, cell: dict[str, Any]) -> tuple[str, str] | None:
    """The 95 % interval of a measured value. A published one has none, nor has that of one clip."""
    if cell.get("low") is None or cell["clips"] < 2:
        return None
    return number(column, cell["low"]), number(column, cell["high"])


def with_interval(column: Column, cell: dict[str, Any]) -> str:
    """A value and, where there is one, its 95 % interval."""
    text = number(column, cell["value"])
    bounds = cell_interval(column, cell)
    return f"{text} [{bounds[0]}, {bounds[1]}]" if bounds else text


def ruled(rows: Iterable[TableRow]) -> Iterator[tuple[bool, TableRow]]:
    """The rows, each with whether a rule stands above it: it sets off what was measured."""
    published = False
    for row in rows:
        yield published and row.measured, row
        published = not row.measured


def paper_rows(results: Results) -> list[TableRow]:
    """The published rows of the same data set, as far as their columns were measured; then ours."""
    shown = [column.key for column in paper_columns(results)]
    rows = []
    for row in json.loads(PUBLISHED.read_text(encoding="utf-8"))["rows"]:
        if row["dataset"] == results["dataset"]:
            cells = {key: {"value": row[key]} for key in shown if key in row}
            if cells:
                rows.append(TableRow(f"{row['method']} (paper)", cells))
    for side, name in (("reference", "real clips"), ("generated", results["label"])):
        summary = results["summary"][side]
        cells = {key: summary[key] for key in shown if key in summary}
        if cells:
            rows.append(TableRow(name, cells, measured=True))
    return rows


def paper_columns(results: Results) -> list[Column]:
    """The paper's columns that were measured."""
    found = {key for side in results["summary"].values() for key in side}
    return [column for key in PAPER for column in COLUMNS if column.key == key and key in found]


def other_columns(results: Results) -> list[Column]:
    """What the paper does not have."""
    found = {key for side in results["summary"].values() for key in side}
    return [c for c in COLUMNS if c.key in found and c.key not in PAPER]


def dataset_title(results: Results) -> str:
    name = results["split"] or "own clips"
    dataset = TITLES.get(results["dataset"] or "")
    return f"{name} ({dataset})" if dataset and dataset != name else name


def clips_csv(results: Results) -> str:
    """A line per clip and side, an empty cell where there is no value, and why."""
    columns = [c for c in COLUMNS if any(c.key in v for v in _all_values(results))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "side", "file", "frames", *(c.key for c in columns), "left_out"])
    for clip in results["clips"]:
        for side, values in clip["values"].items():
            if clip[side] is None:
                continue
            reasons = [r for r in clip["left_out"] if r["side"] == side]
            why = "; ".join(f"{r['metric']}: {r['reason']}" for r in reasons)
            cells = [values.get(c.key, "") for c in columns]
            writer.writerow([clip["id"], side, clip[side], clip["frames"], *cells, why])
    for row in results["left_out"]:
        if row["metric"] is None:
            empty = [""] * (2 + len(columns))
            writer.writerow([row["id"], row["side"], *empty, row["reason"]])
    return text.getvalue()


def _all_values(results: Results) -> Iterator[dict[str, float]]:
    for clip in results["clips"]:
        yield from clip["values"].values()


def latex(results: Results) -> str:
    """The paper's table for a document; needs the package booktabs.

    Where none of the paper's metrics was measured, the others: a row for each.
    """
    columns = paper_columns(results)
    heads, rows = _paper_lines(results, columns) if columns else _other_lines(results)
    lines = [
        f"% moda eval, {_escaped(dataset_title(results))}, {len(results['clips'])} clips",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        _line(heads),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, ""])


def _paper_lines(results: Results, columns: Sequence[Column]) -> tuple[list[str], list[str]]:
    """Heads and rows of the paper's table; a rule sets off what was measured."""
    lines = []
    for set_off, row in ruled(paper_rows(results)):
        if set_off:
            lines.append(r"\midrule")
        cells = (_latex_cell(c, row.cells.get(c.key)) for c in columns)
        lines.append(_line([_escaped(row.name), *cells]))
    return ["Method", *map(_latex_title, columns)], lines


def _other_lines(results: Results) -> tuple[list[str], list[str]]:
    """Heads and rows of a table of what the paper does not have."""
    sides = [side for side in SIDES if results["summary"][side]]
    names = {"generated": _escaped(results["label"]), "reference": "real clips"}
    lines = []
    for column in other_columns(results):
        cells = (_latex_cell(column, results["summary"][side].get(column.key)) for side in sides)
        lines.append(_line([_latex_title(column), *cells]))
    return ["Measure", *(names[side] for side in sides)], lines


def _latex_title(column: Column) -> str:
    return column.title + {"low": r" $\downarrow$", "high": r" $\uparrow$", "": ""}[column.better]


def _latex_cell(column: Column, cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "--"
    text = number(column, cell["value"])
    if bounds := cell_interval(column, cell):
        text += rf" {{\scriptsize [{bounds[0]}, {bounds[1]}]}}"
    return text.replace("-", "$-$")


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {mark: f"\\{mark}" for mark in "&%$#_{}"}
    return "".join(special.get(letter, letter) for letter in text)
