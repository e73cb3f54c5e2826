"""What the metrics of all clips say about the set: the results object that tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS
from moda_cli.device import device_name
from moda_cli.errors import InputError
from moda_cli.evaluate.bootstrap import mean_over_clips, of_clips
from moda_cli.evaluate.cache import Arrays
from moda_cli.evaluate.catalogue import Metric, Selection, series
from moda_cli.evaluate.columns import COLUMNS
from moda_cli.evaluate.evaluation import SIDES, Evaluation, Opened
from moda_cli.evaluate.inputs import as_row
from moda_cli.evaluate.protocol import Protocol
from moda_cli.files import sha256_of
from moda_cli.media.provenance import versions
from moda_cli.weights import store

SCHEMA = "moda-eval-results-1"
FID_FRAMES = 2048  # features of a frame; the covariance of fewer frames has no full rank

Results = dict[str, Any]


def results_of(evaluation: Evaluation, label: str, reasons: Mapping[str, str]) -> Results:
    """The results object, as results.schema.json describes it.

    reasons: why metrics are not measured at all.
    """
    reasons = dict(reasons)
    opened, seen = evaluation.run()
    protocol, metrics = evaluation.protocol, evaluation.metrics
    values: dict[str, dict[str, dict[str, float]]] = {side: {} for side in SIDES}  # by clip
    for (clip, name, side), arrays in seen.items():
        metric = next(m for m in metrics if m.name == name)
        values[side].setdefault(clip, {}).update(metric.values(arrays))
    for item in opened:
        if timing := item.pair.timing:
            row = values["generated"].setdefault(item.pair.id, {})
            row["rtf_encode"] = timing.encode_seconds / timing.duration
            if timing.seconds is not None:
                row["rtf"] = timing.seconds / timing.duration
    summary: dict[str, dict[str, Any]] = {side: {} for side in SIDES}
    for side in SIDES:
        columns = {column: None for row in values[side].values() for column in row}
        for column in columns:
            numbers = np.array([row[column] for row in values[side].values() if column in row])
            estimate = mean_over_clips(numbers, protocol.bootstrap, protocol.seed)
            summary[side][column] = asdict(estimate)
    for metric in metrics:
        both = [o for o in opened if all((o.pair.id, metric.name, s) in seen for s in SIDES)]
        if metric.distance and both:
            try:
                summary["generated"][metric.name] = evaluation.distance(metric, both)
            except InputError as error:
                reasons[metric.name] = str(error)
    _set_rtf(summary["generated"], opened, protocol)
    clips = [_clip_row(item, values, seen, evaluation) for item in opened]
    return {
        "schema": SCHEMA,
        "label": label,
        "versions": {**versions(), **library_versions()},
        "device": device_name(evaluation.device),
        "protocol": protocol.described(),
        "seeds": {"bootstrap": protocol.seed},
        "weights": weights_table(metrics),
        "split": evaluation.inputs.split,
        "dataset": evaluation.inputs.dataset,
        "unused_references": evaluation.inputs.unused,
        "metrics": metric_states(evaluation.selection, summary["generated"], reasons),
        "summary": summary,
        "clips": clips,
        "left_out": [as_row(row) for row in evaluation.left_out],
        "notes": [
            *evaluation.inputs.notes,
            *(item.note for item in opened if item.note),
            *few_frames(summary["generated"], evaluation.inputs.dataset),
        ],
    }


def few_frames(summary: Mapping[str, Any], dataset: str | None) -> list[str]:
    """What is to be said of an FID that stands beside published ones."""
    frames = summary["fid"]["samples"] if dataset and "fid" in summary else FID_FRAMES
    if frames >= FID_FRAMES:
        return []
    why = f"fewer than the {FID_FRAMES} features of each, so it comes out too high"
    return [f"FID rests on {frames} frames, {why}: not comparable with the published rows"]


def _set_rtf(summary: dict[str, Any], opened: Sequence[Opened], protocol: Protocol) -> None:
    """Of the set: all the time over all the duration, not the mean of the clips' ratios."""
    timings = [item.pair.timing for item in opened if item.pair.timing]
    encoded = [(t.encode_seconds, t.duration) for t in timings]
    plain = [(t.seconds, t.duration) for t in timings if t.seconds is not None]
    for column, rows in (("rtf_encode", encoded), ("rtf", plain)):
        if rows:
            table = np.array(rows)

            def ratio(chosen: Sequence[int], table: NDArray[np.float64] = table) -> float:
                seconds, durations = table[list(chosen)].sum(axis=0)
                return float(seconds / durations)

            estimate = of_clips(ratio, len(rows), protocol.bootstrap, protocol.seed)
            summary[column] |= {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _clip_row(
    item: Opened,
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    seen: Mapping[tuple[str, str, str], Arrays],
    evaluation: Evaluation,
) -> dict[str, Any]:
    name, clips = item.pair.id, item.clips
    over_time: dict[str, list[float | None]] = {}
    for metric in evaluation.metrics:
        if arrays := seen.get((name, metric.name, "generated")):
            over_time |= series(metric.name, arrays, FPS)
    real = clips.get("reference")
    return {
        "id": name,
        "generated": str(item.pair.generated),
        "generated_sha256": clips["generated"].sha256,
        "reference": str(item.pair.reference) if item.pair.reference else None,
        "reference_sha256": sha256_of(item.pair.reference) if item.pair.reference else None,
        "reference_prepared": str(real.path) if real else None,
        "portrait": str(item.pair.portrait) if item.pair.portrait else None,
        "first_frame": item.pair.window.first,
        "frames": clips["generated"].frames,
        "values": {side: dict(values[side].get(name, {})) for side in SIDES},
        "timing": asdict(item.pair.timing) if item.pair.timing else None,
        "over_time": over_time,
        "left_out": [
            as_row(row) for row in evaluation.left_out if row.id == name and row.metric is not None
        ],
    }


def metric_states(
    selection: Selection, summary: Mapping[str, Any], reasons: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Whether each metric was measured, and what to do where it was not."""
    measured = {column.metric for column in COLUMNS if column.key in summary}
    states: dict[str, dict[str, Any]] = {}
    for metric in selection.metrics:
        ok = metric.name in measured
        states[metric.name] = {
            "status": "measured" if ok else "not measured",
            "version": metric.version,
            "reason": "" if ok else reasons.get(metric.name, "no clip allows it"),
        }
    for name, reason in reasons.items():
        states.setdefault(name, {"status": "not measured", "version": None, "reason": reason})
    for name, missing in selection.missing.items():
        reason = f"run `{store.command_for(missing)}`"
        states[name] = {"status": "weights missing", "version": None, "reason": reason}
    return states


def weights_table(metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    lock = store.read_lock()
    names = dict.fromkeys(name for metric in metrics for name in metric.components)
    return {
        name: {
            "source": lock[name].source,
            "revision": lock[name].revision,
            "sha256": lock[name].sha256,
            "loaded_sha256": lock[name].path_sha256,
        }
        for name in names
    }


def library_versions() -> dict[str, str]:
    import cv2
    import imageio_ffmpeg

    return {
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "ffmpeg": imageio_ffmpeg.get_ffmpeg_version(),
    }
