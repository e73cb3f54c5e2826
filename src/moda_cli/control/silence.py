"""When nobody speaks, told from the energy of the sound, so that mouths may rest."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.config import FPS, SAMPLES_PER_FRAME
from moda_cli.media.waves import Read
from moda_cli.motion import lips_asked

log = logging.getLogger(__name__)

BELOW_PEAK_DB = 30.0  # what is so far below recent speech is silence,
LEAST_BELOW_DB = 15.0  # and in noise what is so far below,
ABOVE_FLOOR_DB = 10.0  # if it is no louder than the noise by this
PEAK_FALLS_DB, FLOOR_RISES_DB = 0.04, 0.12  # a frame: 1 and 3 dB a second
FIRST_PEAK_DB, SILENT_DB = -45.0, -120.0  # before anything was heard; of no sound at all
BESIDE = 4  # frames beside speech that are not touched: mouths open early and close late
FADE = torch.tensor([1.0, 3, 4, 3, 1]) / 12  # of the change to rest and back
LOUD_SHARE = 0.8  # of a second in which there is sound
STEADY_DB = 2.0  # deviation of levels: of hiss and hum 0.2 to 1.3, of voices and music 2.6 and more
STILL_IOD = 0.02  # lips that part no further all through a second do not speak
STILL_S, STILL_SHARE = 3, 0.3  # of the seconds with sound, and more, are warned of
AHEAD = BESIDE + len(FADE) // 2  # frames that must be heard beyond those that are judged


class Silence:
    """Silences of a sound, frame by frame at 25 fps, as it is heard.

    Judged by what was heard before, so that a sound that arrives is judged as one in a file: a
    frame is silent where its level is far below recent speech, or near the noise between words.
    """

    def __init__(self, read: Read | None = None) -> None:
        """read: where the sound can be read from; else it is heard by way of `hearing`."""
        self._own = self.hearing(read) if read else None
        self._rest: NDArray[np.float32] = np.zeros(0, np.float32)
        self._speech: list[bool] = []
        self._levels: list[float] = []  # dB
        self._ended = False
        self._peak, self._floor = FIRST_PEAK_DB, 0.0

    def hearing(self, read: Read) -> Read:
        """The same samples, and what is read of them is heard here too."""

        def heard(count: int) -> NDArray[np.float32]:
            wave = read(count)
            self._hear(wave, ended=len(wave) < count)
            return wave

        return heard

    def _hear(self, wave: NDArray[np.float32], *, ended: bool) -> None:
        wave = np.concatenate((self._rest, wave))
        whole = len(wave) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        if ended and whole < len(wave):
            whole += SAMPLES_PER_FRAME
            wave = np.pad(wave, (0, whole - len(wave)))
        self._ended = self._ended or ended
        self._rest = wave[whole:]
        for frame in wave[:whole].reshape(-1, SAMPLES_PER_FRAME):
            # differences of samples: rumble and hum are no speech
            power = float(np.square(np.diff(frame), dtype=np.float64).mean())
            self._levels.append(10 * np.log10(power + 10 ** (SILENT_DB / 10)))
            self._speech.append(self._is_speech(self._levels[-1]))

    def _is_speech(self, level: float) -> bool:
        self._peak = max(level, self._peak - PEAK_FALLS_DB)
        self._floor = min(level, self._floor + FLOOR_RISES_DB)
        threshold = np.clip(
            self._floor + ABOVE_FLOOR_DB, self._peak - BELOW_PEAK_DB, self._peak - LEAST_BELOW_DB
        )
        return bool(level > threshold)

    def rest(self, start: int, length: int) -> Tensor:
        """How far a mouth rests (length,) in frames from `start` on: 1 well inside a silence."""
        stop = start + length + AHEAD
        while self._own and len(self._speech) < stop and not self._ended:
            self._own(SAMPLES_PER_FRAME * (stop - len(self._speech)))
        first = start - AHEAD
        known = self._speech[max(first, 0) : stop]
        spoken = torch.zeros(stop - first)
        spoken[max(-first, 0) :][: len(known)] = torch.tensor(known, dtype=torch.float32)
        near = torch.nn.functional.max_pool1d(spoken[None], 2 * BESIDE + 1, 1)[0]
        return (1 - near).unfold(0, len(FADE), 1) @ FADE

    def is_lively(self, start: int, length: int) -> bool:
        """Whether nearly all these frames sound, and change as voices and music do."""
        sounds = bool(self.rest(start, length).mean() < 1 - LOUD_SHARE)
        return sounds and float(np.std(self._levels[start : start + length])) > STEADY_DB


def told_of_rests(motion: Iterable[Tensor], silence: Silence, neutral: Tensor) -> Iterator[Tensor]:
    """The same motion (n, 70); warns at its end of much sound that the mouth did not speak to.

    A generator that takes a voice for a part of loud music lets it pass, with nobody the wiser.
    """
    gaps, start, sounds, still = torch.zeros(0), 0, 0, 0
    for piece in motion:
        yield piece
        gaps = torch.cat((gaps, lips_asked(piece, neutral)))
        while len(gaps) >= FPS:
            if silence.is_lively(start, FPS):
                sounds += 1
                still += bool(gaps[:FPS].max() < STILL_IOD)
            gaps, start = gaps[FPS:], start + FPS
    if still >= max(STILL_S, STILL_SHARE * sounds):
        log.warning(
            "the mouth rests in %d of %d s with sound, which are taken for music: if somebody"
            " speaks there, give the voice alone",
            still,
            sounds,
        )
