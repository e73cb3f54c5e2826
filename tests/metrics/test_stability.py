"""Faults put into a good clip move the measure of that fault, and the right way."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moda_cli.face.search import find_faces
from moda_cli.media import read_audio
from moda_cli.media.pictures import read_image
from moda_cli.metrics.mouth import FaceFollower
from moda_cli.metrics.stability import (
    Stability,
    StabilityMeter,
    repeated_share,
    silence_motion,
    silent_frames,
)
from moda_cli.motion import ARTICULATORS, MOTION_DIM, encode
from moda_cli.render.rig.rig import Rig

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEECH = read_audio(EXAMPLES / "speech.wav")
NUM_FRAMES = 75
Picture = NDArray[np.uint8]
# A square inside the 320 px frames, between pixels.


@pytest.fixture(scope="module")
def frames() -> list[Picture]:
    """A face that sways and talks for three seconds, 320 px."""
    size = 320
    picture = np.asarray(
        cv2.resize(read_image(EXAMPLES / "portrait.png"), (size, size), None, 0, 0, cv2.INTER_AREA)
    )
    (face,) = find_faces(picture).faces
    time = torch.arange(NUM_FRAMES).double() / 25
    units = torch.zeros(NUM_FRAMES, len(ARTICULATORS)).double()
    units[:, ARTICULATORS.index("jaw")] = 25 * (1 - torch.cos(8 * time))
    motion = torch.zeros(NUM_FRAMES, MOTION_DIM).double()
    motion[:, :63] = encode(units)
    motion[:, 68] = 3 * torch.sin(1.7 * time)
    return [f.copy() for f in Rig(picture, face, torch.zeros(MOTION_DIM)).render(motion.float())]


def measure(frames: list[Picture]) -> Stability:
    follower, meter = FaceFollower(), StabilityMeter()
    for frame in frames:
        meter.add(frame, follower.look(frame))
    return meter.result()


@pytest.fixture(scope="module")
def good(frames: list[Picture]) -> Stability:
    return measure(frames)


def test_a_good_clip_is_steady(good: Stability) -> None:
    assert good.jitter < 0.004
    assert good.flicker < 0.3
    assert good.repeated == 0
    assert abs(good.sharpness_drift) < 0.1
    assert abs(good.structure_drift) < 0.1


def test_blur_lowers_sharpness_and_nothing_else(frames: list[Picture], good: Stability) -> None:
    values = [
        measure([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames]).sharpness
        for sigma in (0.7, 1.5)
    ]
    assert good.sharpness > 1.2 * values[0] > 1.5 * values[1]


def test_growing_blur_is_a_drift_of_sharpness(frames: list[Picture]) -> None:
    worse = [cv2.GaussianBlur(f, (0, 0), 0.1 + 2 * k / len(frames)) for k, f in enumerate(frames)]
    found = measure(worse)
    assert found.sharpness_drift < -0.3
    assert measure(worse[::-1]).sharpness_drift > 0.3


def test_growing_distortion_is_a_drift_of_structure(frames: list[Picture], good: Stability) -> None:
    y, x = np.mgrid[: frames[0].shape[0], : frames[0].shape[1]].astype(np.float32)

    def bent(frame: Picture, amount: float) -> Picture:
        return cv2.remap(
            frame, x + amount * np.sin(y / 18), y + amount * np.sin(x / 15), cv2.INTER_LINEAR
        )

    found = measure([bent(f, 6 * k / len(frames)) for k, f in enumerate(frames)])
    assert found.structure_drift > good.structure_drift + 0.15
    assert abs(found.sharpness_drift) < 0.3


def test_dropped_frames_shown_as_repeats_are_counted(
    frames: list[Picture], good: Stability
) -> None:
    for count in (5, 10):
        held = list(frames)
        for index in np.linspace(5, len(frames) - 5, count).astype(int):
            held[index] = held[index - 1]
        found = measure(held)
        assert found.repeated == pytest.approx(count / (len(frames) - 1), abs=0.015)
        assert found.jitter > 1.2 * good.jitter  # of 5: 1.29 times


def test_a_still_picture_repeats_nothing_unusual() -> None:
    assert repeated_share(np.zeros(100)) == 0
    assert repeated_share(np.zeros(10)) is None


def test_shaking_is_jitter(frames: list[Picture], good: Stability) -> None:
    rng = np.random.default_rng(0)
    height, width = frames[0].shape[:2]
    shaken = [
        cv2.warpAffine(
            frame,
            np.column_stack((np.eye(2), 0.5 * rng.standard_normal(2))),
            (width, height),
            borderMode=cv2.BORDER_REFLECT,
        )
        for frame in frames
    ]
    assert measure(shaken).jitter > 3 * good.jitter


def test_changing_light_is_flicker(frames: list[Picture], good: Stability) -> None:
    rng = np.random.default_rng(0)
    lit = [np.clip(f * (1 + 0.02 * rng.standard_normal()), 0, 255).astype(np.uint8) for f in frames]
    found = measure(lit)
    assert found.flicker > good.flicker + 0.4
    assert found.sharpness == pytest.approx(good.sharpness, rel=0.05)


def test_silence_is_where_nobody_speaks() -> None:
    silent = silent_frames(SPEECH, 250)
    energy = (SPEECH[:160000].reshape(250, 640).astype(np.float64) ** 2).mean(axis=1)
    assert silent.sum() >= 10
    assert energy[silent].max() < 1e-3 * np.percentile(energy, 90)
    hiss = 0.001 * np.random.default_rng(0).standard_normal(160000).astype(np.float32)
    assert silent_frames(hiss, 250).all()
    assert silent_frames(np.zeros(0, np.float32), 250).all()


def test_motion_in_silence_is_measured_in_silence_only() -> None:
    silent = silent_frames(SPEECH, 250)
    wave = np.where(np.arange(250) % 2, 0.05, -0.05)
    assert silence_motion(np.where(silent, 0.0, wave), SPEECH) == 0
    assert silence_motion(np.where(silent, wave, 0.0), SPEECH) == pytest.approx(0.05, rel=0.5)
    assert silence_motion(wave, np.tile(SPEECH[16000:24000], 20)) is None


def test_without_a_face_only_the_picture_is_measured() -> None:
    rng = np.random.default_rng(0)
    meter = StabilityMeter()
    for _ in range(30):
        meter.add(rng.integers(0, 255, (80, 100, 3)).astype(np.uint8), None)
    found = meter.result()
    assert found.repeated == 0
    assert (found.jitter, found.flicker, found.sharpness) == (None,) * 3
    assert (found.sharpness_drift, found.structure_drift) == (None, None)
