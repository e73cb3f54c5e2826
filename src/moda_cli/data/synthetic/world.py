"""The world that a voice is recorded in: a room, what else sounds there, a line, a level.

Nothing of it moves the speaker's mouth: a model that is to hear the voice has to hear past it.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from moda_cli.config import SAMPLE_RATE
from moda_cli.data.synthetic.music import music
from moda_cli.media import read_audio
from moda_cli.media.ffmpeg import ffmpeg
from moda_cli.media.waves import Wave

VOICE_RMS = 0.08  # of clean speech, -22 dBFS
IN_A_ROOM, WITH_ANOTHER, ON_A_LINE, LEVELLED = 0.35, 0.12, 0.25, 0.7  # shares of recordings
BACKGROUNDS = (0.4, 0.45, 0.15)  # shares of recordings with none, one and two
KINDS = {"hiss": 0.2, "hum": 0.09, "babble": 0.13, "clicks": 0.11, "wind": 0.09, "music": 0.38}
BELOW_DB = 30.0  # how far a background is below the voice, at most
LEAST_BELOW_DB = {"babble": 8.0, "music": -5.0}  # nearer voices could be the speaker's; else 0
ANOTHER_BELOW_DB = (10.0, 24.0)  # somebody else further off
CODECS = (  # of FFmpeg, the ending of their files, their sample rates, kbit/s
    ("libopus", ".ogg", SAMPLE_RATE, (6, 8, 12, 16)),
    ("libopencore_amrnb", ".amr", 8000, (4.75, 7.4, 12.2)),
)

Sound = NDArray[np.float64]


def recorded(voice: Wave, others: Sequence[Wave], rng: Generator) -> Wave:
    """What a microphone hears where `voice` (N,) speaks, or nobody does, as in somebody's file.

    voice: VOICE_RMS where it speaks. others: what other people say, for voices around.
    """
    heard = voice.astype(np.float64)
    if rng.random() < IN_A_ROOM:
        heard = in_room(heard, rng)
    if others and rng.random() < WITH_ANOTHER:
        other = in_room(_looped(others[int(rng.integers(len(others)))], len(voice), rng), rng)
        heard = heard + other * 10 ** (-rng.uniform(*ANOTHER_BELOW_DB) / 20)
    speaks = bool(voice.any())
    for _ in range(rng.choice(3, p=BACKGROUNDS) if speaks else rng.integers(1, 3)):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        below = rng.uniform(LEAST_BELOW_DB.get(kind, 0.0), BELOW_DB)
        sound = background(kind, len(voice), others, rng)
        heard = heard + sound * VOICE_RMS * 10 ** (-below / 20)
    if rng.random() < ON_A_LINE:
        heard = over_a_line(heard, rng)
    usual = rng.random() < LEVELLED
    level_db = rng.uniform(-14, 10) if usual else rng.uniform(-30, 22)  # against -22 dBFS
    return np.clip(heard * 10 ** (level_db / 20), -1, 1).astype(np.float32)


def in_room(wave: Wave | Sound, rng: Generator) -> Sound:
    """The sound (N,) and its reverberation: noise that dies away by 60 dB in 0.15 to 0.8 s."""
    decay_s = rng.uniform(0.15, 0.8)
    time = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_s)
    tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    tail[: int(rng.uniform(0.001, 0.012) * SAMPLE_RATE)] = 0  # the first wall
    tail[0] = 1
    size = 1 << (len(wave) + len(tail)).bit_length()
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)
    return wet[: len(wave)]


def background(kind: str, num_samples: int, others: Sequence[Wave], rng: Generator) -> Sound:
    """A sound (num_samples,) of mean power 1 of one of KINDS, that may come and go."""
    if kind == "music":
        sound = music(num_samples, rng)
    elif kind == "babble" and others:
        count = int(rng.integers(3, 9))
        voices = [others[int(rng.integers(len(others)))] for _ in range(count)]
        sound = in_room(np.sum([_looped(v, num_samples, rng) for v in voices], axis=0), rng)
    elif kind == "clicks":
        sound = _clicks(num_samples, rng)
    elif kind == "hum":
        sound = _hum(num_samples, rng)
    elif kind == "wind":
        sound = coloured(num_samples, rng.uniform(1, 1.6), rng)
        sound *= np.exp(1.2 * _slow(num_samples, 0.8, rng))
    else:
        sound = coloured(num_samples, rng.uniform(-0.3, 0.7), rng)
    if rng.random() < 0.25:
        sound = sound * np.clip(0.5 + 2 * _slow(num_samples, 1.0, rng), 0, 1)
    power = float(np.mean(sound**2))
    return sound / np.sqrt(power) if power else sound


def coloured(num_samples: int, slope: float, rng: Generator) -> Sound:
    """Noise whose amplitude falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    hz = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.maximum(hz, 20) ** slope, num_samples)


