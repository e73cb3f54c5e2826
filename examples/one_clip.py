"""One clip: `python examples/one_clip.py [OUT.mp4]`."""

import sys
from pathlib import Path

import moda_cli as moda

HERE = Path(__file__).parent

try:
    result = moda.generate(
        HERE / "portrait.png",
        HERE / "speech.wav",
        sys.argv[1] if len(sys.argv) > 1 else None,  # else portrait_speech.mp4, or _2, _3, ...
        emotion="happy",
        size=256,
    )
except moda.ModaError as error:  # what a user can act on; anything else is a bug
    sys.exit(f"{error} ({error.hint})")
print(f"{result.output}: {result.frames} frames in {result.seconds:.1f} s")
