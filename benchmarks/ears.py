"""What the bundled model hears: lips against the truth in rooms, noise and music, on lines, quiet.

`python -m benchmarks.ears --features DIR` reads the test split that `moda extract --synthetic 4
-o DIR` leaves: voices and sentences no training clip has. Rooms, noises, music and codecs here are
other ones than those of the corpus, made by other rules. About 3 minutes on one free core.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks.motion_quality import (
    JAW,
    Clip,
    Speaker,
    Table,
    closed_share,
    correlation,
    read_clips,
    tell,
)
from numpy.random import Generator
from scipy import signal

from moda_cli.config import SAMPLE_RATE, SamplerConfig
from moda_cli.data.synthetic.world import Sound, through
from moda_cli.motion import ARTICULATORS
from moda_cli.pipeline import Pipeline

SECONDS = 12  # of each sound in which nobody speaks
LIPS = ARTICULATORS[:3]


def room(wave: Sound, rng: Generator, rt60: float = 0.6) -> Sound:
    """Sparse early reflections, then a tail that dies faster in the treble."""
    length = int(rt60 * SAMPLE_RATE)
    answer = np.zeros(length)
    answer[0] = 1
    for delay in rng.uniform(0.003, 0.06, 12):
        answer[int(delay * SAMPLE_RATE)] += rng.choice((-1, 1)) * 0.35 * 10 ** (-3 * delay / rt60)
    time = np.arange(length) / SAMPLE_RATE
    for low, decay in ((200, rt60), (1500, 0.7 * rt60), (4000, 0.45 * rt60)):
        band = signal.sosfilt(
            signal.butter(2, (low, 1.8 * low), "bandpass", fs=SAMPLE_RATE, output="sos"),
            rng.standard_normal(length),
        )
        answer += 0.06 * band / band.std() * 10 ** (-3 * time / decay) * (time > 0.02)
    return signal.fftconvolve(wave, answer)[: len(wave)]


def pink(length: int, rng: Generator) -> Sound:
    """Noise of 3 dB less an octave, by Voss: sums of values that are held ever longer."""
    held = [np.repeat(rng.standard_normal(length // 2**k + 2), 2**k)[:length] for k in range(14)]
    return np.sum(held, axis=0)


def speech_shaped(length: int, rng: Generator, speech: Sound) -> Sound:
    """Steady noise with the spectrum of speech."""
    _, power = signal.welch(speech, SAMPLE_RATE, nperseg=512)
    taps = signal.firwin2(255, np.linspace(0, 1, len(power)), np.sqrt(power / power.max()))
    return signal.fftconvolve(rng.standard_normal(length + 254), taps, "valid")


def tune(length: int, rng: Generator) -> Sound:
    """Plucked strings (Karplus and Strong), an FM bass and shaken noise in a pentatonic groove."""
    beat = int(SAMPLE_RATE * 60 / rng.uniform(80, 130))
    piece = np.zeros(length + 4 * beat)
    time = np.arange(2 * beat) / SAMPLE_RATE
    steps = 2 ** (np.array((0, 3, 5, 7, 10, 12)) / 12)
    for start in range(0, length, beat // 2):
        if rng.random() < 0.75:
            period = int(SAMPLE_RATE / (rng.choice((110, 165, 220)) * rng.choice(steps)))
            burst = np.concatenate((rng.uniform(-1, 1, period), np.zeros(2 * beat - period)))
            string = signal.lfilter([1], np.r_[1, np.zeros(period - 1), -0.497, -0.497], burst)
            piece[start : start + 2 * beat] += string
        if (start // (beat // 2)) % 4 == 0:
            hz = 55 * rng.choice(steps)
            bass = np.sin(
                2 * np.pi * hz * time + 2 * np.exp(-6 * time) * np.sin(4 * np.pi * hz * time)
            )
            piece[start : start + 2 * beat] += 0.6 * bass * np.exp(-4 * time)
        shake = rng.standard_normal(beat // 4) * np.hanning(beat // 4)
        piece[start : start + beat // 4] += 0.1 * shake
    return piece[:length]


def crowd(clips: Sequence[Clip], length: int, rng: Generator) -> Sound:
    """Six people at once in a hall."""
    chosen = rng.choice(len(clips), 6, replace=False)
    together = np.sum([np.resize(clips[k].wave, length) for k in chosen], axis=0)
    return room(together, rng, rt60=1.2)


def at_snr(wave: Sound, noise: Sound, decibels: float) -> Sound:
    """The voice with noise so far below its own mean power where it speaks."""
    speaks = np.abs(wave) > 1e-4
    power = np.mean(wave[speaks] ** 2) / np.mean(noise**2)
    return wave + noise * np.sqrt(power) * 10 ** (-decibels / 20)


def telephone(wave: Sound) -> Sound:
    """300 to 3400 Hz, A-law."""
    band = signal.butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos")
    return through(signal.sosfilt(band, wave), ".wav", "-ar", "8000", "-c:a", "pcm_alaw")


Condition = Callable[[Sound, Generator], Sound]


def conditions(clips: Sequence[Clip]) -> dict[str, Condition]:
    """How the voices are heard, by name."""
    found: dict[str, Condition] = {
        "clean": lambda wave, _: wave,
        "room, 0.6 s": room,
        "room, 1.2 s": lambda wave, rng: room(wave, rng, 1.2),
    }
    for level in (20, 10, 5):
        found[f"noise {level} dB"] = lambda wave, rng, level=level: at_snr(
            wave, speech_shaped(len(wave), rng, wave), level
        )
    for level in (12, 6, 0):
        found[f"music {level} dB"] = lambda wave, rng, level=level: at_snr(
            wave, tune(len(wave), rng), level
        )
    found |= {
        "crowd 12 dB": lambda wave, rng: at_snr(wave, crowd(clips, len(wave), rng), 12),
        "telephone": lambda wave, _: telephone(wave),
        "mp3 16 kbit/s": lambda wave, _: through(wave, ".mp3", "-c:a", "libmp3lame", "-b:a", "16k"),
        "aac 16 kbit/s": lambda wave, _: through(wave, ".m4a", "-c:a", "aac", "-b:a", "16k"),
        "40 dB quieter": lambda wave, _: 0.01 * wave,
        "clipped": lambda wave, _: np.clip(12 * wave, -1, 1),
    }
    return found


def wordless(clips: Sequence[Clip], rng: Generator) -> dict[str, Sound]:
    """Sounds in which nobody speaks to the viewer."""
    length = SECONDS * SAMPLE_RATE

    def level(sound: Sound, dbfs: float) -> Sound:
        return sound / np.sqrt(np.mean(sound**2)) * 10 ** (dbfs / 20)

    hiss, hum = rng.standard_normal(length), np.arange(length) / SAMPLE_RATE
    return {
        "zeros": np.zeros(length),
        "noise -66 dB": level(hiss, -66),
        "hiss -26 dB": level(hiss, -26),
        "pink -30 dB": level(pink(length, rng), -30),
        "music -20 dB": level(tune(length, rng), -20),
        "music -35 dB": level(tune(length, rng), -35),
        "crowd -40 dB": level(crowd(clips, length, rng), -40),
        "mains -30 dB": level(signal.sawtooth(2 * np.pi * 50 * hum), -30),
    }


def main() -> None:
    """Measure what a model's lips make of what they hear."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--features", type=Path, required=True, help="folder with test clips")
    parser.add_argument("--model", default="mini", help="model directory")
    parser.add_argument("--steps", type=int, help="default the model's own")
    parser.add_argument("--clips", type=int, default=18)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)

    speaker = Speaker(Pipeline.load(args.model, "cpu").model, SamplerConfig(args.steps))
    every = read_clips(args.features)
    clips, heard = every[: args.clips], {}
    for name, alter in conditions(every[args.clips :]).items():
        pairs = [
            (
                speaker.speak(alter(clip.wave.astype(float), rng).astype(np.float32), clip.emotion),
                clip,
            )
            for clip, rng in ((clip, np.random.default_rng(k)) for k, clip in enumerate(clips))
        ]
        made, true = (
            torch.cat([speaker.articulators(motion) for motion in motions])
            for motions in ((m for m, _ in pairs), (c.motion for _, c in pairs))
        )
        heard[name] = {
            f"r {lip}": correlation(made[:, k], true[:, k]) for k, lip in enumerate(LIPS)
        }
        heard[name] |= {
            "closed": closed_share(speaker, pairs),
            "sd jaw": float(made[:, JAW].std() / true[:, JAW].std()),
        }
    still: Table = {}
    for name, sound in wordless(every, np.random.default_rng(7)).items():
        jaw = speaker.articulators(speaker.speak(sound.astype(np.float32), "none"))[:, JAW]
        still[name] = {"sd jaw": float(jaw.std()), "p95 |jaw|": float(jaw.abs().quantile(0.95))}
    tell({"speech": heard, "nobody speaks": still}, args.out)


if __name__ == "__main__":
    main()
