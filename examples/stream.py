"""Frames while the sound still arrives: `python examples/stream.py OUT.gif`.

The sound comes from a file at the pace of a microphone (`--fast`: at once). A real microphone gives
such blocks too, as sounddevice's InputStream(samplerate=16000, channels=1) does.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

import moda_cli as moda

HERE = Path(__file__).parent
RATE, BLOCK = 16_000, 1_600  # Hz; samples, a tenth of a second


def microphone(path: Path, pace: float) -> Iterator[np.ndarray]:
    """Blocks (n,) of 16 kHz sound, each when it would have been spoken."""
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    for start in range(0, len(samples), BLOCK):
        time.sleep(pace * BLOCK / RATE)
        yield samples[start : start + BLOCK]


pipeline = moda.Pipeline.load()
portrait = Image.open(HERE / "portrait.png").resize((128, 128))
sound = microphone(HERE / "speech.wav", 0 if "--fast" in sys.argv else 1)
began, shown = time.monotonic(), []
for frame in pipeline.stream(portrait, sound):  # uint8 (H, W, 3) RGB
    if not shown:
        print(f"first frame after {time.monotonic() - began:.2f} s")
    shown.append(Image.fromarray(frame))
shown[0].save(sys.argv[1], save_all=True, append_images=shown[1::5], duration=200)
print(sys.argv[1], len(shown), "frames")
