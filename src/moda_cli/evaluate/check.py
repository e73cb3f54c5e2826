"""`moda generate --check`: whether the mouth of a clip that was just made follows its sound."""

from dataclasses import dataclass
from pathlib import Path

from moda_cli.media.waves import Wave
from moda_cli.metrics.video import Measures, measure_video

MAX_LAG = 2  # frames


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a clip's mouth follows its sound."""

    passed: bool
    reason: str  # why not, or why that cannot be told
    measures: Measures


def check_clip(path: Path, wave: Wave, min_sync: float) -> Check:
    """Check a clip that was just made: its mouth must move with the sound (N,) at 16 kHz.

    Their correlation has to be `min_sync` or more, and no better further than MAX_LAG frames away.
    A clip too short or too quiet to tell passes, with the reason. Raises InputError for a file that
    cannot be read.
    """
    measures = measure_video(path, wave)
    if measures.sync is None:
        return Check(measures.tracked > 0, measures.reasons["sync"], measures)
    reason = ""
    if measures.sync < min_sync:
        reason = f"mouth and sound correlate by {measures.sync:.2f} < {min_sync:g}"
    elif measures.lag is not None and abs(measures.lag) > MAX_LAG:
        reason = f"the mouth is {measures.lag} frames late"
    return Check(not reason, reason, measures)
