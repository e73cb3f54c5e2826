"""Motion made once, changed, and drawn again: `python examples/re_render.py OUT/`."""

import sys
from dataclasses import replace
from pathlib import Path

import moda_cli as moda

HERE = Path(__file__).parent
OUT = Path(sys.argv[1])
OUT.mkdir(exist_ok=True)
INPUTS = HERE / "portrait.png", HERE / "speech.wav"

pipeline = moda.Pipeline.load()
pipeline.generate(*INPUTS, OUT / "made.mp4", save_motion=OUT / "made.safetensors", size=128)

recording = moda.load_motion(OUT / "made.safetensors")  # (T, 70) at 25 frames a second
calmer = recording.neutral + 0.5 * (recording.motion - recording.neutral)
moda.save_motion(OUT / "calmer.safetensors", replace(recording, motion=calmer))

pipeline.generate(*INPUTS, OUT / "calmer.mp4", motion=OUT / "calmer.safetensors", size=128)
print(OUT / "calmer.mp4")
