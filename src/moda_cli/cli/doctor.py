"""`moda doctor`."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from moda_cli.cli.app import app, start_logging
from moda_cli.cli.download import size_text
from moda_cli.cli.options import AsJson

if TYPE_CHECKING:
    from moda_cli.doctor import Findings


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do, what is wrong, and how to mend it.

    Makes a clip of two seconds to see how fast it is. Exit code 0 if that worked; --json is for bug
    reports.
    """
    start_logging(quiet=True, verbose=0)
    logging.getLogger("moda_cli").setLevel(logging.CRITICAL)
    from moda_cli.doctor import examine

    found = examine()
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        for title, rows in _sections(found):
            typer.echo(f"{title}:")
            width = max((len(name) for name, _ in rows), default=0)
            for name, told in rows:
                typer.echo(f"  {name.ljust(width)}  {told}".rstrip())
        typer.echo("this machine can generate" if found.ready else "this machine cannot generate")
    if not found.ready:
        raise typer.Exit(1)


def _sections(found: "Findings") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield "Versions", list(found.versions.items())
    yield "Devices", [(device["name"], _device(device)) for device in found.devices]
    yield "Weights", [(row["profile"], _profile(row)) for row in found.weights]
    yield (
        "Places",
        [
            (name, f"{row['path']}, {size_text(row['used'])} used, {size_text(row['free'])} free")
            for name, row in found.places.items()
        ],
    )
    yield (
        "Encoders",
        [(codec, f"no: {fault}" if fault else "yes") for codec, fault in found.encoders.items()],
    )
    if found.speed:
        speed = found.speed
        made = f"2 s of video in {speed['seconds']:.1f} s (RTF {speed['rtf']:.2f})"
        by = f"{speed['model']} and {speed['renderer']} on {speed['device']}"
        yield "Speed", [(by, f"{made}, after {speed['load_seconds']:.1f} s of loading")]
    if found.faults:
        yield "Wrong", [(f"{fault.what}\n    -> {fault.remedy}", "") for fault in found.faults]


def _device(device: dict[str, Any]) -> str:
    memory = f", {device['memory'] / 2**30:.0f} GiB" if device["memory"] else ""
    free = f" ({device['free'] / 2**30:.0f} free)" if "free" in device else ""
    return f"{device['what']}{memory}{free}; {', '.join(device['precisions'])}"


def _profile(row: dict[str, Any]) -> str:
    if not row["missing"]:
        return "all there"
    count = len(row["installed"]) + len(row["missing"])
    there = f"{len(row['installed'])} of {count} there"
    at_least = "at least " if row["unknown_sizes"] else ""
    size = f"{at_least}{size_text(row['to_fetch'])}"
    command = f"`moda download {row['profile']}` fetches {size}"
    names = f": {', '.join(row['missing'])}" if row["installed"] else ""
    return f"{there}; {command}{names}"