def _slow(num_samples: int, width_s: float, rng: Generator) -> Sound:
    """A curve of mean 0 and deviation 1 that changes within about `width_s`."""
    knots = max(4, int(num_samples / SAMPLE_RATE / width_s) + 3)
    at = np.linspace(0, knots - 1, num_samples)
    return np.interp(at, np.arange(knots), rng.standard_normal(knots))


def _hum(num_samples: int, rng: Generator) -> Sound:
    """Mains or a motor: a steady low tone and its overtones."""
    base = rng.choice((50, 60, rng.uniform(40, 250)))
    overtones = np.arange(1, int(rng.integers(4, 25)))
    loud = overtones ** -rng.uniform(0.3, 1.5) * rng.uniform(0, 1, len(overtones))
    time = np.arange(num_samples) / SAMPLE_RATE
    sound = np.zeros(num_samples)
    for overtone, amplitude in zip(overtones, loud, strict=True):
        sound += amplitude * np.sin(2 * np.pi * (overtone * base * time + rng.random()))
    return sound


def _clicks(num_samples: int, rng: Generator) -> Sound:
    """Keys, cutlery, steps: short rings and knocks, now and then."""
    sound = np.zeros(num_samples)
    for _ in range(rng.poisson(num_samples / SAMPLE_RATE * rng.uniform(0.7, 8))):
        time = np.arange(int(rng.uniform(0.01, 0.12) * SAMPLE_RATE)) / SAMPLE_RATE
        ring = np.sin(2 * np.pi * rng.uniform(150, 6000) * time)
        mixed = rng.uniform(0, 1) * ring + rng.standard_normal(len(time)) * rng.uniform(0, 1)
        knock = mixed * np.exp(-time * 5 / time[-1]) * rng.uniform(0.2, 1)
        start = int(rng.integers(max(1, num_samples - len(knock))))
        sound[start : start + len(knock)] += knock[: num_samples - start]
    return sound


def _looped(voice: Wave, num_samples: int, rng: Generator) -> Wave:
    """Somebody's speech from a moment on, over and over."""
    return np.resize(np.roll(voice, int(rng.integers(len(voice)))), num_samples)


def over_a_line(wave: Sound, rng: Generator) -> Sound:
    """What comes out of a telephone, a narrow microphone or a codec of few bits, in time."""
    narrow = rng.random() < 0.6
    if narrow:
        spectrum = np.fft.rfft(wave)
        hz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
        low, high = rng.uniform(60, 350), rng.choice((3400, rng.uniform(2800, 6500)))
        passed = 1 / (1 + (low / np.maximum(hz, 1)) ** 8) / (1 + (hz / high) ** 16)
        wave = np.fft.irfft(spectrum * passed, len(wave))
    way = rng.choice(("mu-law", *(name for name, *_ in CODECS), "none"))
    if way == "mu-law":
        peak = max(float(np.abs(wave).max()), 1e-9)
        squeezed = np.sign(wave) * np.log1p(255 * np.abs(wave) / peak) / np.log(256)
        steps = np.round(squeezed * 127) / 127
        heard: Sound = np.sign(steps) * (256 ** np.abs(steps) - 1) / 255 * peak
        return heard
    for codec, suffix, rate, kbps in CODECS:
        if way == codec:
            bits = f"{float(rng.choice(kbps))}k"
            return through(wave, suffix, "-ar", str(rate), "-c:a", codec, "-b:a", bits)
    return wave


def through(wave: Sound, suffix: str, *encoder: str) -> Sound:
    """The wave (N,) as `moda` hears it in a file that FFmpeg writes with these options."""
    with tempfile.TemporaryDirectory() as folder:
        plain, coded = Path(folder, "plain.wav"), Path(folder, f"coded{suffix}")
        soundfile.write(plain, np.clip(wave, -1, 1), SAMPLE_RATE)
        command = [*ffmpeg(), "-i", str(plain), *encoder, str(coded)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        heard = read_audio(coded)[: len(wave)]
    return np.pad(heard, (0, len(wave) - len(heard))).astype(np.float64)
