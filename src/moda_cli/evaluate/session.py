"""One `moda eval`: its inputs, its clips where they are to be made, its results as files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from moda_cli.choice import choose
from moda_cli.data import splits
from moda_cli.device import forbid_tf32, resolve_device, resolve_dtype
from moda_cli.errors import InputError, UsageError
from moda_cli.evaluate import inputs, report, tables, timing
from moda_cli.evaluate.cache import Cache
from moda_cli.evaluate.catalogue import Selection, select_metrics
from moda_cli.evaluate.evaluation import Evaluation, OnLook
from moda_cli.evaluate.inputs import Inputs, LeftOut, Timing
from moda_cli.evaluate.protocol import Protocol
from moda_cli.evaluate.results import Results, results_of
from moda_cli.evaluate.workers import fill_cache
from moda_cli.files import atomic_write
from moda_cli.jobs.cluster import kind_of_device
from moda_cli.jobs.workforce import Workforce
from moda_cli.weights.download import ensure

ON_A_CLUSTER = (
    "RTF was timed on a Ray cluster: one CPU thread a clip, and other clips beside it on each node"
)


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What is to be measured, and where the results go."""

    generated: Path  # a clip, a folder of clips, or a batch's report.jsonl
    reference: Path | None = None  # the same of real clips, or the root of a split's data set
    output: Path | None = None  # None: beside the generated clips
    split: str | None = None
    annotations: Path | None = None
    metrics: Sequence[str] = ()  # none: all whose weights are there
    label: str | None = None  # of the measured row; None: the folder's name
    reference_row: bool = True
    device: str = "auto"
    workers: int = 1  # processes that look at clips
    ray: str | None = None  # address of a cluster that does instead
    generate: bool = False
    model: str = "auto"
    renderer: str = "auto"
    dtype: str = "auto"
    seed: int = 42
    protocol: Protocol = field(default_factory=Protocol)

    @property
    def source(self) -> Path:
        """The folder of the generated clips; of one clip its name without suffix."""
        generated = self.generated.resolve()
        if generated.suffix == ".jsonl":
            return generated.parent
        return generated.with_suffix("") if generated.is_file() else generated

    @property
    def folder(self) -> Path:
        return self.output or self.source.with_name(f"{self.source.name}-eval")


def evaluate(request: EvalRequest, on_look: OnLook | None = None) -> Results:
    """The results, also written to the request's folder: JSON, CSV, LaTeX, HTML, manifest.

    on_look(done, of, what) follows. Raises UsageError for options that do not fit, InputError where
    nothing can be measured, WeightsError where a metric asked for by name lacks its weights.
    """
    if request.generate and (request.split is None or request.generated.suffix == ".jsonl"):
        raise UsageError("--generate makes the clips of a --split in a folder", hint="give both")
    device = resolve_device("cpu" if request.ray else request.device)
    forbid_tf32()
    selection = select_metrics(request.metrics, request.protocol)
    folder = request.folder
    inputs.check_folders(request.generated, request.reference, made=not request.generate)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from None
    cache = Cache(folder / "cache")
    given, generation = _inputs(request, device, cache, on_look)
    selection, reasons = applicable(selection, given, bool(request.metrics))
    evaluation = Evaluation(
        given, selection, request.protocol, cache, device, request.reference_row, on_look
    )
    devices: list[str] = []
    if selection.metrics and (request.ray or (request.workers > 1 and len(given.pairs) > 1)):
        where = request.device if request.ray else str(device)
        evaluation.crashed, devices = fill_cache(evaluation, request.workers, request.ray, where)
    results = results_of(evaluation, request.label or request.source.name, reasons)
    if not results["clips"]:
        first = evaluation.left_out[0]
        raise InputError(f"no clip can be measured; {first.id}: {first.reason}")
    results["generation"] = generation
    if devices:
        results["device"] = ", ".join(devices)
    write_results(results, given, folder)
    return results


def applicable(
    selection: Selection, given: Inputs, named: bool
) -> tuple[Selection, dict[str, str]]:
    """The metrics that these inputs allow, and why the others are not measured.

    Raises UsageError for one that was asked for by name.
    """
    compared = any(pair.reference for pair in given.pairs)
    pictured = compared or any(pair.portrait for pair in given.pairs)
    reasons = {}
    for metric in selection.metrics:
        if metric.distance and not compared:
            reasons[metric.name] = "it compares with real clips: give --reference"
        elif metric.pictured and not pictured:
            reasons[metric.name] = "it compares with the portrait: give --reference"
    if named and reasons:
        name, reason = next(iter(reasons.items()))
        raise UsageError(f"{name} cannot be measured: {reason}")
    kept = [metric for metric in selection.metrics if metric.name not in reasons]
    return replace(selection, metrics=kept), reasons


def _inputs(
    request: EvalRequest, device: torch.device, cache: Cache, on_look: OnLook | None
) -> tuple[Inputs, dict[str, Any] | None]:
    """What is to be compared, made first where that is asked for, and how it was made."""
    protocol, split, root = request.protocol, request.split, request.reference
    timings: dict[str, Timing] = {}
    failed: list[LeftOut] = []
    generation = None
    if request.generate and split and root:
        if request.ray:
            device = torch.device(kind_of_device(request.ray, request.device))
        choice = choose(request.model, request.renderer, device)
        ensure(choice.components)
        if split == "wild":
            jobs = timing.case_jobs(splits.wild_cases(root))
        else:
            chosen = inputs.resolve_split(split, request.annotations)
            place = request.folder / "inputs"
            jobs = timing.materials(chosen, root, place, protocol, cache)
        generation = {
            **timing.described(choice, request.seed),
            "dtype": str(resolve_dtype(request.dtype, device)).removeprefix("torch."),
            "device": str(device),
        }
        where = request.device if request.ray else str(device)
        workforce = Workforce([where], threads=0, ray=request.ray)
        timer = timing.ClipTimer(choice.model, choice.renderer, request.dtype)
        execute = partial(workforce.execute, prepare=timer)
        timings, failed = timing.generate_all(
            jobs, request.generated, execute, request.seed, generation, on_look
        )
    given = inputs.gather(request.generated, root, split, request.annotations, protocol, cache)
    if generation:
        given = timing.with_timings(given, timings, failed)
        if request.ray:
            given.notes.append(ON_A_CLUSTER)
    return given, generation


def write_results(results: Results, given: Inputs, folder: Path) -> None:
    """Everything but the cache, each file whole or not at all."""
    texts = {
        "results.json": json.dumps(results, indent=1, allow_nan=False) + "\n",
        "clips.csv": tables.clips_csv(results),
        "table.tex": tables.latex(results),
        "report.html": report.html(results, folder),
    }
    if given.manifest is not None:
        texts[inputs.MANIFEST] = json.dumps(given.manifest, indent=1) + "\n"
    for name, text in texts.items():
        with atomic_write(folder / name) as path:
            path.write_text(text, encoding="utf-8")
