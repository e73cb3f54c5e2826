"""`moda extract`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moda_cli.cli.app import app, start_logging
from moda_cli.cli.bar import progress_bar
from moda_cli.cli.download import download_bars
from moda_cli.cli.interrupted import OnCount, count_kept
from moda_cli.cli.options import (
    FILES,
    MACHINE,
    AsJson,
    Device,
    Panel,
    PrintConfig,
    Quiet,
    Verbose,
)
from moda_cli.config import LIMITS
from moda_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from moda_cli.data.annotations import Cut
    from moda_cli.extract.extraction import Extracted


DATA, SPEECH = Panel("Data set"), Panel("Without videos")

EXAMPLES = """
Examples:
  moda extract clips/ -o features/                    your own videos of people talking
  moda extract HDTF/ --dataset hdtf --annotations HDTF_dataset/ -o features/ --workers 8
  moda extract --synthetic 4 -o features/             text-to-speech, no video at all
  moda extract me/ --motion mesh -o features/         one speaker, for `moda train --from mini`
"""


@app.command(epilog=EXAMPLES)
def extract(
    output: Annotated[
        Path,
        FILES.text("--output", "FOLDER", "For the features; a run that is there goes on.", "-o"),
    ],
    videos: Annotated[
        list[Path] | None,
        FILES.argument("VIDEOS", "Videos of one person talking, or folders."),
    ] = None,
    audio: Annotated[
        str | None,
        FILES.choice(
            "--audio",
            "KIND",
            ("hubert", "wav2vec2", "logmel"),
            "Audio features; default hubert, with --synthetic and --motion mesh logmel.",
        ),
    ] = None,
    motion: Annotated[
        str,
        FILES.choice(
            "--motion",
            "KIND",
            ("liveportrait", "mesh"),
            "Who sees how a face moves: LivePortrait's network, or the bundled face mesh, for"
            " models that start from mini.",
        ),
    ] = "liveportrait",
    verify: Annotated[
        bool, FILES.switch("--verify", "Read every file again and name the bad ones.")
    ] = False,
    dataset: Annotated[
        str | None,
        DATA.choice(
            "--dataset",
            "NAME",
            ("hdtf", "celebvhq", "celebvtext", "mead"),
            "VIDEOS are of this data set, whole or cut into its clips.",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        DATA.text(
            "--annotations", "PATH", "Its annotation file as published; for hdtf their folder."
        ),
    ] = None,
    split: Annotated[
        str | None,
        DATA.choice(
            "--split",
            "RULE",
            ("speakers", "authors", "clips", "train"),
            "Held out for validation: one speaker in 20, what MEAD's authors test on, the last"
            " fifth of the clips (so with --motion mesh), or none."
            " Speakers of the test lists of `moda eval` never are in `train`.",
        ),
    ] = None,
    synthetic: Annotated[
        float | None,
        SPEECH.number("--synthetic", "Hours of training pairs made with text-to-speech.", 0.01),
    ] = None,
    seed: Annotated[
        int, SPEECH.number("--seed", "Same seed, same pairs.", *LIMITS["seed"], whole=True)
    ] = 0,
    workers: Annotated[
        int,
        MACHINE.number(
            "--workers", "Processes of one thread; any number, same bytes.", 1, 256, whole=True
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        MACHINE.text(
            "--ray",
            "ADDRESS",
            "Run on this Ray cluster, whose machines share VIDEOS and the output folder.",
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    print_config: PrintConfig = False,
) -> None:
    """Turn VIDEOS into features to train on.

    Scene cuts and a lost face split a video; what is left out is in dropped.jsonl with the reason.
    """
    start_logging(quiet, verbose)
    if not videos and synthetic is None and not verify:
        raise UsageError("nothing to extract", hint="give VIDEOS, --synthetic HOURS or --verify")
    if ray and (workers > 1 or synthetic is not None):
        option = "--workers" if workers > 1 else "--synthetic"
        raise UsageError(f"{option} is for this machine, --ray for others")
    report: dict[str, Any] = {"output": str(output)}
    if synthetic is not None:
        if videos or dataset or annotations or audio not in (None, "logmel"):
            hint = "it takes no VIDEOS, --dataset or --annotations, and gives log-mel features"
            raise UsageError("--synthetic makes its own speech", hint=hint)
        from moda_cli.data.synthetic.corpus import make_corpus
        from moda_cli.extract.index import claim

        claim(output, {"synthetic_hours": synthetic, "seed": seed})
        with _counted("speaking", quiet) as on_clip:
            made = make_corpus(output, synthetic, seed, workers, on_clip)
        report |= {"clips": made.clips, "hours": round(made.hours, 4)}
        if not quiet:
            typer.echo(f"{made.clips} clips, {made.hours:.2f} h of speech and motion", err=True)
    if videos:
        from moda_cli.data.annotations import find_cuts

        mesh = motion == "mesh"
        rule = split or ("clips" if mesh and not dataset else "speakers")
        cuts = find_cuts(videos, dataset, annotations, rule)
        hears = audio or ("logmel" if mesh else "hubert")
        summary = _extract(cuts, output, hears, motion, device, workers, ray, quiet)
        report |= {
            "clips": summary.clips,
            "hours": round(summary.hours, 4),
            "dropped": summary.dropped,
            "failed": summary.failed,
        }
        if not quiet:
            said = f"{summary.clips} clips, {summary.hours:.2f} h; {summary.dropped} left out"
            typer.echo(f"{said}, see {output / 'dropped.jsonl'}", err=True)
    if verify:
        from moda_cli.data.feature_files import find_faults

        report["faults"] = find_faults(output)
        for name, fault in report["faults"].items():
            typer.echo(f"{output / name}: {fault}", err=True)
    if report.get("clips") == 0 and not (report["failed"] or report.get("faults")):
        raise InputError(
            "no clip could be used", hint=f"{output / 'dropped.jsonl'} says why of each"
        )
    if as_json:
        typer.echo(json.dumps(report))
    elif not quiet:
        typer.echo(output)
    if report.get("failed") or report.get("faults"):
        raise typer.Exit(1)


def _extract(
    cuts: "Sequence[Cut]",
    output: Path,
    audio: Any,
    motion: Any,
    device: str,
    workers: int,
    ray: str | None,
    quiet: bool,
) -> "Extracted":
    from moda_cli.extract.extraction import extract, fetch_components

    with download_bars(shown=not quiet) as on_progress:
        fetch_components(audio, motion, on_progress)
    with _counted("extracting", quiet) as on_job:
        return extract(cuts, output, audio, device, workers, ray, on_job, motion)


@contextmanager
def _counted(title: str, quiet: bool) -> Iterator[OnCount]:
    """A bar, and when it is interrupted how far it came."""
    with (
        count_kept("clips", shown=not quiet) as count,
        progress_bar(title, shown=not quiet) as draw,
    ):

        def on_count(done: int, total: int) -> None:
            count(done, total)
            if draw:
                draw(done, total)

        yield on_count
