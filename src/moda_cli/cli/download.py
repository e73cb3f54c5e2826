"""`moda download`."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from moda_cli.cli.app import app, start_logging
from moda_cli.cli.interrupted import count_kept
from moda_cli.cli.options import FILES, AsJson, Quiet, Verbose
from moda_cli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from moda_cli.weights.download import OnProgress
    from moda_cli.weights.manifest import Component


EXAMPLES = """
Examples:
  moda download --list    every file, its licence, what is there and where
  moda download           what `moda generate --model moda` needs
  moda download eval      what `moda eval` needs
"""
LICENCES = ("any", "commercial")


def _names() -> list[str]:
    from moda_cli.weights.manifest import PROFILES, load_manifest

    return [*PROFILES, "all", *load_manifest().components]


@app.command(epilog=EXAMPLES)
def download(
    what: Annotated[
        list[str] | None,
        FILES.argument(
            "PROFILE...",
            "moda (default), eval, train or all; or components by name.",
            values=_names,
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        FILES.text(
            "--trust", "NAME", "Take a file whose sum is not known; repeatable.", values=_names
        ),
    ] = None,
    license: Annotated[
        str,
        FILES.choice("--license", "USE", LICENCES, "commercial leaves out what does not allow it."),
    ] = "any",
    list_only: Annotated[
        bool, FILES.switch("--list", "Show every file, its licence and what is there.")
    ] = False,
    verify: Annotated[bool, FILES.switch("--verify", "Check what is there again.")] = False,
    dry_run: Annotated[
        bool, FILES.switch("--dry-run", "Show what would be fetched, and from where.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Fetch the official weights, checked and converted to safetensors.

    Goes on where an earlier run stopped. Honours HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE; MODA_CACHE is where converted files lie, MODA_WEIGHTS another weights.toml.
    """
    start_logging(quiet, verbose)
    if list_only + verify + dry_run > 1:
        raise UsageError("--list, --verify and --dry-run are different things", hint="give one")
    from moda_cli.weights.manifest import load_manifest

    manifest = load_manifest()
    for name in trust or ():
        if name not in manifest.components:
            raise UsageError(
                f"--trust {name} names no component", hint="see `moda download --list`"
            )
    chosen = manifest.select(what or (["all"] if list_only or verify else ["moda"]))
    if license == "commercial":
        left_out = [c.name for c in chosen if not c.commercial]
        chosen = [c for c in chosen if c.commercial]
        if left_out and not quiet:
            typer.echo(f"left out, no commercial use: {', '.join(left_out)}", err=True)
    if verify:
        _verify(chosen, as_json, quiet)
    elif list_only or dry_run:
        _show(chosen, trust or (), as_json, missing_only=dry_run)
    else:
        _download(chosen, trust or (), as_json, quiet)


def _download(
    chosen: "Sequence[Component]", trust: Sequence[str], as_json: bool, quiet: bool
) -> None:
    from moda_cli.weights import download as weights

    with count_kept("", shown=not quiet), download_bars(shown=not quiet) as on_progress:
        outcomes = weights.download(chosen, trust, on_progress)
    if as_json:
        rows = [
            {"name": o.component.name, "status": o.status, "licence": o.component.licence}
            | (asdict(o.entry) if o.entry else {})
            for o in outcomes
        ]
        typer.echo(json.dumps({"components": rows}))
        return
    for outcome in outcomes:
        name, entry = outcome.component.name, outcome.entry
        if entry is None:
            note = f"{name}: not fetched, its sum is not known; `--trust {name}` takes it anyway"
            typer.echo(note, err=True)
        elif not quiet:
            row = (
                name,
                outcome.status,
                size_text(entry.size),
                outcome.component.licence,
                entry.path,
            )
            typer.echo("  ".join(row))


def _verify(chosen: "Sequence[Component]", as_json: bool, quiet: bool) -> None:
    from moda_cli.weights import store

    names = [c.name for c in chosen if c.name in store.read_lock()]
    if faults := store.corrupt(names):
        raise WeightsError(
            "damaged or gone: " + "; ".join(f"{name}: {path}" for name, path in faults.items()),
            hint=f"not loaded any more; `moda download {' '.join(faults)}` fetches them again",
        )
    if as_json:
        typer.echo(json.dumps({"verified": names}))
    elif not quiet:
        typer.echo(f"{len(names)} of {len(chosen)} installed, all as recorded")


def _show(
    chosen: "Sequence[Component]", trust: Sequence[str], as_json: bool, missing_only: bool
) -> None:
    """The table of --list, or with `missing_only` what --dry-run would fetch."""
    from moda_cli.weights.store import installed

    def needs_trust(c: "Component") -> bool:
        return c.name not in trust and not any(source.checkable for source in c.sources)

    there = {c.name: installed(c.name) for c in chosen}
    shown = [c for c in chosen if not (missing_only and there[c.name])]
    if as_json:
        rows = [
            {
                "name": c.name,
                "what": c.what,
                "profiles": c.profiles,
                "size": c.size,
                "licence": c.licence,
                "commercial": c.commercial,
                "installed": str(there[c.name]) if there[c.name] else None,
                "sources": [str(source) for source in c.sources],
                "needs_trust": needs_trust(c),
            }
            for c in shown
        ]
        typer.echo(json.dumps({"components": rows, "places": dict(_places())}))
        return
    head = ("name", "size", "profiles", "commercial", "source" if missing_only else "installed")
    lines = [(*head, "licence")]
    for c in shown:
        state = "yes" if there[c.name] else str(c.sources[0]) if missing_only else "no"
        if needs_trust(c) and not there[c.name]:
            state = f"only with --trust {c.name}"
        use = "yes" if c.commercial else "no"
        lines.append((c.name, size_text(c.size), ",".join(c.profiles), use, state, c.licence))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        padded = [text.ljust(width) for text, width in zip(line[:-1], widths, strict=True)]
        typer.echo("  ".join((*padded, line[-1])))
    got = [c for c in shown if there[c.name]]
    there_of_all = f"{len(got)} of {len(shown)} there: {_total(got)} of {_total(shown)}"
    typer.echo(f"to be fetched: {_total(shown)}" if missing_only else there_of_all)
    for name, place in _places():
        typer.echo(f"{name}: {place}")


def _places() -> "list[tuple[str, str]]":
    """Where files are kept: as they are fetched, and converted."""
    from moda_cli.weights.store import cache_dir, hub_cache

    return [("downloads", str(hub_cache())), ("converted", str(cache_dir()))]


def _total(components: "Sequence[Component]") -> str:
    known = sum(c.size or 0 for c in components)
    at_least = "at least " if any(c.size is None for c in components) else ""
    return f"{at_least}{size_text(known)}"


def size_text(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


@contextmanager
def download_bars(shown: bool) -> "Iterator[OnProgress | None]":
    """One bar per component being fetched, on stderr if that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield on_progress
