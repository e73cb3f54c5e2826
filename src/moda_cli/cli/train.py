"""`moda train`."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from moda_cli.cli.app import AsJson, Quiet, Verbose, app, start_logging
from moda_cli.cli.bar import progress_bar
from moda_cli.errors import UsageError
from moda_cli.train.presets import PRESETS


@contextmanager
def _step_bar(shown: bool) -> Iterator[Any]:
    """A callback (step, steps, row) that draws loss and steps per second."""
    with progress_bar("training", "loss", "rate", shown=shown) as draw:
        started, first = 0.0, 0

        def on_step(step: int, steps: int, row: dict[str, float]) -> None:
            nonlocal started, first
            assert draw is not None
            texts = {}
            if not started:  # the first step compiles, and may be a resumed one
                started, first = time.perf_counter(), step
            elif row:
                rate = (step - first) / (time.perf_counter() - started)
                texts = {"loss": f"loss {row['loss']:.4f}", "rate": f"{rate:.2f} steps/s"}
            draw(step, steps, **texts)

        yield on_step if draw else None


def _scores(row: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in row.items())


@app.command()
def train(
    features: Annotated[Path, typer.Argument(help="Folder written by `moda extract`.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder; a run that is there goes on.")
    ],
    config: Annotated[
        str, typer.Option(help=f"{' '.join(PRESETS)}, or a TOML or JSON file.")
    ] = "moda",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a setting; can be repeated."),
    ] = None,
    alse: Annotated[
        Path | None, typer.Option(help="A trained sync expert, for its loss (ALSE).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Fail if there is no checkpoint to go on from.")
    ] = False,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="Under torchrun, split the model over the processes.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, max=256, help="Processes that prepare samples.")
    ] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the model to the Hub.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Train a model on FEATURES.

    `torchrun --nproc-per-node N -m moda_cli train ...` trains on N devices.
    """
    start_logging(quiet, verbose)
    from moda_cli.train.settings import train_config

    settings = train_config(config, [*(set_ or []), *([f"alse={alse}"] if alse else [])])
    if push is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", push):
        raise UsageError(f"--push {push} is no repository", hint="give it as owner/name")
    from moda_cli.train.loop import train  # torch loads here: `moda --help` stays instant

    main = os.environ.get("RANK", "0") == "0"
    last: dict[str, float] = {}
    with _step_bar(main and not quiet) as bar:

        def on_step(step: int, steps: int, row: dict[str, float]) -> None:
            last.update(row)
            if bar:
                bar(step, steps, row)
            if "val_loss" in row and not quiet:
                typer.echo(_scores(row), err=True)

        train(
            features,
            output,
            settings,
            device=device,
            workers=workers,
            fsdp=fsdp,
            tensorboard=tensorboard,
            resume=resume,
            on_step=on_step,
        )
    if not main:
        return
    url = None
    if push:
        from moda_cli.train.push import push_model

        url = push_model(output, push)
    if as_json:
        typer.echo(json.dumps({"output": str(output), "url": url, **last}))
    elif not quiet:
        typer.echo(url or output)
