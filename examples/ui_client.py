"""A program that uses the page of `moda ui`: `python examples/ui_client.py ADDRESS [OUTPUT]`."""

import shutil
import sys
from pathlib import Path

from gradio_client import Client, handle_file

HERE = Path(__file__).parent

client = Client(sys.argv[1], verbose=False)
job = client.submit(
    portrait=handle_file(HERE / "portrait.png"),
    speech=handle_file(HERE / "speech.wav"),
    emotion="happy",
    intensity=0.8,
    seed=7,
    size=256,
    api_name="/make",
)
for stage, *_ in job:  # a few times a second
    print(stage["phase"], stage.get("detail", ""), flush=True)
_, video, motion = job.outputs()[-1]
print(shutil.copy(video, sys.argv[2] if len(sys.argv) > 2 else "out.mp4"))
