"""The rows of a job list's file, from a table as spreadsheets write it or from JSON lines."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from moda_cli.errors import UsageError
from moda_cli.files import parse_json
from moda_cli.jobs.options import FILES, option_name

TABLES = (".csv", ".tsv", ".tab", ".txt")
SEPARATORS = ",;\t|"
DECIMAL_COMMA = re.compile(r"^\s*(-?\d+),(\d+)\s*$")
Row = tuple[str, dict[str, Any]]  # where it stands, and its cells by column


def table_rows(data: bytes, faults: list[str]) -> Iterator[Row]:
    """The rows of a table with a header: commas, semicolons, tabs or bars between its cells.

    What is wrong with the columns is added to `faults`. Raises UnicodeDecodeError, csv.Error.
    """
    text = _text(data)
    separator, skipped = _separator(text), 0
    if text[:4].lower() == "sep=":  # a line for spreadsheets, not of the table
        _, _, text = text.partition("\n")
        skipped = 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns = [_column(cell) for cell in next(reader, [])]
    while columns and not columns[-1]:  # a separator at the line's end
        columns.pop()
    faulty = {column: fault for column in columns if (fault := _column_fault(column))}
    twice = sorted({column for column in columns if columns.count(column) > 1})
    absent = [column for column in ("portrait", "audio") if columns and column not in columns]
    faults += [*faulty.values(), *(f"there are two columns {column!r}" for column in twice)]
    faults += [f"there is no column {column!r}" for column in absent]
    if absent:
        return
    for cells in reader:
        origin = f"line {reader.line_num + skipped}"
        if any(cell.strip() for cell in cells[len(columns) :]):
            faults.append(f"{origin} has more cells than the {len(columns)} columns")
        # a row may end before its last columns
        row = {column: cell for column, cell in zip(columns, cells, strict=False) if cell.strip()}
        if separator != ",":  # where a comma is the decimal point, another sign parts the cells
            row = {c: v if c in FILES else DECIMAL_COMMA.sub(r"\1.\2", v) for c, v in row.items()}
        if row:
            yield origin, {column: cell for column, cell in row.items() if column not in faulty}


def json_rows(data: bytes, faults: list[str]) -> Iterator[Row]:
    """The objects of a file of JSON lines; what is wrong with them is added to `faults`."""
    for number, line in enumerate(_text(data).split("\n"), start=1):  # JSON may hold U+2028
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            faults.append(f"line {number} is no JSON: {error}")
            continue
        if not isinstance(row, dict):
            faults.append(f"line {number} is no JSON object")
            continue
        unknown = {column: fault for column in row if (fault := _column_fault(column))}
        faults += [f"line {number}: {fault}" for fault in unknown.values()]
        yield (
            f"line {number}",
            {k: v for k, v in row.items() if v not in (None, "") and k not in unknown},
        )


def _text(data: bytes) -> str:
    """UTF-8, or UTF-16 as its mark says, which spreadsheets call Unicode text."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig")


def _separator(text: str) -> str:
    """What parts the cells: as `sep=` says, or the sign that the header has most of."""
    header = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    if header[:4].lower() == "sep=" and header[4:5] in SEPARATORS:
        return header[4:5] or ","
    return max(SEPARATORS, key=header.count)


def _column(cell: str) -> str:
    """A column's name as it is meant: `Face Points` is face_points."""
    return cell.strip().lower().replace(" ", "_")


def _column_fault(column: str) -> str | None:
    if column.strip() in FILES:
        return None
    try:
        option_name(column)
    except UsageError as error:
        return f"{error}; {error.hint}" if error.hint else str(error)
    return None
