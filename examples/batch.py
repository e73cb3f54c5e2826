"""Several clips from one loaded pipeline: `python examples/batch.py OUT/`.

For very many, on several processes and with a journal, use `moda generate --jobs`.
"""

import sys
from pathlib import Path

import moda_cli as moda

HERE = Path(__file__).parent
OUT = Path(sys.argv[1])
OUT.mkdir(exist_ok=True)

pipeline = moda.Pipeline.load()
for emotion in ("neutral", "happy", "sad"):
    output = OUT / f"{emotion}.mp4"
    try:
        pipeline.generate(
            HERE / "portrait.png", HERE / "speech.wav", output, emotion=emotion, size=128
        )
    except moda.InputError as error:  # of this clip alone
        print(f"{output}: {error}", file=sys.stderr)
    else:
        print(output)
