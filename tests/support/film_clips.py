"""Videos of a talking head, drawn by the rig itself, whose frames tell their number."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.media import write_video
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, POSE, encode
from moda_cli.studio import RigStudio

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"
NEUTRAL = torch.zeros(70)
FPS = 30
MARK = 12  # pixels of a corner that is as bright as its frame's number says
STEP = 4  # of 255 from frame to frame


def speech_of(jaw: Sequence[float], turn: Sequence[float] | None = None) -> Tensor:
    """Motion (T, 70) of a jaw, in its units, and of a head that turns by so many degrees."""
    articulators = torch.zeros(len(jaw), 8)
    articulators[:, 0] = torch.tensor(np.asarray(jaw), dtype=torch.float32)
    motion = NEUTRAL.repeat(len(jaw), 1)
    motion[:, EXPRESSION] = encode(articulators)
    if turn is not None:
        motion[:, POSE][:, 1] = torch.tensor(np.asarray(turn), dtype=torch.float32)
    return motion


def wave(frames: int, period: float, most: float = 35.0, least: float = -8.0) -> np.ndarray:
    """A jaw (T,) that opens and closes."""
    turn = 2 * np.pi * np.arange(frames) / period
    return least + (most - least) * (0.5 - 0.5 * np.cos(turn))


@cache
def talker(frames: int = 45, size: int = 320) -> tuple[Picture, ...]:
    """A head that turns and says something: frames (size, size, 3)."""
    studio = RigStudio(None, None)
    clip = ClipConfig(PORTRAIT, Path("-"), Path("-"), render=RenderConfig(size=size))
    portrait = studio.look(clip)
    turn = 8 * np.sin(2 * np.pi * np.arange(frames) / 40)
    motion = speech_of(wave(frames, 11), turn)
    drawn = studio.renderer(portrait, NEUTRAL, absolute=False).render(motion)
    return tuple(numbered(frame, k) for k, frame in enumerate(drawn))


def numbered(frame: Picture, number: int) -> Picture:
    frame = frame.copy()
    frame[:MARK, :MARK] = number * STEP
    return frame


def number_of(frame: Picture) -> int:
    """Which frame of a video it was."""
    return round(float(frame[2 : MARK - 2, 2 : MARK - 2].mean()) / STEP)


def film(path: Path, frames: Sequence[Picture], fps: float = FPS) -> Path:
    """These frames as a video of little loss."""
    write_video(iter(frames), path, fps, crf=8)
    return path
