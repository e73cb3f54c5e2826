"""The 70-number motion vector: its fields, its eight articulators, its statistics, its file."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from moda_cli import __version__
from moda_cli.config import FPS
from moda_cli.driving_template import read_template
from moda_cli.errors import InputError
from moda_cli.files import parse_json

MOTION_DIM = 70
EXPRESSION = slice(0, 63)  # offsets of 21 keypoints, index 3 * keypoint + axis
SCALE = slice(63, 64)
TRANSLATION = slice(64, 67)
POSE = slice(67, 70)  # pitch, yaw, roll in degrees
LIP_KEYPOINTS = (6, 12, 14, 17, 19, 20)
MOUTH_CHANNELS = tuple(3 * k + axis for k in (3, 7, *LIP_KEYPOINTS) for axis in range(3))
# What a head can do, widely drawn: (name, where, least, most). A frame of a file is within them.
LIMITS = (
    ("expression", EXPRESSION, -10.0, 10.0),
    ("scale", SCALE, 0.01, 100.0),
    ("translation", TRANSLATION, -10.0, 10.0),
    ("pose", POSE, -180.0, 180.0),
)
MOTION_HINT = (
    "a motion file is written by `moda generate --save-motion`; videos are known by their endings,"
    " such as .mp4"
)
EPS = 1e-5  # added to every standard deviation, as the release does

# Effect of one unit of each articulator on (keypoint, axis), from LivePortrait's public portrait
# editor. A frown is negative, as there; keypoint 11 is the eye on the picture's left, 15 the right.
DIRECTION_TABLE: dict[str, dict[tuple[int, str], float]] = {
    "jaw": {(19, "y"): 0.001, (19, "z"): 0.0001, (17, "y"): -0.0001},
    "spread": {(20, "z"): -0.001, (20, "y"): -0.001, (14, "y"): -0.001},
    "round": {(14, "y"): 0.001, (3, "y"): -0.0005, (7, "y"): -0.0005, (17, "z"): -0.0005},
    "smile": {
        (20, "y"): -0.01, (14, "y"): -0.02, (17, "y"): 0.0065, (17, "z"): 0.003,
        (13, "y"): -0.00275, (16, "y"): -0.00275, (3, "y"): -0.0035, (7, "y"): -0.0035,
    },
    "lid_a": {(11, "y"): 0.001, (13, "y"): -0.0003},
    "lid_b": {(15, "y"): 0.001, (16, "y"): -0.0003},
    "brow_up": {(1, "y"): 0.001, (2, "y"): -0.001},
    "brow_frown": {(1, "x"): -0.001, (2, "x"): 0.001, (1, "y"): 0.0003, (2, "y"): -0.0003},
}  # fmt: skip
ARTICULATORS = tuple(DIRECTION_TABLE)
GAZE_UNITS = 30.0  # of LivePortrait's portrait editor in the reach of an eye
JAW_OPENS = 0.0038  # gap between the lips by a unit of jaw, in distances between the pupils


def _directions() -> Tensor:
    matrix = torch.zeros(63, len(ARTICULATORS), dtype=torch.float64)
    for column, effects in enumerate(DIRECTION_TABLE.values()):
        for (keypoint, axis), amount in effects.items():
            matrix[3 * keypoint + "xyz".index(axis), column] = amount
    return matrix


DIRECTIONS = _directions()  # (63, 8)
DECODER = torch.from_numpy(np.linalg.pinv(DIRECTIONS.numpy()))  # (8, 63); torch's wakes its threads


def encode(articulators: Tensor) -> Tensor:
    """Expression offsets (..., 63) that move the eight articulators (..., 8) off the neutral."""
    return articulators @ DIRECTIONS.to(articulators).T


def decode(offsets: Tensor) -> Tensor:
    """Articulators (..., 8) of expression offsets from a neutral (..., 63); inverts `encode`."""
    articulators: Tensor = offsets @ DECODER.to(offsets).T
    return articulators


def lips_asked(motion: Tensor, neutral: Tensor) -> Tensor:
    """Gap between the lips (...) that motion (..., 70) off a neutral (70) asks for, in IOD.

    IOD: distances between the pupils. Below 0 the lips are pressed together.
    """
    jaw = decode(motion[..., EXPRESSION] - neutral[EXPRESSION])[..., ARTICULATORS.index("jaw")]
    return JAW_OPENS * jaw


def encode_gaze(gaze: Tensor) -> Tensor:
    """Expression offsets (..., 63) that turn the eyes to `gaze` (..., 2).

    gaze: shares of what eyes can reach, to the picture's right and down, -1..1. The lids go half
    way with it, as in LivePortrait's portrait editor, where GAZE_UNITS are the end of its slider.
    """
    right, down = (gaze * GAZE_UNITS).unbind(dim=-1)
    offsets = gaze.new_zeros(*gaze.shape[:-1], 63)
    near, far = 0.001, 0.0007  # the eye on the side looked to turns further
    offsets[..., 3 * 11] = right * torch.where(right > 0, far, near)
    offsets[..., 3 * 15] = right * torch.where(right > 0, near, far)
    for eye, brow in ((11, 13), (15, 16)):
        offsets[..., 3 * eye + 1] = 0.0005 * down
        offsets[..., 3 * brow + 1] = 0.00015 * down
    return offsets


def decode_gaze(offsets: Tensor) -> Tensor:
    """How far expression offsets from a neutral (..., 63) turn the eyes to the right (...).

    Up and down cannot be told from the lids: keypoints 11 and 15 move alike for both.
    """
    sideways: Tensor = (offsets[..., 3 * 11] + offsets[..., 3 * 15]) / (0.0017 * GAZE_UNITS)
    return sideways


@dataclass(frozen=True, slots=True)
class Motion:
    """The fields of a motion vector by name."""

    expression: Tensor  # (..., 63) keypoint offsets
    scale: Tensor  # (..., 1)
    translation: Tensor  # (..., 3), z is 0
    pose: Tensor  # (..., 3) pitch, yaw, roll in degrees


def unpack(motion: Tensor) -> Motion:
    """Views of a motion tensor (..., 70) by field."""
    return Motion(*(motion[..., part] for part in (EXPRESSION, SCALE, TRANSLATION, POSE)))


def pack(motion: Motion) -> Tensor:
    """The motion tensor (..., 70) of its fields."""
    parts = (motion.expression, motion.scale, motion.translation, motion.pose)
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True, slots=True)
class Source:
    """What the motion extractor says of a portrait.

    motion: (70) physical, translation z 0, angles in degrees. kp_canonical: (21, 3).
    """

    motion: Tensor
    kp_canonical: Tensor


@dataclass(frozen=True, slots=True)
class Stats:
    """What a model directory's `stats.json` holds; all float32.

    mean, std: (70) of the training motion. neutral: (70) the resting frame a model without a motion
    extractor starts from. identity: (63) canonical keypoints it was trained with.
    """

    mean: Tensor
    std: Tensor
    neutral: Tensor
    identity: Tensor

    def normalise(self, motion: Tensor) -> Tensor:
        """z of a physical motion (..., 70); the release adds EPS to the deviation, no clamp."""
        return (motion - self.mean.to(motion)) / (self.std.to(motion) + EPS)

    def denormalise(self, z: Tensor) -> Tensor:
        """Physical motion of z (..., 70)."""
        return z * (self.std.to(z) + EPS) + self.mean.to(z)

    @classmethod
    def read(cls, path: Path) -> "Stats":
        """Raises OSError, or ValueError, TypeError or KeyError for what is no such file."""
        fields = parse_json(path.read_text())
        stats = cls(**{name: torch.tensor(fields[name]) for name in cls.__dataclass_fields__})
        for name in cls.__dataclass_fields__:
            values, size = getattr(stats, name), 63 if name == "identity" else MOTION_DIM
            if values.shape != (size,) or not values.isfinite().all():
                raise ValueError(f"{name} in {path.name} is not {size} finite numbers")
        if (stats.std < 0).any():
            raise ValueError(f"std in {path.name} is negative")
        return stats

    def write(self, path: Path) -> None:
        fields = {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}
        path.write_text(json.dumps(fields))


def resample(pieces: Iterable[Tensor], fps: float, source_fps: float = FPS) -> Iterator[Tensor]:
    """Consecutive motion (n, 70), linearly interpolated from its rate to `fps` as it comes.

    Frame k shows the moment k / fps; T frames give ceil(T fps / source_fps). Rows
    may be of any width.
    """
    if fps == source_fps:
        yield from pieces
        return
    known, base, made = torch.empty(0), 0, 0  # `known` begins at input frame `base`
    for piece in pieces:
        base += max(0, len(known) - 1)
        known = torch.cat((known[-1:], piece)) if len(known) else piece
        count = math.floor((base + len(known) - 1) * fps / source_fps) + 1
        yield interpolate(known, torch.arange(made, count) * source_fps / fps - base)
        made = count
    count = math.ceil((base + len(known)) * fps / source_fps)
    yield interpolate(known, torch.arange(made, count) * source_fps / fps - base)


def interpolate(motion: Tensor, position: Tensor) -> Tensor:
    """Rows of motion (T, n) at frame positions (m,) between them; the ends are held."""
    low = position.floor().long().clamp(0, len(motion) - 1)
    high = (low + 1).clamp(max=len(motion) - 1)
    return torch.lerp(motion[low], motion[high], (position - low).clamp(0, 1).to(motion)[:, None])


@dataclass(frozen=True, slots=True)
class Recording:
    """What a motion file holds. Absolute motion was made for its portrait's own pose and face."""

    motion: Tensor  # (T, 70) physical
    neutral: Tensor  # (70) the motion at which a face is the portrait's
    absolute: bool = False
    gaze: Tensor | None = None  # (T, 2) where the eyes look beside that, as a renderer takes it


