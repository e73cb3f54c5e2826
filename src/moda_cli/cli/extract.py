"""`moda extract`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moda_cli.cli.app import AsJson, Quiet, Verbose, app, start_logging
from moda_cli.cli.bar import progress_bar
from moda_cli.cli.download import download_bars
from moda_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from moda_cli.data.annotations import Cut
    from moda_cli.extract.extraction import Extracted


@app.command()
def extract(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of features; a run that is there goes on."),
    ],
    videos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="VIDEOS", help="Videos of one person talking, or folders."),
    ] = None,
    audio: Annotated[
        Literal["hubert", "wav2vec2", "logmel"] | None,
        typer.Option(help="Audio features. Default: hubert; with --synthetic logmel."),
    ] = None,
    dataset: Annotated[
        Literal["hdtf", "celebvhq", "celebvtext", "mead"] | None,
        typer.Option(help="VIDEOS are of this data set, whole or cut into its clips."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Its annotation file as published; for hdtf the folder of them."),
    ] = None,
    split: Annotated[
        Literal["speakers", "authors", "train"],
        typer.Option(
            help="Held out for validation: one speaker in 20, what MEAD's authors test on, or none."
            " Speakers of the test lists of `moda eval` never are in `train`."
        ),
    ] = "speakers",
    synthetic: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS", min=0.01, help="Make training pairs with text-to-speech instead."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --synthetic.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes of one thread; any number, same bytes.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on this Ray cluster, whose machines share VIDEOS and the output folder.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again and name the bad ones.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
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
    if synthetic is not None:
        if videos or dataset or annotations or audio not in (None, "logmel"):
            hint = "it takes no VIDEOS, --dataset or --annotations, and gives log-mel features"
            raise UsageError("--synthetic makes its own speech", hint=hint)
        from moda_cli.data.synthetic.corpus import make_corpus
        from moda_cli.extract.index import claim

        claim(output, {"synthetic_hours": synthetic, "seed": seed})
        make_corpus(output, synthetic, seed, workers)
    report: dict[str, Any] = {"output": str(output)}
    if videos:
        from moda_cli.data.annotations import find_cuts

        cuts = find_cuts(videos, dataset, annotations, split)
        summary = _extract(cuts, output, audio or "hubert", device, workers, ray, quiet)
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
    if as_json:
        typer.echo(json.dumps(report))
    elif not quiet:
        typer.echo(output)
    if report.get("failed") or report.get("faults"):
        raise typer.Exit(1)
    if report.get("clips") == 0:
        raise InputError(
            "no clip could be used", hint=f"{output / 'dropped.jsonl'} says why of each"
        )


def _extract(
    cuts: "Sequence[Cut]",
    output: Path,
    audio: Any,
    device: str,
    workers: int,
    ray: str | None,
    quiet: bool,
) -> "Extracted":
    from moda_cli.extract.extraction import extract, fetch_components

    with download_bars(shown=not quiet) as on_progress:
        fetch_components(audio, on_progress)
    with progress_bar("extracting", shown=not quiet) as on_job:
        return extract(cuts, output, audio, device, workers, ray, on_job)
