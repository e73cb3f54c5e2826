"""What can be said of a clip without downloaded weights, and `moda generate --check` by it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moda_cli import components
from moda_cli.errors import InputError
from moda_cli.evaluate.clips import Clip
from moda_cli.face.detect import FaceDetector
from moda_cli.media.waves import Wave
from moda_cli.metrics.video import Measures, measure_video

MEASURES = (
    "sync",
    "lag",
    "silence_motion",
    "jitter",
    "flicker",
    "repeated",
    "sharpness",
    "sharpness_drift",
    "structure_drift",
    "tracked",
)
REASONS = "reasons"  # beside the numbers of a look: JSON, as arrays are what is kept


def look_at_face(clip: Clip, detector: FaceDetector | None) -> dict[str, NDArray[Any]]:
    """One number per measure that applies to the clip, and why the others do not.

    Raises InputError without a face.
    """
    wave = clip.wave() if clip.info.has_sound else None
    measures = measure_video(clip, wave, detector=detector)
    if not measures.tracked:
        raise InputError("no face in any frame", hint="the clip must show one from the front")
    found = {name: getattr(measures, name) for name in MEASURES}
    arrays = {name: np.array(float(x)) for name, x in found.items() if x is not None}
    missing = {name: why for name, why in measures.reasons.items() if name in MEASURES}
    return {**arrays, REASONS: np.frombuffer(json.dumps(missing).encode(), np.uint8)}


def numbers(arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The measures that apply, of a look."""
    return {name: float(array) for name, array in arrays.items() if name != REASONS}


def reasons(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Why the others do not."""
    found: dict[str, str] = json.loads(arrays[REASONS].tobytes())
    return found


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a clip's mouth follows its sound."""

    passed: bool
    reason: str  # why not, or why that cannot be told
    measures: Measures


MAX_LAG = 2  # frames


def check_clip(path: Path, wave: Wave, min_sync: float) -> Check:
    """Check a clip that was just made: its mouth must move with the sound (N,) at 16 kHz.

    Their correlation has to be `min_sync` or more, and no better further than MAX_LAG frames away.
    A clip too short or too quiet to tell passes, with the reason. Raises InputError for a file that
    cannot be read.
    """
    measures = measure_video(path, wave, detector=components.load_detector())
    if measures.sync is None:
        return Check(measures.tracked > 0, measures.reasons["sync"], measures)
    reason = ""
    if measures.sync < min_sync:
        reason = f"mouth and sound correlate by {measures.sync:.2f} < {min_sync:g}"
    elif measures.lag is not None and abs(measures.lag) > MAX_LAG:
        reason = f"the mouth is {measures.lag} frames late"
    return Check(not reason, reason, measures)
