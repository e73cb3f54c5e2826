"""The speech and the silence the closed loop is measured on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.config import FPS, NO_EMOTION, SAMPLE_RATE
from moda_cli.data.synthetic.behaviour import perform
from moda_cli.data.synthetic.corpus import TEST_VOICES, neutral_motion
from moda_cli.data.synthetic.text import sentence
from moda_cli.data.synthetic.visemes import Phone, lips, to_visemes
from moda_cli.data.synthetic.voices import Request, Voice, synthesise
from moda_cli.data.synthetic.world import VOICE_RMS
from moda_cli.motion import EXPRESSION, POSE, encode, encode_gaze

PAUSE_S = 0.25  # between sentences; a mouth shut by silence would flatter the closure rate
SILENCE_S = 10
HISS = 0.001  # of full scale: -60 dB
BLINK_S = 62
SENTENCES = (  # many labials, each beside an open vowel
    "Maybe Bob's uncle found a copper lamp on the far side of the farm.",
    "Papa and I always laugh about the apples that dropped on my hat.",
    "At the camp, a large black map of Alabama hung above the table.",
    "Tom and Amber sat on top of the barn and watched five cabs pass by.",
)


class Sound(NamedTuple):
    """A wave (N,) at 16 kHz and its viseme-class phones; silence has none."""

    name: str
    wave: NDArray[np.float32]
    phones: Sequence[Phone] = ()


def speak(voice: Voice, texts: Sequence[str]) -> Sound:
    """The sentences one after another, the silence around each cut to PAUSE_S."""
    pieces: list[NDArray[np.float32]] = []
    phones: list[Phone] = []
    now = 0
    for speech in synthesise([Request(voice, text) for text in texts]):
        spoken = [p for p in to_visemes(speech.phones, voice.ipa) if p.symbol != "SIL"]
        start = max(0, round((spoken[0].start - PAUSE_S) * SAMPLE_RATE))
        wave = speech.wave[start : round((spoken[-1].end + 0.05) * SAMPLE_RATE)]
        shift = (now - start) / SAMPLE_RATE
        phones += [Phone(p.symbol, p.start + shift, p.end + shift) for p in spoken]
        pieces.append(wave)
        now += len(wave)
    joined = np.concatenate([*pieces, np.zeros(SAMPLE_RATE // 4, np.float32)])
    joined = joined * (VOICE_RMS / np.sqrt(np.mean(joined**2)))
    return Sound(voice.name, np.clip(joined, -0.99, 0.99), phones)


def long_speech() -> Sound:
    """At least BLINK_S of held-out sentences."""
    rng = np.random.default_rng(0)
    sound = Sound("blinks", np.zeros(0, np.float32))
    texts: list[str] = []
    while len(sound.wave) < BLINK_S * SAMPLE_RATE:
        texts += [sentence("en", rng, True) for _ in range(4)]
        sound = speak(TEST_VOICES[0], texts)._replace(name="blinks")
    return sound


def silences() -> list[Sound]:
    """Digital silence, and the hiss of a quiet room."""
    count = SILENCE_S * SAMPLE_RATE
    hiss = HISS * np.random.default_rng(0).standard_normal(count).astype(np.float32)
    return [Sound("zeros", np.zeros(count, np.float32)), Sound("hiss", hiss)]


def true_motion(sound: Sound) -> tuple[Tensor, Tensor]:
    """The motion (T, 70) a perfect model would give a speech, and its neutral (70)."""
    num_frames = len(sound.wave) * FPS // SAMPLE_RATE
    mouth = lips(sound.phones, num_frames)
    rng = np.random.default_rng(0)
    acted = perform(mouth, sound.phones, sound.wave, NO_EMOTION, 1.0, rng)
    motion = neutral_motion().repeat(num_frames, 1)
    motion[:, EXPRESSION] += encode(torch.from_numpy(acted.articulators))
    motion[:, EXPRESSION] += encode_gaze(torch.from_numpy(acted.gaze))
    motion[:, POSE] = torch.from_numpy(acted.pose)
    return motion, neutral_motion()
