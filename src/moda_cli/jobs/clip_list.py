"""Lists of jobs: from two folders, a CSV or JSON lines file, or standard input.

Every fault of a list is named before the first job starts, so that none is met hours later.
"""

import csv
import itertools
import os
import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from moda_cli.checks import check_format, option_faults
from moda_cli.config import INPUT_FILES, PICTURES, SIDE_FILES, SOUNDS, VIDEOS, ClipConfig
from moda_cli.errors import InputError, UsageError
from moda_cli.files import no_file
from moda_cli.jobs.options import (
    FILES,
    NEGATED,
    flat_options,
    in_name,
    local_path,
    option_name,
    read_option,
    with_options,
)
from moda_cli.jobs.rows import TABLES, json_rows, table_rows
from moda_cli.media import final_path

TEMPLATE = "{portrait}_{audio}.mp4"
T = TypeVar("T")
URL = re.compile(r"[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Job:
    """One clip of a batch, and where in the list it was asked for.

    Files that fsspec reaches by an URL are in `urls`, by field; the clip has their names only.
    """

    clip: ClipConfig
    origin: str
    urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """What the job is known by: its file, the folder of its pictures, or an URL."""
        return self.urls.get("output") or str(final_path(self.clip.output))


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th job, from the `index`-th on."""

    index: int
    count: int

    def of(self, jobs: Sequence[T]) -> Sequence[T]:
        return jobs[self.index :: self.count]

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


def parse_shard(text: str) -> Shard:
    """`i/n`, i from 0. Raises UsageError."""
    if match := re.fullmatch(r"(\d+)/(\d+)", text.strip()):
        shard = Shard(*map(int, match.groups()))
        if shard.index < shard.count:
            return shard
    raise UsageError(f"--shard {text} is no share", hint="write i/n with i from 0 to n - 1")


def split_output(output: Path) -> tuple[Path, str]:
    """The folder of a batch's outputs, and the template of their names in it."""
    for folder in reversed(output.parents):
        if "{" in output.relative_to(folder).parts[0]:
            return folder, str(output.relative_to(folder))
    return output, TEMPLATE


def batch_folder(output: Path | None, listed: Path | None) -> Path:
    """Where a batch keeps its journal and its report."""
    if output is not None:
        return split_output(output)[0]
    return Path() if listed is None else listed.parent


def jobs_from_folders(
    portraits: Path, speeches: Path, base: ClipConfig, output: Path, *, product: bool
) -> tuple[list[Job], list[str]]:
    """A job for each two files of the same stem, and the names of files without a partner.

    With `product`, and where one side is a single file, every combination. output: a folder, or
    a template of file names in one. Raises UsageError naming all that is wrong.
    """
    folder, template = split_output(output)
    if template is TEMPLATE and output.suffix and not output.is_dir():
        hint = f"give a folder/, or a template such as folder/{TEMPLATE}"
        many = portraits if portraits.is_dir() else speeches
        raise InputError(f"{many} is a folder, and {output} one file", hint=hint)
    # of a folder that holds both, the videos are speech
    faces = _files(portraits, PICTURES if portraits == speeches else (*PICTURES, *VIDEOS))
    sounds = _files(speeches, (*SOUNDS, *VIDEOS))
    faults: list[str] = []
    if product or not (portraits.is_dir() and speeches.is_dir()):
        pairs, alone = list(itertools.product(faces, sounds)), []
    else:
        face_of, sound_of = (_by_stem(files, faults) for files in (faces, sounds))
        pairs = [(face_of[stem], sound_of[stem]) for stem in face_of if stem in sound_of]
        alone = [str((face_of | sound_of)[stem]) for stem in sorted(set(face_of) ^ set(sound_of))]
        if not pairs:
            faults.append(f"no file in {portraits} has the name of one in {speeches}; "
                          "--product combines every portrait with every speech")  # fmt: skip
    rows = (
        (f"{face} with {sound}", {"portrait": str(face), "audio": str(sound)})
        for face, sound in pairs
    )
    jobs = _jobs(rows, base, Path(), folder, template, faults)
    _refuse(faults, "this batch")
    return jobs, alone


def jobs_from_file(path: Path, base: ClipConfig, output: Path | None) -> list[Job]:
    """The jobs of a table or JSON lines file, or of JSON lines on standard input for `-`.

    Relative inputs are beside the file; relative outputs under `output`, else beside the file too.
    Raises UsageError naming all that is wrong.
    """
    name = "standard input" if str(path) == "-" else str(path)
    faults: list[str] = []
    try:
        if str(path) == "-":
            rows = list(json_rows(sys.stdin.buffer.read(), faults))
        else:
            data = path.read_bytes()
            is_table = path.suffix.lower() in TABLES and not data.lstrip().startswith(b"{")
            rows = list((table_rows if is_table else json_rows)(data, faults))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "--jobs takes .csv, .tsv, .jsonl or -"
        if isinstance(error, UnicodeDecodeError):
            hint = "save it as UTF-8: in a spreadsheet, `CSV UTF-8`"
        raise UsageError(f"cannot read the jobs in {name}: {reason}", hint=hint) from None
    folder, template = split_output(output or path.parent)
    jobs = _jobs(rows, base, path.parent, folder, template, faults)
    if not jobs and not faults:
        faults.append("it holds no jobs")
    _refuse(faults, name)
    return jobs


def _jobs(
    rows: Iterable[tuple[str, dict[str, Any]]],
    base: ClipConfig,
    inputs: Path,
    outputs: Path,
    template: str,
    faults: list[str],
) -> list[Job]:
    """The rows' jobs; what is wrong with them is added to `faults`."""
    jobs = []
    for index, (origin, row) in enumerate(rows, start=1):
        wrong: list[str] = []
        job = _job(origin, index, {key.strip(): value for key, value in row.items()},
                   base, inputs, outputs, template, wrong)  # fmt: skip
        if job is not None:
            if not wrong:  # else its name may not be what was meant
                jobs.append(job)
            wrong += _option_faults(job.clip)
        faults += [f"{origin}: {fault}" for fault in wrong]
    faults += _collisions(jobs)
    return jobs


def _option_faults(clip: ClipConfig) -> Iterator[str]:
    """What is wrong with a job's options, or else with the names of its outputs."""
    faults = list(map(str, option_faults(clip)))
    yield from faults
    try:
        if not faults:
            check_format(clip)
    except UsageError as error:
        yield str(error)


def _job(
    origin: str,
    index: int,
    row: dict[str, Any],
    base: ClipConfig,
    inputs: Path,
    outputs: Path,
    template: str,
    wrong: list[str],
) -> Job | None:
    texts = {key: row.pop(key) for key in FILES if key in row}
    for key in ("portrait", "audio"):
        if not isinstance(texts.get(key), str):
            wrong.append(f"{key} is missing" if key not in texts else f"{key} is not a path")
    wrong += [f"{key} {text!r} is not a path" for key, text in texts.items() if "\0" in str(text)]
    if wrong:
        return None
    given: dict[str, Any] = {}
    for column, value in row.items():
        name = option_name(column)
        try:
            folder = outputs if name in SIDE_FILES else inputs
            given[NEGATED.get(name, name)] = read_option(name, value, folder)
        except UsageError as error:
            wrong.append(str(error))
    urls = {key: text.strip() for key in ("portrait", "audio") if URL.match(text := texts[key])}
    files: dict[str, Any] = {
        key: Path(PurePosixPath(urls[key]).name) if key in urls else local_path(texts[key], inputs)
        for key in ("portrait", "audio")
    }
    clip = with_options(replace(base, **files), given)
    names = {
        "index": index,
        "portrait": files["portrait"].stem,
        "audio": files["audio"].stem,
        **{key: in_name(value) for key, value in flat_options(clip).items()},
    }
    try:
        output = fill(str(texts.get("output", template)).strip(), names)
        sides: dict[str, Any] = {
            name: Path(fill(str(path), names))
            for name in SIDE_FILES
            if (path := getattr(clip, name)) is not None
        }
    except UsageError as error:
        wrong.append(str(error))
        return None
    if URL.match(output):
        urls["output"] = output
        target = Path(PurePosixPath(output).name)
    else:
        target = local_path(output, outputs)
        if not target.suffix:
            target = target / fill(TEMPLATE, names)
    return Job(replace(clip, output=target, **sides), origin, urls)


def fill(template: str, names: Mapping[str, object]) -> str:
    """A template with its `{names}` and `{index:03d}` filled in. Raises UsageError."""
    filled = ""
    try:
        for text, name, form, _ in string.Formatter().parse(template):
            value = names[name] if name is not None else ""
            filled += text + format(value, form or "")
    except (KeyError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"output {template!r} cannot be filled in: {reason}") from None
    return filled


def _collisions(jobs: Sequence[Job]) -> Iterator[str]:
    """Jobs that would write one file twice, or over an input."""

    def places(job: Job, keys: Callable[[Job], list[Path]]) -> list[str]:
        return [os.path.abspath(path) for path in keys(job)]

    inputs = {
        place: job.origin
        for job in jobs
        for place in places(job, _inputs)
    }  # fmt: skip
    owners: dict[str, str] = {}
    for job in jobs:
        for place in [job.urls["output"]] if "output" in job.urls else places(job, _outputs):
            if place in owners:
                yield f"{job.origin}: {place} is already written by {owners[place]}"
            elif place in inputs:
                yield f"{job.origin}: {place} is an input of {inputs[place]}"
            owners.setdefault(place, job.origin)


def _inputs(job: Job) -> list[Path]:
    clip = job.clip
    named = {key: getattr(clip, key) for key in INPUT_FILES}
    return [path for key, path in named.items() if path is not None and key not in job.urls]


def _outputs(job: Job) -> list[Path]:
    return [final_path(job.clip.output), *job.clip.side_files]


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not path.exists() and not URL.match(str(path)):
        raise InputError(f"there is no file or folder {path}", hint=no_file(path).hint)
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.iterdir())
        if file.suffix.lower() in suffixes and not file.name.startswith(".")
    ]
    if not found:
        raise UsageError(f"{path} holds no files that end in {' '.join(suffixes)}")
    return found


def _by_stem(files: Sequence[Path], faults: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            faults.append(f"{found[path.stem]} and {path} have one name; remove one of them")
        found.setdefault(path.stem, path)
    return found


def _refuse(faults: Sequence[str], name: str) -> None:
    """Raises UsageError with a line for each fault."""
    if faults:
        many = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(f"{name} has {many}, nothing was started:{lines}")
