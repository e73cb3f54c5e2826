"""Timelines as files: TOML, JSON or CSV, one entry a table, an object or a row.

    [[entry]]
    at = 2.5
    emotion = "happy"
    intensity = 0.8

Keys are the same in all three. What is wrong is named with the line it stands in.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moda_cli.config import BOOLEANS, EMOTIONS, PARTS
from moda_cli.control.inserts import Insert
from moda_cli.control.recordings import SPEEDS, parse_take
from moda_cli.control.timeline import TRACKS, Entry, Timeline, emotion_class
from moda_cli.errors import InputError, ModaError, UsageError, did_you_mean
from moda_cli.files import atomic_write, check_is_file, parse_json, parse_toml
from moda_cli.media import is_video, probe_video
from moda_cli.motion import load_motion

TIMES = ("at", "until", "ease")
SWITCHES = ("blink", "hold")
OF_EMOTION = ("emotion", "intensity")
OF_MOTION = ("motion", "share", "speed", "take")
KEYS = (*TIMES, *OF_EMOTION, *TRACKS, *SWITCHES, *OF_MOTION)
TEXTS = ("emotion", "motion", "take")
LARGEST = 1e6  # bytes; an entry is a hundred
LONGEST = 1e6  # seconds

HINT = f"an entry has {', '.join(KEYS)}"


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry as it is written, and where."""

    cells: dict[str, Any]
    line_of: Callable[[str], int]  # the line of a key, or of the entry where it has none


def read_timeline(path: Path, *, inserts: bool = True) -> Timeline:
    """The timeline in a file; its kind is told by its ending.

    Motion files it names lie beside it; without `inserts` it may name none. Raises InputError
    naming every fault and its line.
    """
    check_is_file(path, largest=LARGEST)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path} is no .toml, .json or .csv", hint="name a timeline so")
    entries: list[Entry] = []
    faults: list[ModaError] = []
    try:
        for row in read(path.read_text(encoding="utf-8-sig")):
            try:
                entries.append(_entry(row, path, inserts=inserts))
            except ModaError as fault:
                faults.append(fault)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}", hint=HINT) from None
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise InputError("\n  ".join(map(str, faults)), hint=faults[0].hint)
    return Timeline.of(entries)


def named_motion(path: Path) -> list[Path]:
    """The files of motion that a timeline's file names; none of one that cannot be read."""
    try:
        check_is_file(path, largest=LARGEST)
        rows = list(READERS[path.suffix.lower()](path.read_text(encoding="utf-8-sig")))
    except (ModaError, OSError, KeyError, ValueError, RecursionError, csv.Error):
        return []
    named = (row.cells.get("motion") for row in rows)
    return sorted({path.parent / name for name in named if isinstance(name, str)})


class _NoTimeline(ValueError):
    """A file that is well formed, and something else."""


def _toml_rows(text: str) -> Iterator[_Row]:
    tables = parse_toml(text)
    heads = [
        m.start() for m in re.finditer(r"^[ \t]*\[\[[ \t]*entry[ \t]*\]\]", text, re.MULTILINE)
    ]
    listed = tables.get("entry", [])
    if set(tables) - {"entry"} or not isinstance(listed, list):
        stray = ", ".join(sorted(set(tables) - {"entry"})) or "entry"
        raise _NoTimeline(f"{stray} stands outside the [[entry]] tables")
    if len(heads) != len(listed):
        raise _NoTimeline("its entries are not written as [[entry]] tables")
    for start, stop, cells in zip(heads, [*heads[1:], len(text)], listed, strict=True):
        yield _row(cells, text, start, stop, r"^[ \t]*[\"']?{}[\"']?[ \t]*=")


def _json_rows(text: str) -> Iterator[_Row]:
    listed = parse_json(text)
    if not isinstance(listed, list):
        raise _NoTimeline("it is no list of entries")
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    for cells in listed:
        start = at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
        _, at = decoder.raw_decode(text, start)
        yield _row(cells, text, start, at, r'"{}"\s*:')


def _csv_rows(text: str) -> Iterator[_Row]:
    head = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter=max(",;\t", key=head.count), strict=True)
    columns = [cell.strip().lower() for cell in next(reader, [])]
    for cells in reader:
        line = reader.line_num
        if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            raise _NoTimeline(f"line {line} has more cells than the {len(columns)} columns")
        # a row may end before its last columns
        row = {key: cell.strip() for key, cell in zip(columns, cells, strict=False) if cell.strip()}
        if row:
            yield _Row(row, lambda _, line=line: line)  # type: ignore[misc]


READERS = {".toml": _toml_rows, ".json": _json_rows, ".csv": _csv_rows}


def _row(cells: Any, text: str, start: int, stop: int, key: str) -> _Row:
    """An entry in text[start:stop], where `key` finds one of its keys."""
    first = text.count("\n", 0, start) + 1
    if not isinstance(cells, dict):
        raise _NoTimeline(f"line {first} is no entry")

    def line_of(name: str) -> int:
        found = re.compile(key.format(re.escape(name)), re.MULTILINE).search(text, start, stop)
        return first + text.count("\n", start, found.start()) if found else first

    return _Row(cells, line_of)


