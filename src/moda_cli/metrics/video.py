"""Everything that can be said of a talking-head video without its reference or any weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moda_cli.errors import InputError
from moda_cli.media import probe_video, read_video, read_video_sound
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.metrics.mouth import FaceFollower, FaceView, audio_mouth_fits
from moda_cli.metrics.stability import StabilityMeter, silence_motion

OF_SOUND = ("sync", "lag", "lag_fit", "silence_motion")
LEAST_TRACKED = 0.5  # share of frames with a face, for measures of the face


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured. None does not apply, and `reasons` says why by name."""

    num_frames: int  # at 25 fps
    tracked: float  # share of frames in which the face was followed
    sync: float | None  # correlation of mouth opening and loudness within a frame of no lag
    lag: int | None  # frames the mouth is late against the sound; negative is a late sound
    lag_fit: float | None  # the correlation at that lag, the largest of +-15 frames
    silence_motion: float | None  # rms of the opening while nobody speaks, IOD
    jitter: float | None  # second difference of eyes and nose, IOD
    flicker: float | None  # difference from the neighbouring frames outside the head, grey levels
    repeated: float | None  # share of frames that show the one before again
    sharpness: float | None  # finest detail of the face as a share of coarser
    sharpness_drift: float | None  # its change from the first fifth to the last, as a share
    structure_drift: float | None  # likeness to the first face lost by the last fifth
    reasons: dict[str, str] = field(default_factory=dict)


def measure_video(
    video: Path | Iterable[Picture],
    wave: Wave | None = None,
    *,
    watch: Callable[[Picture, FaceView | None], None] = lambda *_: None,
) -> Measures:
    """The measures of a video file, or of frames (H, W, 3) at 25 fps, in one pass.

    wave: 16 kHz sound that starts with frame 0; of a file its own by default. watch(frame, view)
    is called for every frame with its face. Raises InputError for a file that cannot be read or a
    video without frames.
    """
    frames = read_video(video) if isinstance(video, Path) else video
    if wave is None and isinstance(video, Path) and probe_video(video).has_sound:
        wave = read_video_sound(video)
    follower, meter = FaceFollower(), StabilityMeter()
    openings: list[float] = []  # nan where there was no face
    for frame in frames:
        view = follower.look(frame)
        openings.append(view.face.opening if view else np.nan)
        meter.add(frame, view)
        watch(frame, view)
    openness = np.array(openings)
    if not len(openness):
        raise InputError("there is no frame to measure")
    tracked = float(np.isfinite(openness).mean())
    found = meter.result()

    reasons: dict[str, str] = {}
    sync: float | None = None
    lag: int | None = None
    lag_fit: float | None = None
    motion: float | None = None
    if wave is None:
        reasons |= dict.fromkeys(OF_SOUND, "the video has no sound")
    elif tracked < LEAST_TRACKED:
        why = f"a face was followed in {tracked:.0%} of the frames"
        reasons |= dict.fromkeys(OF_SOUND, why)
    else:
        lags, fits = audio_mouth_fits(openness, wave)
        if fits.any():
            best = int(fits.argmax())
            lag, lag_fit = int(lags[best]), float(fits[best])
            sync = float(fits[abs(lags) <= 1].max())
        else:
            reasons |= dict.fromkeys(OF_SOUND[:3], "nothing is said, or the mouth never moves")
        motion = silence_motion(openness, wave)
        if motion is None:
            reasons["silence_motion"] = "the sound has no pauses of some length"
    missing = {
        "jitter": "no face was followed",
        "flicker": "the head fills the picture, or no face was followed",
        "repeated": "the video is shorter than a second",
        "sharpness": "no face was followed",
        "sharpness_drift": "the face was not followed for 2 s",
        "structure_drift": "the face was not followed for 2 s",
    }
    reasons |= {name: why for name, why in missing.items() if getattr(found, name) is None}
    return Measures(
        len(openness),
        tracked,
        sync,
        lag,
        lag_fit,
        motion,
        found.jitter,
        found.flicker,
        found.repeated,
        found.sharpness,
        found.sharpness_drift,
        found.structure_drift,
        reasons,
    )
