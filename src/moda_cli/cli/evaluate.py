"""`moda eval`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moda_cli.cli.app import AsJson, Quiet, Verbose, app, start_logging
from moda_cli.cli.bar import progress_bar
from moda_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from moda_cli.evaluate.results import Results

EXIT_LEFT_OUT = 1  # of a run that measured the others


@app.command(name="eval")
def evaluate(
    generated: Annotated[
        Path, typer.Argument(help="Folder of generated clips, or a batch's report.jsonl.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real clips of the same names; with --split the data set's root."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results. Default: GENERATED-eval."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="hdtf-50 hdtf-100 hdtf-all celebvhq-50 wild.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="HDTF's annotation folder, celebvhq_info.json, or a manifest.json."),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Make the split's clips first, and time that.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="fid fvd fsim sync smooth face. Default: all whose weights are there.",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Name of the measured row. Default: the folder's.")
    ] = None,
    reference_row: Annotated[bool, typer.Option(help="Measure the real clips alone, too.")] = True,
    fit: Annotated[
        Literal["centre", "stretch"], typer.Option(help="How frames become square.")
    ] = "centre",
    resample: Annotated[
        bool, typer.Option("--resample", help="Take clips that are not at 25 fps.")
    ] = False,
    encode_reference: Annotated[
        bool, typer.Option(help="Encode real clips like generated ones before comparing.")
    ] = True,
    fvd_cut: Annotated[
        Literal["all-16", "first-16", "whole"], typer.Option(help="Windows of a clip for FVD.")
    ] = "all-16",
    fvd_resize: Annotated[
        Literal["stretch", "centre-crop", "bicubic"], typer.Option(help="Resizing for FVD.")
    ] = "stretch",
    fvd_network: Annotated[
        Literal["i3d_torchscript", "i3d"], typer.Option(help="Weights for FVD.")
    ] = "i3d_torchscript",
    bootstrap: Annotated[
        int, typer.Option(min=1, help="Resamples of the clips for intervals of means.")
    ] = 1000,
    bootstrap_distances: Annotated[
        int, typer.Option(min=1, help="The same for FID and FVD, which cost more.")
    ] = 100,
    model: Annotated[str, typer.Option(help="With --generate, as in `moda generate`.")] = "auto",
    renderer: Annotated[
        Literal["auto", "rig", "liveportrait"], typer.Option(help="With --generate.")
    ] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"], typer.Option(help="With --generate.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="With --generate.")] = 42,
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Processes that measure, of one thread; any number, same results."
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Measure on this Ray cluster, whose machines share the clips and --output.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Measure talking-head videos with the paper's metrics, beside its published rows.

    A clip that cannot be measured is named with its reason and left out of the means; the exit code
    is then 1. What was computed is kept in the results' folder: a second run costs nothing.
    """
    start_logging(quiet, verbose)
    if ray and workers > 1:
        raise UsageError("--workers is for this machine, --ray for others")
    from moda_cli.evaluate import session
    from moda_cli.evaluate.protocol import Protocol  # torch loads here
    from moda_cli.metrics.fvd import FvdProtocol

    protocol = Protocol(
        fit=fit,
        resample=resample,
        encode_reference=encode_reference,
        fvd=FvdProtocol(fvd_cut, fvd_resize),
        fvd_network=fvd_network,
        bootstrap=bootstrap,
        bootstrap_distances=bootstrap_distances,
    )
    request = session.EvalRequest(
        generated=generated,
        reference=reference,
        output=output,
        split=split,
        annotations=annotations,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics is not None else (),
        label=label,
        reference_row=reference_row,
        device=device,
        workers=workers,
        ray=ray,
        generate=generate,
        model=model,
        renderer=renderer,
        dtype=dtype,
        seed=seed,
        protocol=protocol,
    )
    with progress_bar("measuring", "what", shown=not quiet) as draw:

        def on_look(done: int, total: int, what: str) -> None:
            if draw:
                draw(done - 1, total, what=what)

        results = session.evaluate(request, on_look)
    for row in results["left_out"]:
        what = f"{row['metric']} of {row['id']}" if row["metric"] else row["id"]
        typer.echo(f"left out: {what} ({row['side']}): {row['reason']}", err=True)
    for note in results["notes"]:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(results))
    elif not quiet:
        _show(results)
        typer.echo(request.folder / "report.html")
    # other single columns are left out where a clip has none: no pauses, shorter than a second
    faults = {None, "lip_sync", *results["metrics"]}
    if any(row["metric"] in faults for row in results["left_out"]):
        raise typer.Exit(EXIT_LEFT_OUT)


def _show(results: "Results") -> None:
    """The paper's table with the measured rows, then every measured number with its interval."""
    from rich.console import Console
    from rich.markup import escape

    from moda_cli.evaluate import evaluation, tables

    console = Console()
    count = f"{len(results['clips'])} clips" if len(results["clips"]) > 1 else "one clip"
    columns = tables.paper_columns(results)
    if columns:
        heads = [tables.title(column) for column in columns]
        table = _table(f"{tables.dataset_title(results)}, {count}", heads)
        rows = tables.paper_rows(results)
        for previous, row in zip([None, *rows], rows, strict=False):
            if previous and row.measured and not previous.measured:
                table.add_section()
            cells = (
                tables.number(c, row.cells[c.key]["value"]) if c.key in row.cells else "-"
                for c in columns
            )
            name = row.name.removesuffix(" (paper)")
            table.add_row(escape(name), *cells, style="bold" if row.measured else None)
        if not rows[0].measured:
            table.caption = "above the line: published in the MoDA paper"
            table.caption_justify = "left"
        console.print(table)
    sides = [side for side in evaluation.SIDES if results["summary"][side]]
    names = {"generated": results["label"], "reference": "real clips"}
    about = "With 95 % intervals over clips" if len(results["clips"]) > 1 else count
    table = _table(about, [names[side] for side in sides])
    for column in [*columns, *tables.other_columns(results)]:
        found = (results["summary"][side].get(column.key) for side in sides)
        cells = (tables.with_interval(column, cell) if cell else "-" for cell in found)
        table.add_row(f"{tables.title(column)} {column.unit}".strip(), *cells)
    console.print(table)
    for name, state in results["metrics"].items():
        if state["status"] != "measured":
            typer.echo(f"{name}: {state['status']}; {state['reason']}")


def _table(title: str, heads: "Sequence[str]") -> "Table":
    """Rows with a name and a number under each head."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(title),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_justify="left",
        title_style="bold",
    )
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(escape(head), justify="right", no_wrap=True)
    return table
