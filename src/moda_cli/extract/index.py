"""What is done of a folder of features, and its index.

Every clip of a list is a job. A finished one leaves its feature files and, last, a record in
`.jobs`; what has no record is done again, so that a run can be killed at any moment. The index is
made from the records.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from moda_cli.data.annotations import LAST, Cut
from moda_cli.data.feature_files import DROPPED, INDEX
from moda_cli.errors import UsageError
from moda_cli.files import Row, atomic_write, parse_json, sha256_of_json, write_rows

JOBS = ".jobs"
HELD_OUT = 5  # one clip in so many, of a split by clips: the last ones, in another take if may be


def claim(out: Path, options: Row) -> None:
    """Make the folder of features, or see that it is one of these options.

    Raises UsageError where it is not.
    """
    path = out / JOBS / "options"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None
    for part in out.glob(".*.part"):
        part.unlink()  # of a run that was killed
    known = _read(path)
    if known is None and (out / INDEX).exists():
        raise UsageError(f"{out} holds other features", hint="use another folder")
    if known is not None and known != options:
        hint = "use another folder, or the options and weights of the first run"
        raise UsageError(f"{out} holds features of other options: {known}", hint=hint)
    _write(path, options)


def cut_key(cut: Cut) -> str:
    """What a clip is cut from and how; its speaker and split may change without work."""
    values = asdict(replace(cut, split="", speaker="", video=None, sound=None))
    states = [path.stat() if path and path.exists() else None for path in (cut.video, cut.sound)]
    values["files"] = [(state.st_size, state.st_mtime_ns) if state else None for state in states]
    return sha256_of_json(values)


def is_done(out: Path, cut: Cut) -> bool:
    """Whether a clip has its record and all files.

    Raises UsageError where the record is of another video.
    """
    known = _read(_record(out, cut))
    if known is None:
        return False
    if known["source"] != cut.source:
        raise UsageError(
            f"{out} holds a clip {cut.name} of another video, {known['source']}",
            hint="use another folder",
        )
    return known["key"] == cut_key(cut) and all(path.is_file() for path in _files(out, known))


def forget(out: Path, cut: Cut) -> None:
    """Remove the record and files of a clip that is to be done again: they may be fewer now."""
    known = _read(_record(out, cut))
    if known is not None:
        _record(out, cut).unlink()
        for path in _files(out, known):
            path.unlink(missing_ok=True)


def mark_done(out: Path, cut: Cut, key: str, rows: list[Row], dropped: list[Row]) -> None:
    """Say that a clip is done, with its rows of the index and of what was left out."""
    labels = {"speaker": cut.speaker, "split": cut.split}
    values = {"key": key, "source": cut.source, "labels": labels, "rows": rows, "dropped": dropped}
    _write(_record(out, cut), values)


def write_index(
    out: Path, cuts: Mapping[str, Cut], missing: Mapping[str, str]
) -> tuple[list[Row], list[Row]]:
    """Both lists, from all records in the order of their names; splits are those of `cuts`.

    Of a split by clips the last of all are held out.

    missing: what has no record, and why.
    """
    rows: list[Row] = []
    dropped: list[Row] = []
    for path in sorted((out / JOBS).glob("*.json"), key=lambda path: path.stem):
        known = _read(path)
        if known is None:
            continue
        if cut := cuts.get(path.stem):
            labels = {"speaker": cut.speaker, "split": cut.split}
            if known["labels"] != labels:
                known["labels"] = labels
                _write(path, known)
        rows += [{**row, **known["labels"]} for row in known["rows"]]
        dropped += known["dropped"]
    shared = [row for row in rows if row["split"] == LAST]
    learnt = len(shared) - math.ceil((len(shared) - 1) / HELD_OUT)
    for number, row in enumerate(shared):
        row["split"] = "train" if number < learnt else "test"
    for name, reason in sorted(missing.items()):
        cut = cuts[name]
        dropped.append(left_out(cut, cut.start_s, cut.end_s, reason))
    write_rows(out / INDEX, rows)
    write_rows(out / DROPPED, dropped)
    return rows, dropped


def left_out(cut: Cut, start_s: float, end_s: float | None, reason: str) -> Row:
    """A row of what is dropped."""
    return {
        "clip": cut.name,
        "source": cut.source,
        "start": start_s,
        "end": end_s,
        "reason": reason,
    }


def _record(out: Path, cut: Cut) -> Path:
    return out / JOBS / f"{cut.name}.json"


def _files(out: Path, known: Row) -> list[Path]:
    return [out / f"{row['clip']}.safetensors" for row in known["rows"]]


def _read(path: Path) -> Row | None:
    """A record, None where there is none; a damaged one counts as none."""
    try:
        values: Row = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return values


def _write(path: Path, values: Row) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
