"""`moda train`."""

import json
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from moda_cli.cli.app import app, start_logging
from moda_cli.cli.bar import progress_bar
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
from moda_cli.config import ModelConfig
from moda_cli.errors import UsageError
from moda_cli.train.presets import PRESETS

TRAINING = Panel("Training")

EXAMPLES = """
Examples:
  moda train features/ -o runs/a --config mini             a small model, on one processor
  moda train features/ -o runs/b --set batch_size=32       the paper's settings but one
  moda train me/ -o runs/me --config mini --from mini      the bundled model learns one speaker
  torchrun --nproc-per-node 8 -m moda_cli train features/ -o runs/c
"""


@app.command(epilog=EXAMPLES)
def train(
    features: Annotated[
        Path,
        FILES.argument("FEATURES", "Folder written by `moda extract`."),
    ],
    output: Annotated[
        Path, FILES.text("--output", "FOLDER", "Of the run; one that is there goes on.", "-o")
    ],
    push: Annotated[
        str | None, FILES.text("--push", "OWNER/NAME", "Upload the model to the Hub.")
    ] = None,
    config: Annotated[
        str,
        TRAINING.text(
            "--config", "NAME", f"{' '.join(PRESETS)}, or a TOML or JSON file.", values=PRESETS
        ),
    ] = "moda",
    start: Annotated[
        str | None,
        TRAINING.text(
            "--from",
            "MODEL",
            "Fine-tune: begin with the weights of mini, moda or a run.",
            values=("mini", "moda"),
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        TRAINING.text("--set", "FIELD=VALUE", "Change a setting; can be repeated."),
    ] = None,
    alse: Annotated[
        Path | None,
        TRAINING.text("--alse", "RUN", "A trained sync expert, for its loss (ALSE)."),
    ] = None,
    resume: Annotated[
        bool,
        TRAINING.switch("--resume", "Fail if there is no checkpoint to go on from."),
    ] = False,
    tensorboard: Annotated[
        bool, TRAINING.switch("--tensorboard", "Also log for TensorBoard.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        MACHINE.number(
            "--workers",
            "Processes that prepare samples. Default: 2, for a GPU up to 12.",
            0,
            256,
            whole=True,
        ),
    ] = None,
    fsdp: Annotated[
        bool,
        MACHINE.switch("--fsdp", "Under torchrun, split the model over the processes."),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    print_config: PrintConfig = False,
) -> None:
    """Train a model on FEATURES.

    `torchrun --nproc-per-node N -m moda_cli train ...` trains on N devices.
    """
    start_logging(quiet, verbose)
    from moda_cli.train.settings import train_config

    changes = [*(set_ or []), *([f"alse={alse}"] if alse else [])]
    settings = train_config(config, changes, start)
    if push is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", push):
        raise UsageError(f"--push {push} is no repository", hint="give it as owner/name")
    from moda_cli.cli.train_view import Progress, closing_lines, say
    from moda_cli.train.loop import train  # torch loads here: `moda --help` stays instant

    main = os.environ.get("RANK", "0") == "0"
    shown = main and not quiet
    with progress_bar("training", "loss", "rate", shown=shown) as draw:
        progress = Progress(draw, shown)
        train(
            features,
            output,
            settings,
            device=device,
            workers=workers,
            fsdp=fsdp,
            tensorboard=tensorboard,
            resume=resume,
            on_step=progress.on_step,
            say=say if shown else lambda _: None,
        )
    if not main:
        return
    for line in closing_lines(output, isinstance(settings.model, ModelConfig)) if shown else ():
        say(line)
    url = None
    if push:
        from moda_cli.train.push import push_model

        url = push_model(output, push)
    if as_json:
        typer.echo(json.dumps({"output": str(output), "url": url, **progress.last}))
    elif not quiet:
        typer.echo(url or output)
