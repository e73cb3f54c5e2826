"""`moda eval`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moda_cli.cli.app import app, start_logging
from moda_cli.cli.bar import progress_bar
from moda_cli.cli.interrupted import count_kept
from moda_cli.cli.opening import open_file
from moda_cli.cli.options import (
    DTYPES,
    FILES,
    MACHINE,
    RENDERERS,
    AsJson,
    Device,
    Panel,
    PrintConfig,
    Quiet,
    Verbose,
)
from moda_cli.config import LIMITS, SPLITS
from moda_cli.errors import UsageError
from moda_cli.evaluate.columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from moda_cli.evaluate.results import Results

NAMED = 8  # clips in one line
EXIT_LEFT_OUT = 1  # of a run that measured the others


MEASURES, GENERATING = Panel("What is measured"), Panel("With --generate")
METRICS = tuple(dict.fromkeys(column.metric for column in COLUMNS if column.metric != "rtf"))

EXAMPLES = """
Examples:
  moda eval me_speech.mp4 --open                    one clip, without weights
  moda eval out/report.jsonl                        a batch, with its speed
  moda eval out/ --reference hdtf/ --split hdtf-50  the paper's table
"""


@app.command(name="eval", epilog=EXAMPLES)
def evaluate(
    generated: Annotated[
        Path,
        FILES.argument("GENERATED", "A clip, a folder of clips, or a batch's report.jsonl."),
    ],
    reference: Annotated[
        Path | None,
        FILES.text(
            "--reference",
            "PATH",
            "The real clip, or a folder of real clips of the same names; with --split the data"
            " set's root.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        FILES.text("--output", "FOLDER", "For the results. Default: GENERATED-eval.", "-o"),
    ] = None,
    opened: Annotated[
        bool, FILES.switch("--open", "Show the finished page in the browser.")
    ] = False,
    split: Annotated[
        str | None, FILES.choice("--split", "SPLIT", SPLITS, "Which clips of a data set.")
    ] = None,
    annotations: Annotated[
        Path | None,
        FILES.text(
            "--annotations",
            "PATH",
            "HDTF's annotation folder, celebvhq_info.json, or a manifest.json.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        MEASURES.text(
            "--metrics",
            "NAME,...",
            f"{' '.join(METRICS)}. Default: all whose weights are there.",
            values=METRICS,
        ),
    ] = None,
    label: Annotated[
        str | None,
        MEASURES.text("--label", "TEXT", "Name of the measured row. Default: the folder's."),
    ] = None,
    reference_row: Annotated[
        bool,
        MEASURES.switch("--reference-row/--no-reference-row", "Measure the real clips alone, too."),
    ] = True,
    fit: Annotated[
        Literal["centre", "stretch"],
        MEASURES.choice("--fit", "HOW", ("centre", "stretch"), "How frames become square."),
    ] = "centre",
    resample: Annotated[
        bool, MEASURES.switch("--resample", "Take clips that are not at 25 fps.")
    ] = False,
    encode_reference: Annotated[
        bool,
        MEASURES.switch(
            "--encode-reference/--no-encode-reference",
            "Encode real clips like generated ones before comparing.",
        ),
    ] = True,
    fvd_cut: Annotated[
        str,
        MEASURES.choice(
            "--fvd-cut", "HOW", ("all-16", "first-16", "whole"), "Windows of a clip for FVD."
        ),
    ] = "all-16",
    fvd_resize: Annotated[
        str,
        MEASURES.choice(
            "--fvd-resize", "HOW", ("stretch", "centre-crop", "bicubic"), "Resizing for FVD."
        ),
    ] = "stretch",
    fvd_network: Annotated[
        Literal["i3d_torchscript", "i3d"],
        MEASURES.choice("--fvd-network", "NAME", ("i3d_torchscript", "i3d"), "Weights for FVD."),
    ] = "i3d_torchscript",
    bootstrap: Annotated[
        int,
        MEASURES.number(
            "--bootstrap", "Resamples of the clips for intervals of means.", 1, whole=True
        ),
    ] = 1000,
    bootstrap_distances: Annotated[
        int,
        MEASURES.number(
            "--bootstrap-distances", "The same for FID and FVD, which cost more.", 1, whole=True
        ),
    ] = 100,
    generate: Annotated[
        bool,
        GENERATING.switch("--generate", "Make the split's clips first, and time that."),
    ] = False,
    model: Annotated[
        str,
        GENERATING.text(
            "--model", "MODEL", "As in `moda generate`.", values=("auto", "mini", "moda")
        ),
    ] = "auto",
    renderer: Annotated[
        str, GENERATING.choice("--renderer", "NAME", RENDERERS, "As in `moda generate`.")
    ] = "auto",
    dtype: Annotated[
        str, GENERATING.choice("--dtype", "TYPE", DTYPES, "As in `moda generate`.")
    ] = "auto",
    seed: Annotated[
        int, GENERATING.number("--seed", "Same seed, same videos.", *LIMITS["seed"], whole=True)
    ] = 42,
    workers: Annotated[
        int,
        MACHINE.number(
            "--workers",
            "Processes that measure, of one thread; any number, same results.",
            1,
            256,
            whole=True,
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        MACHINE.text(
            "--ray",
            "ADDRESS",
            "Measure on this Ray cluster, whose machines share the clips and --output.",
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    print_config: PrintConfig = False,
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
    from moda_cli.evaluate.tables import left_out_groups
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
    with (
        count_kept("measurements", shown=not quiet) as count,
        progress_bar("measuring", "what", shown=not quiet) as draw,
    ):

        def on_look(done: int, total: int, what: str) -> None:
            count(done - 1, total)
            if draw:
                draw(done - 1, total, what=what)

        results = session.evaluate(request, on_look)
    for (metric, side, reason), ids in left_out_groups(results["left_out"]).items():
        names = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if ids[NAMED:] else "")
        what = f"{metric} of {names}" if metric else names
        typer.echo(f"left out: {what} ({side}): {reason}", err=True)
    for note in results["notes"]:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(results))
    elif not quiet:
        _show(results)
        typer.echo(request.folder / "report.html")
    if opened:
        open_file(request.folder / "report.html")
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
        for set_off, row in tables.ruled(rows):
            if set_off:
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
    for (status, reason), metrics in tables.unmeasured(results).items():
        typer.echo(f"{', '.join(metrics)}: {status}; {reason}")


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
