import numpy as np
import pytest
import torch

from moda_cli.media.figures import (
    FAINT,
    LABEL_HEIGHT,
    PANEL_HEIGHT,
    SHEET_WIDTH,
    contact_sheet,
    plot_motion,
)
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, encode


def flat(value: int, height: int = 90, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_contact_sheet_shows_frames_in_reading_order() -> None:
    sheet = contact_sheet([flat(10 * k) for k in range(1, 6)], 3, [f"{k} s" for k in range(5)])
    assert sheet.shape == (2 * (90 + LABEL_HEIGHT), 3 * 160, 3)
    for index in range(5):
        x, y = index % 3 * 160, index // 3 * (90 + LABEL_HEIGHT)
        assert (sheet[y : y + 90, x : x + 160] == 10 * (index + 1)).all()
        assert sheet[y + 90 : y + 90 + LABEL_HEIGHT, x : x + 160].min() < 120  # the label
    assert (sheet[90 + LABEL_HEIGHT :, 2 * 160 :] == 255).all()


def test_contact_sheet_of_large_or_few_frames() -> None:
    large = contact_sheet([flat(50, 1080, 1920)] * 4, 4, ["a"] * 4)
    assert large.shape[1] == SHEET_WIDTH
    assert contact_sheet([flat(50)], 6, ["a"]).shape[1] == 160
    with pytest.raises(ValueError, match="zip"):
        contact_sheet([flat(50)] * 2, 2, ["a"])


def motion_of(
    articulators: torch.Tensor, pose: torch.Tensor, neutral: torch.Tensor
) -> torch.Tensor:
    motion = neutral.repeat(len(articulators), 1)
    motion[:, EXPRESSION] += encode(articulators)
    motion[:, POSE] += pose
    return motion


@pytest.mark.parametrize("channel", range(len(ARTICULATORS) + 3))
def test_every_channel_is_drawn(channel: int) -> None:
    neutral = torch.linspace(-0.01, 0.01, 70)
    frames = 100
    still = motion_of(torch.zeros(frames, 8), torch.zeros(frames, 3), neutral)
    values = torch.zeros(frames, 11)
    values[:, channel] = 10 * torch.sin(torch.arange(frames) / 8)
    moving = motion_of(values[:, :8], values[:, 8:], neutral)
    wave = np.zeros(frames * 640, np.float32)
    before, after = (plot_motion(m, neutral, wave).astype(int) for m in (still, moving))
    assert before.shape == after.shape
    changed = np.flatnonzero(np.abs(before - after).max(axis=(1, 2)) > 60)
    assert len(changed) > 60  # a curve
    assert changed.max() - changed.min() < 200  # in one panel


def test_ticks_go_up_from_the_line_of_zero() -> None:
    values = torch.full((100, 11), 13.0)
    values[:50] = 0
    still = torch.zeros(70)
    picture = plot_motion(motion_of(values[:, :8], values[:, 8:], still), still, np.zeros(64000))
    column = picture[:, picture.shape[1] * 2 // 3].astype(int)  # where the curves are at 13
    zero = np.flatnonzero((column == (170, 170, 175)).all(axis=-1))[0]
    ticks = np.flatnonzero((column == FAINT).all(axis=-1))
    above = ticks[(ticks < zero) & (ticks > zero - PANEL_HEIGHT)]
    assert len(above) == 2  # 10 and 5
    assert np.ptp(np.diff([*above, zero])) <= 1


def test_the_wave_is_drawn_where_it_sounds() -> None:
    wave = np.zeros(64000, np.float32)
    wave[:32000] = np.sin(np.arange(32000) / 5)
    still = torch.zeros(100, 70)
    loud, silent = (plot_motion(still, still[0], w).astype(int) for w in (wave, 0 * wave))
    columns = np.flatnonzero(np.abs(loud - silent).max(axis=(0, 2)) > 60)
    left, right = 90, silent.shape[1] - 150
    assert columns.min() <= left + 2
    assert abs(columns.max() - (left + right) / 2) <= 2


@pytest.mark.parametrize(
    ("frames", "samples"), [(1, 640), (1, 0), (40_000, 25_600_000), (25, 90_000)]
)
def test_any_length_is_drawn(frames: int, samples: int) -> None:
    motion = torch.randn(frames, 70, generator=torch.Generator().manual_seed(0))
    picture = plot_motion(motion, motion[0], np.zeros(samples, np.float32))
    assert picture.dtype == np.uint8
    assert picture.min() < 100
