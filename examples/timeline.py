"""A feeling that changes while one speaks: `python examples/timeline.py OUT.mp4`."""

import sys
from pathlib import Path

import moda_cli as moda

HERE = Path(__file__).parent
FEELINGS = {0.0: "happy", 3.5: "surprise", 7.0: "sad"}  # from these seconds on

result = moda.generate(
    HERE / "portrait.png",
    HERE / "speech.wav",
    sys.argv[1],
    emotion=",".join(f"{second}:{feeling}" for second, feeling in FEELINGS.items()),
    emotion_scale=1.5,  # more of it than the model was taught
    size=256,
)
print(result.output)