def save_motion(path: Path, recording: Recording, metadata: dict[str, str]) -> None:
    """Write a motion file: `motion` (T, 70), `neutral` (70), any `gaze` (T, 2), and metadata."""
    tensors = {
        "motion": recording.motion.float().contiguous(),
        "neutral": recording.neutral.float().clone(),  # it may be a row of the motion,
    }
    if recording.gaze is not None:
        tensors["gaze"] = recording.gaze.float().contiguous()
    mode = "absolute" if recording.absolute else "relative"
    save_file(tensors, path, {"fps": str(FPS), "mode": mode, "version": __version__, **metadata})


def load_motion(path: Path) -> Recording:
    """What a motion file holds, at 25 fps; without a neutral, that is its frame 0.

    A `.pkl` is one of LivePortrait's driving templates. Motion of another rate, as the file says
    it, is resampled. Raises InputError for a file that is not a motion file, that a later release
    wrote, or that no head could follow.
    """
    recording, said = _read(path)
    motion, neutral, gaze = recording.motion, recording.neutral, recording.gaze
    if motion.ndim != 2 or motion.shape[1] != MOTION_DIM or not len(motion):
        shape = tuple(motion.shape)
        raise InputError(f"{path} holds no (T, 70) motion: {shape}", hint=MOTION_HINT)
    if neutral.numel() != MOTION_DIM:
        shape = tuple(neutral.shape)
        raise InputError(f"{path} holds no (70) neutral: {shape}", hint=MOTION_HINT)
    if gaze is not None and (gaze.shape != (len(motion), 2) or not (gaze.abs() <= 1).all()):
        raise InputError(f"{path} holds no (T, 2) gaze within -1 to 1", hint=MOTION_HINT)
    neutral = neutral.flatten()
    if not (motion.isfinite().all() and neutral.isfinite().all()):
        raise InputError(f"{path} holds non-finite motion", hint=MOTION_HINT)
    for name, part, least, most in LIMITS:
        values = torch.cat((motion, neutral[None]))[:, part]
        if (beyond := values[(values < least) | (values > most)]).numel():
            limits = f"outside {least:g} to {most:g}"
            reason = f"{path} moves no head: {name} {float(beyond[0]):g} is {limits}"
            raise InputError(reason, hint=MOTION_HINT)
    if said.get("mode", "relative") not in ("absolute", "relative"):
        reason = f"{path} is neither relative nor absolute motion: mode {said['mode']}"
        raise InputError(reason, hint=MOTION_HINT)
    release = said.get("version", __version__).split(".")[0]
    if not release.isdecimal() or int(release) > int(__version__.split(".")[0]):
        hint = "update moda, or save the motion again with this one"
        raise InputError(f"{path} was written by moda {said['version']}", hint=hint)
    rate = re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", said.get("fps", str(FPS)))
    if rate is None or not 1 <= float(rate[0]) <= 1000:
        reason = f"{path} names no rate from 1 to 1000 fps: {said['fps']}"
        raise InputError(reason, hint=MOTION_HINT)

    def at_fps(rows: Tensor) -> Tensor:
        return torch.cat(list(resample([rows], FPS, float(rate[0]))))

    looks = None if gaze is None else at_fps(gaze)
    return Recording(at_fps(motion), neutral, said.get("mode") == "absolute", looks)


def _read(path: Path) -> tuple[Recording, dict[str, str]]:
    """A file's tensors as they are, and its metadata. Raises InputError for what is none."""
    if path.suffix.lower() == ".pkl":
        motion, rate = read_template(path)
        return Recording(motion, motion[0]), {"fps": f"{rate:.6f}"}
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            motion = file.get_tensor("motion").float()
            neutral = (file.get_tensor("neutral") if "neutral" in names else motion[:1]).float()
            gaze = file.get_tensor("gaze").float() if "gaze" in names else None
            return Recording(motion, neutral, gaze=gaze), file.metadata() or {}
    except (OSError, SafetensorError, IndexError) as error:
        raise InputError(f"cannot read motion from {path}: {error}", hint=MOTION_HINT) from None