def _entry(row: _Row, path: Path, *, inserts: bool) -> Entry:
    def origin(key: str) -> str:
        return f"{path}, line {row.line_of(key)}"

    def fault(key: str, reason: str, hint: str = HINT) -> InputError:
        return InputError(f"{origin(key)}: {reason}", hint=hint)

    def number(key: str, rest: float, low: float, high: float) -> float:
        value = row.cells.get(key, rest)
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            value = float(value)
        except (ValueError, OverflowError):
            raise fault(key, f"{key} {value!r} is not a number") from None
        if not (low <= value <= high):
            raise fault(key, f"{key} {value:g} is not in {low:g}-{high:g}")
        return value

    def text(key: str) -> str:
        if not isinstance(value := row.cells[key], str):
            raise fault(key, f"{key} {value!r} is not a word")
        return value

    for key in row.cells:
        if key not in KEYS:
            raise fault(key, f"there is no key {key!r}", did_you_mean(key, KEYS, HINT))
    if "at" not in row.cells:
        raise fault("at", "the entry has no `at`", "say from which second on it holds")
    at = number("at", 0, 0, LONGEST)
    until = number("until", LONGEST, 0, LONGEST) if "until" in row.cells else math.inf
    ease = number("ease", 0, 0, 60) if "ease" in row.cells else None
    if until <= at:
        raise fault("until", f"until {until:g} is not after at {at:g}")
    values: dict[str, Any] = {
        name: number(name, track.rest, track.low, track.high)
        for name, track in TRACKS.items()
        if name in row.cells
    }
    for key in SWITCHES:
        given = row.cells.get(key, False)
        said = given if isinstance(given, bool) else BOOLEANS.get(str(given).lower())
        if said is None:
            raise fault(key, f"{key} {given!r} is neither true nor false")
        if said:
            values[key] = at if key == "hold" else True
    if "emotion" in row.cells:
        label = emotion_class(text("emotion"), origin("emotion"))
        values["emotion"] = (label, number("intensity", 1, 0, 1))
    if "motion" in row.cells:
        if not inserts:
            raise fault("motion", "motion files cannot be named here", "leave motion out")
        file = path.parent / text("motion")
        speed, share = number("speed", 1, *SPEEDS), number("share", 1, 0, 1)
        try:
            parts = parse_take(text("take")) if "take" in row.cells else PARTS
        except UsageError as error:
            raise fault("take", str(error), error.hint) from None
        insert = Insert(file, at, speed, share, parts)
        try:
            if is_video(file):
                probe_video(file)  # it is looked at when the clip is made
            else:
                insert = replace(insert, recording=load_motion(file))
                until = min(until, at + insert.lasts)
        except InputError as error:
            raise fault("motion", str(error), error.hint) from None
        values["motion"] = insert
    for key, owner in (("intensity", "emotion"), *((key, "motion") for key in OF_MOTION[1:])):
        if key in row.cells and owner not in row.cells:
            raise fault(key, f"{key} stands without {owner}")
    if not values:
        raise fault("at", "the entry asks for nothing")
    if "hold" in values and until == math.inf:
        raise fault("hold", "hold has no end", "say until which second")
    return Entry(at, values, origin("at"), until, ease)


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Write a timeline as its ending says, for `read_timeline`. Raises UsageError."""
    rows = [_cells(entry, path.parent) for entry in timeline.entries]
    suffix = check_timeline_name(path)
    if suffix == ".json":
        lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows)
        text = f"[\n{lines}\n]\n"
    elif suffix == ".toml":
        text = "\n".join(toml_entry(row) for row in rows)
    else:
        columns = [key for key in KEYS if any(key in row for row in rows)] or ["at"]
        table = [columns, *([str(row.get(key, "")) for key in columns] for row in rows)]
        text = "".join(",".join(map(_quoted, cells)) + "\n" for cells in table)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_timeline_name(path: Path) -> str:
    """The ending that says how a timeline is written. Raises UsageError."""
    if (suffix := path.suffix.lower()) not in READERS:
        raise UsageError(f"{path} is no .toml, .json or .csv", hint="name the timeline so")
    return suffix


def toml_entry(row: dict[str, Any]) -> str:
    """An entry as a TOML table."""
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in row.items())
    return "[[entry]]\n" + "".join(lines)


def _cells(entry: Entry, folder: Path) -> dict[str, Any]:
    """An entry as it is written in a file in `folder`."""
    cells: dict[str, Any] = {"at": round(entry.at, 3)}
    if entry.until < math.inf:
        cells["until"] = round(entry.until, 3)
    if entry.ease is not None:
        cells["ease"] = entry.ease
    for name, value in entry.values.items():
        if name == "emotion":
            cells["emotion"] = EMOTIONS[value[0]]
            if value[1] != 1:
                cells["intensity"] = round(value[1], 3)
        elif name == "motion":
            file = value.file.absolute()
            near = file.is_relative_to(folder.absolute())
            cells["motion"] = str(file.relative_to(folder.absolute()) if near else file)
            cells |= {"share": value.share, "speed": value.speed, "take": " ".join(value.parts)}
        else:
            cells[name] = True if name in SWITCHES else value
    return cells


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if re.search(r'[",\n]', cell) else cell


def described(timeline: Timeline) -> str:
    """A timeline's entries in TOML, as `--emotion auto` shows them."""
    return "\n".join(toml_entry(_cells(entry, Path())) for entry in timeline.entries)
