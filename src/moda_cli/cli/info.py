"""`moda info`."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moda_cli.cli.app import app, start_logging
from moda_cli.cli.options import FILES, AsJson
from moda_cli.errors import InputError

if TYPE_CHECKING:
    from moda_cli.media.credentials import Signature

HERE = {True: "the same file is here", False: "another file of this name is here", None: ""}


@app.command()
def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A video, a GIF, a frame, or a folder of frames.",
            rich_help_panel=FILES.title,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what a clip tells of itself, and the command that makes it again; check its signature.

    Exit code 1 if the file was changed after it was signed.
    """
    start_logging(quiet=False, verbose=0)
    from moda_cli.media.credentials import EXTRA, available, read_signature
    from moda_cli.media.provenance import read_record

    shown = _first_frame(file) if file.is_dir() else file
    said = read_record(shown)
    known, checks = available(), None
    signature = read_signature(shown) if known else None
    if signature:
        checks = asdict(signature)
    places = _places(said, shown)
    again = _command(said, shown, places) if "settings" in said else None
    if as_json:
        whole = {"file": str(file), "ai_generated": bool(said) or None, "said": said or None}
        inputs = {name: here for name, (_, here) in places.items()}
        here = {"inputs_here": inputs, "command": again}
        typer.echo(json.dumps({**whole, **here, "signature": checks, "signature_checked": known}))
    else:
        typer.echo(f"{file}: {said.get('notice', 'does not say how it was made')}")
        rows = [*_rows(said, places), ("signature", _signature(signature) if known else EXTRA)]
        if not known:
            rows[-1] = ("signature", f"not looked for: {EXTRA}")
        for name, told in rows:
            typer.echo(f"  {name.ljust(10)} {told}")
        if again:
            typer.echo(f"again:\n  {again}")
    if signature and not signature.holds:
        raise typer.Exit(1)


def _first_frame(folder: Path) -> Path:
    frames = sorted(folder.glob("*.png"))
    if not frames:
        raise InputError(f"there are no frames in {folder}", hint="give a clip, or *.png in it")
    return frames[0]


def _places(said: Mapping[str, Any], clip: Path) -> dict[str, tuple[Path, bool | None]]:
    """Where each input is, in this folder or beside the clip, and whether it is the same file."""
    from moda_cli.files import sha256_of

    found = {}
    for field, row in _mapping(said.get("inputs")).items():
        name, wanted = str(_mapping(row).get("name")), _mapping(row).get("sha256")
        place, same = Path(name), None
        for candidate in (Path(name), clip.parent / name):
            if wanted and candidate.is_file():
                is_same = sha256_of(candidate) == wanted
                if is_same or same is None:
                    place, same = candidate, is_same
                if is_same:
                    break
        found[field] = place, same
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    """A record is written by anybody: what should be an object may not be one."""
    return value if isinstance(value, Mapping) else {}


def _rows(
    said: Mapping[str, Any], places: Mapping[str, tuple[Path, bool | None]]
) -> Iterator[tuple[str, str]]:
    if "settings" not in said:
        return
    yield "model", f"{said.get('model')}, drawn by {said.get('renderer')}"
    yield "seed", str(said.get("seed"))
    chosen = (f"{name} {value}" for name, value in _chosen(said).items())
    yield "settings", ", ".join(chosen) or "the usual ones"
    for field, row in _mapping(said.get("inputs")).items():
        row = _mapping(row)
        total = f"sha256 {row.get('sha256')}" if row.get("sha256") else "came through a pipe"
        here = HERE[places[field][1]]
        yield field, "; ".join(filter(None, (f"{row.get('name')}, {total}", here)))


def _signature(signature: "Signature | None") -> str:
    if signature is None:
        return "none"
    if not signature.holds:
        return f"DOES NOT HOLD: {'; '.join(signature.faults) or 'the file was changed'}"
    trust = "trusted" if signature.trusted else "whom no list of this machine names"
    what = "media of a trained model" if signature.generated else "no trained model"
    return f"holds; {signature.signer} ({trust}) declares {what}"


def _chosen(said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not this version's usual ones."""
    from moda_cli.config import ClipConfig
    from moda_cli.media.provenance import settings

    usual = settings(ClipConfig(Path(), Path(), Path()))
    given = _mapping(said.get("settings"))
    return {name: value for name, value in given.items() if value != usual.get(name)}


def _command(
    said: Mapping[str, Any], clip: Path, places: Mapping[str, tuple[Path, bool | None]]
) -> str:
    """The command line that makes a clip again, quoted for this system's shell."""
    from moda_cli.jobs.options import NEGATED

    off = {positive: negative for negative, positive in NEGATED.items()}
    inputs = {field: _as_argument(str(place)) for field, (place, _) in places.items()}
    words = ["moda", "generate", *(inputs.pop(name, "?") for name in ("portrait", "audio"))]
    words += ["-o", _as_argument(str(_numbered(clip)))]
    for name, value in {**inputs, **_chosen(said), "seed": said.get("seed")}.items():
        if isinstance(value, bool):
            words.append(_flag(name if value else off.get(name, f"no_{name}")))
        elif value is not None:
            words += [_flag(name), str(value)]
    words += ["--model", str(said.get("model")), "--renderer", str(said.get("renderer"))]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _numbered(clip: Path) -> Path:
    """A frame's name as the output that makes all of them: a PNG is one of many."""
    if clip.suffix.lower() != ".png":
        return clip
    return clip.with_name(re.sub(r"\d+(?=\D*$)", lambda number: f"%0{len(number[0])}d", clip.name))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _as_argument(path: str) -> str:
    """A path that is not taken for an option."""
    return f"./{path}" if path.startswith("-") and path != "-" else path
