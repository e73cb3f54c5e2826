"""The page of `moda ui`: time from the click to the first frame seen, and memory over many clips.

`python -m benchmarks.page [--clips N] [--looks N]`: a server of its own. The frame is timed in
Chromium, from the click on "Make the clip" to the moment at which the browser has decoded the first
picture, with the example's 10 s at 512x512; memory is the server's VmRSS after each of N clips of
1.2 s at 128 pixels. Needs the extra `ui`, playwright and Debian's chromium.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import soundfile
from benchmarks.memory import memory_mb

EXAMPLES = Path(__file__).parents[1] / "examples"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
# Run in the page: a click, then the first decoded picture, in milliseconds.
FIRST_FRAME = """async () => {
  const image = document.querySelector('#stage img');
  image.removeAttribute('src');
  const began = performance.now();
  document.querySelector('#make').click();
  while (!image.complete || !image.naturalWidth)
    await new Promise((done) => requestAnimationFrame(done));
  return performance.now() - began;
}"""


def first_frames(address: str, looks: int) -> list[float]:
    """Seconds from click to first frame, warm: the clip before them is not counted."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page()
        page.goto(address)
        for _ in range(looks + 1):
            page.wait_for_selector("#make:not([disabled])")
            times.append(page.evaluate(FIRST_FRAME) / 1000)
            page.wait_for_selector("#stage video:not([hidden])")
        browser.close()
    return times[1:]


def memory_of_clips(address: str, process: int, clips: int) -> list[float]:
    """What the server holds, in MB, after each clip."""
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    held = []
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        wave, rate = soundfile.read(EXAMPLES / "speech.wav")
        soundfile.write(speech, wave[rate : rate + int(1.2 * rate)], rate)
        for seed in range(clips):
            client.predict(
                portrait=handle_file(EXAMPLES / "portrait.png"),
                speech=handle_file(speech),
                size=128,
                seed=seed,
                api_name="/make",
            )
            held.append(memory_mb("VmRSS", process))
    return held


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--looks", type=int, default=5)
    asked = parser.parse_args()
    command = [sys.executable, "-m", "moda_cli", "ui", "--model", "mini"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            began = time.monotonic()
            held = memory_of_clips(address, server.pid, asked.clips)
            took = time.monotonic() - began
            looks = first_frames(address, asked.looks)
        finally:
            server.terminate()
    said: dict[str, Any] = {
        "first_frame_s": [round(seconds, 3) for seconds in looks],
        "first_frame_median_s": round(median(looks), 3),
        "memory_mb": {"after_1": held[0], "after_all": held[-1], "most": max(held)},
        "ratio": round(held[-1] / held[0], 3),
        "clips": asked.clips,
        "clip_s": round(took / asked.clips, 2),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
