"""How a clip is spoken: where phrases begin and end, and what is stressed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS, SAMPLES_PER_FRAME
from moda_cli.data.synthetic.curves import Curve, gaussian
from moda_cli.data.synthetic.visemes import Phone

PAUSE_S = 0.25  # a shorter silence belongs to articulation (Goldman-Eisler 1968)
STRESSED = (0.1, 0.6)  # how far a stressed syllable rises above its surroundings, at least, at most
APART_S = 0.2  # stressed syllables are further apart


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a body that speaks keeps time with."""

    num_frames: int
    starts: tuple[int, ...]  # frames at which phrases begin, each after a pause
    ends: tuple[int, ...]  # the frames behind them
    stressed: tuple[int, ...]  # frames
    stress: tuple[float, ...]  # of each, within STRESSED

    @property
    def speaking(self) -> Curve:
        """1 within phrases, 0 in pauses (T)."""
        curve = np.zeros(self.num_frames)
        for start, end in zip(self.starts, self.ends, strict=True):
            curve[start:end] = 1
        return curve

    def around(self, frames: Sequence[int], before_s: float, after_s: float) -> NDArray[np.bool_]:
        """Which frames (T) lie that near to one of `frames`."""
        near = np.zeros(self.num_frames, bool)
        for frame in frames:
            near[max(0, frame - round(before_s * FPS)) : frame + round(after_s * FPS)] = True
        return near


def delivery(phones: Sequence[Phone], wave: NDArray[np.float32], num_frames: int) -> Delivery:
    """How phones are spoken in a wave (N,), the speech alone without noise."""
    phrases: list[list[float]] = []
    for symbol, start, end in phones:
        if symbol == "SIL":
            continue
        if phrases and start - phrases[-1][1] < PAUSE_S:
            phrases[-1][1] = end
        else:
            phrases.append([start, end])
    frames = np.round(np.array(phrases).reshape(-1, 2) * FPS).astype(int).clip(0, num_frames)
    stress = emphasis(wave)[:num_frames]
    reach = round(APART_S * FPS)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(stress, reach), 2 * reach + 1)
    peaks = np.flatnonzero((stress >= windows.max(axis=1)) & (stress > STRESSED[0]))
    return Delivery(
        num_frames,
        tuple(frames[:, 0].tolist()),
        tuple(frames[:, 1].tolist()),
        tuple(peaks.tolist()),
        tuple(stress[peaks].clip(*STRESSED).tolist()),
    )


def emphasis(wave: NDArray[np.float32]) -> Curve:
    """Stress (T), around -0.5..1: short-term level against its surroundings, 0 in silence."""
    frames = wave[: len(wave) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    level = np.sqrt(np.mean(np.square(frames.reshape(-1, SAMPLES_PER_FRAME), dtype=float), axis=1))
    level /= max(float(np.quantile(level, 0.95)), 1e-4)
    return gaussian(level, 2.5) - gaussian(level, 20)
