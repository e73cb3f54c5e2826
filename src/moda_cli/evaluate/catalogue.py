"""What `--metrics` chooses from: what each metric needs, how it looks at a clip, what it says."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from moda_cli.errors import InputError, UsageError, did_you_mean
from moda_cli.evaluate.cache import Arrays
from moda_cli.evaluate.prepared import PreparedClip
from moda_cli.evaluate.protocol import Protocol
from moda_cli.media.pictures import Picture
from moda_cli.metrics.video import measure_video
from moda_cli.weights import store

Measure = Callable[[PreparedClip, Picture | None], Arrays]  # (clip, the picture it was made from)

SMOOTHNESS_BATCH = 8  # pairs at a time on a GPU: 5 GB at 512x512
FACE_COLUMNS = {  # measures of the face that are shown, with their columns
    "sync": "lip_sync",
    "lag": "lip_lag",
    "silence_motion": "silence_motion",
    "jitter": "jitter",
    "flicker": "flicker",
    "repeated": "repeated",
    "sharpness": "sharpness",
    "sharpness_drift": "sharpness_drift",
    "structure_drift": "structure_drift",
    "tracked": "followed",
}
REASONS = "reasons"  # beside the numbers of a look: JSON, as arrays are what is kept


@dataclass(frozen=True, slots=True)
class Metric:
    """One look at a clip, which may give several columns."""

    name: str  # in --metrics
    load: Callable[[Protocol, torch.device], Measure]
    values: Callable[[Arrays], dict[str, float]]  # of a clip, by column
    components: tuple[str, ...] = ()  # weights it loads
    version: int = 1  # changes when the same clip would be scored otherwise
    distance: bool = False  # between the sets of real and generated clips, from `features`
    pictured: bool = False  # against the picture that the clip was made from
    setting: Callable[[Protocol], str] = lambda _: ""  # choices that its looks depend on
    reasons: Callable[[Arrays], dict[str, str]] = lambda _: {}  # why a clip lacks columns of it


def load_fid(protocol: Protocol, device: torch.device) -> Measure:
    from moda_cli.metrics.fid import fid_features
    from moda_cli.metrics.networks.inception import load_inception

    path = store.require("inception_fid")["inception_fid"]
    network = load_inception(load_file(path), str(path)).to(device)
    return lambda clip, _: {"features": fid_features(network, clip).numpy()}


def load_fvd(protocol: Protocol, device: torch.device) -> Measure:
    from moda_cli.metrics.fvd import fvd_features, load_fvd_network

    name = protocol.fvd_network
    network = load_fvd_network(name, store.require(name)[name], device)
    return lambda clip, _: {"features": fvd_features(network, clip, protocol.fvd).numpy()}


def load_fsim(protocol: Protocol, device: torch.device) -> Measure:
    from moda_cli.metrics.fsim import face_points, face_similarity, similarities
    from moda_cli.metrics.networks.arcface import FaceEncoder

    encoder = FaceEncoder(store.require("arcface")["arcface"])

    def measure(clip: PreparedClip, portrait: Picture | None) -> Arrays:
        if portrait is None:
            raise InputError("no picture to compare the face with", hint="give --reference")
        cosines = similarities(encoder, face_points, portrait, clip)
        score, faceless = face_similarity(cosines)
        return {"cosines": cosines, "score": np.array(score), "faceless": np.array(faceless)}

    return measure


def load_sync(protocol: Protocol, device: torch.device) -> Measure:
    from moda_cli.metrics.sync import SyncNetworks, sync_score

    paths = store.require("s3fd", "syncnet")
    networks = SyncNetworks.load(load_file(paths["s3fd"]), load_file(paths["syncnet"]), device)

    def measure(clip: PreparedClip, _: Picture | None) -> Arrays:
        score = sync_score(clip, clip.wave(), networks)
        alignment = score.alignment
        return {
            "distances": alignment.distances.mean(axis=0),
            "confidence": np.array(alignment.confidence),
            "min_distance": np.array(alignment.min_distance),
            "offset": np.array(alignment.offset),
            "coverage": np.array(score.coverage),
        }

    return measure


def load_smoothness(protocol: Protocol, device: torch.device) -> Measure:
    from moda_cli.metrics.networks.amt import load_amt_s
    from moda_cli.metrics.smoothness import interpolation_errors

    network = load_amt_s(store.require("amt_s")["amt_s"], device)
    batch = SMOOTHNESS_BATCH if device.type == "cuda" else 1
    return lambda clip, _: {"errors": interpolation_errors(network, clip, batch)}


def load_face(protocol: Protocol, device: torch.device) -> Measure:
    """The measures that need no weights."""
    return lambda clip, _: look_at_face(clip)


def look_at_face(clip: PreparedClip) -> Arrays:
    """One number per measure that applies to the clip, and why the others do not.

    Raises InputError without a face.
    """
    wave = clip.wave() if clip.info.has_sound else None
    measures = measure_video(clip, wave)
    if not measures.tracked:
        raise InputError("no face in any frame", hint="the clip must show one from the front")
    found = {name: getattr(measures, name) for name in FACE_COLUMNS}
    arrays = {name: np.array(float(x)) for name, x in found.items() if x is not None}
    missing = {name: why for name, why in measures.reasons.items() if name in FACE_COLUMNS}
    return {**arrays, REASONS: np.frombuffer(json.dumps(missing).encode(), np.uint8)}


def face_values(arrays: Arrays) -> dict[str, float]:
    """The measures that apply, of a look, by column."""
    return {FACE_COLUMNS[name]: float(x) for name, x in arrays.items() if name != REASONS}


def face_reasons(arrays: Arrays) -> dict[str, str]:
    """Why the others do not."""
    found: dict[str, str] = json.loads(arrays[REASONS].tobytes())
    return {FACE_COLUMNS[name]: why for name, why in found.items()}


def smoothness_value(arrays: Arrays) -> dict[str, float]:
    from moda_cli.metrics.smoothness import smoothness

    return {"smoothness": smoothness(arrays["errors"])}


def no_values(_: Arrays) -> dict[str, float]:
    return {}


def fvd_metric(protocol: Protocol) -> Metric:
    return Metric(
        "fvd",
        load_fvd,
        no_values,
        (protocol.fvd_network,),
        distance=True,
        setting=lambda p: f"{p.fvd.cut} {p.fvd.resize}",
    )


def all_metrics(protocol: Protocol) -> dict[str, Metric]:
    """Every metric by its name, the cheap ones first."""
    metrics = (
        Metric("fid", load_fid, no_values, ("inception_fid",), distance=True),
        fvd_metric(protocol),
        Metric(
            "fsim",
            load_fsim,
            lambda a: {"f_sim": float(a["score"]), "faceless": float(a["faceless"])},
            ("arcface",),
            pictured=True,
        ),
        Metric(
            "sync",
            load_sync,
            lambda a: {
                "sync_c": float(a["confidence"]),
                "sync_d": float(a["min_distance"]),
                "offset": float(a["offset"]),
                "tracked": float(a["coverage"]),
            },
            ("s3fd", "syncnet"),
        ),
        Metric("smooth", load_smoothness, smoothness_value, ("amt_s",)),
        Metric("face", load_face, face_values, version=3, reasons=face_reasons),
    )
    return {metric.name: metric for metric in metrics}


@dataclass(frozen=True, slots=True)
class Selection:
    """The metrics of a run, and those left out for want of weights."""

    metrics: list[Metric]
    missing: dict[str, tuple[str, ...]]  # metric: its components that are not installed


def select_metrics(names: Sequence[str], protocol: Protocol) -> Selection:
    """The metrics of these names, or with none all whose weights are there.

    Raises UsageError for a name that is none, WeightsError where a named one lacks its weights.
    """
    known = all_metrics(protocol)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, f"one of {', '.join(known)}")
            raise UsageError(f"no metric is called {name!r}", hint=hint)
    if names:
        store.require(*dict.fromkeys(c for name in names for c in known[name].components))
        return Selection([known[name] for name in dict.fromkeys(names)], {})
    lacking = {
        name: tuple(c for c in metric.components if store.installed(c) is None)
        for name, metric in known.items()
    }
    missing = {name: components for name, components in lacking.items() if components}
    return Selection([metric for name, metric in known.items() if name not in missing], missing)


def series(name: str, arrays: Arrays, per_second: int) -> dict[str, list[float | None]]:
    """What is shown over time, one number per second."""
    per_frame: dict[str, NDArray[Any]] = {}
    if name == "fsim":
        per_frame["f_sim"] = arrays["cosines"]
    if name == "smooth":
        per_frame["smoothness"] = np.repeat(1 - arrays["errors"] / 255, 2)
    return {key: _by_second(values, per_second) for key, values in per_frame.items()}


def _by_second(values: NDArray[Any], per_second: int) -> list[float | None]:
    parts = [values[k : k + per_second] for k in range(0, len(values), per_second)]
    return [float(np.nanmean(p)) if np.isfinite(p).any() else None for p in parts]
