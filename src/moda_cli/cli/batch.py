"""`moda generate` for many clips."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import typer

from moda_cli.cli.batch_view import batch_view
from moda_cli.cli.download import download_bars
from moda_cli.config import ClipConfig
from moda_cli.errors import UsageError

SIDE_BY_SIDE = 8  # clips; a GPU waits for the launches of one, a CPU gains nothing


class Machines(NamedTuple):
    """What makes the clips, and where."""

    model: str
    renderer: str
    device: str
    dtype: str
    compiled: bool
    workers: int
    batch: int | None
    gpus: str | None
    ray: str | None


def run_batch(
    base: ClipConfig,
    files: tuple[Path | None, Path | None, Path | None, Path | None],
    machines: Machines,
    *,
    product: bool,
    shard: str,
    force: bool,
    retry_failed: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make the clips of two folders or of a list; exit 1 if some failed.

    files: PORTRAIT, AUDIO, --output, --jobs.
    """
    import torch

    from moda_cli.choice import choose
    from moda_cli.device import several_devices, threads_each
    from moda_cli.files import with_absolute_paths
    from moda_cli.jobs import batch as run
    from moda_cli.jobs.clip_list import batch_folder, jobs_from_file, jobs_from_folders, parse_shard
    from moda_cli.jobs.clips import ClipMaker
    from moda_cli.jobs.cluster import kind_of_device
    from moda_cli.jobs.workforce import Workforce
    from moda_cli.weights.download import ensure

    portrait, audio, output, listed = files
    alone: list[str] = []
    share = parse_shard(shard)
    if listed is not None:
        if portrait or audio or product:
            raise UsageError("--jobs names the portraits and speeches itself")
        jobs = jobs_from_file(listed, base, output)
    else:
        if output is None or portrait is None or audio is None:
            raise UsageError("--output is missing", hint="give a folder for the clips")
        jobs, alone = jobs_from_folders(portrait, audio, base, output, product=product)
    if machines.ray and machines.gpus:
        raise UsageError("--gpus is for this machine, --ray is for others")
    places = (
        several_devices(machines.device, machines.gpus, machines.workers)
        if not machines.ray
        else []
    )
    first = places[0] if places else machines.device.replace("auto", "cpu")
    choice = choose(machines.model, machines.renderer, torch.device(first))
    with download_bars(shown=not quiet) as on_progress:
        ensure(choice.components, on_progress)
    kind = kind_of_device(machines.ray, machines.device) if machines.ray else first
    group = machines.batch or (SIDE_BY_SIDE if kind.startswith("cuda") else 1)
    if machines.ray:
        jobs = [replace(job, clip=with_absolute_paths(job.clip, job.urls)) for job in jobs]
        workforce = Workforce([machines.device], group=group, ray=machines.ray)
    else:
        workforce = Workforce(places, threads_each(len(places)), group, isolated=True)
    prepare = ClipMaker(choice.model, choice.renderer, machines.dtype, machines.compiled)
    execute = partial(workforce.execute, prepare=prepare)
    rules = run.Rules(share, base.overwrite, force, retry_failed, strict)
    folder = batch_folder(output, listed)
    with batch_view(quiet=quiet, paths=not as_json) as view:
        if alone:
            view.say(f"without a partner of the same name: {', '.join(alone)}")
        try:
            summary = run.run(jobs, folder, choice.described(), execute, view, rules)
        except (KeyboardInterrupt, SystemExit):
            view.interrupted()
            raise
    view.ended(summary)
    if as_json:
        typer.echo(json.dumps(asdict(summary), default=str))
    if summary.failed:
        raise typer.Exit(1)
