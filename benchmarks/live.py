"""How soon a face answers, live.

`python -m benchmarks.live [--seconds N] [--size PIXELS] [--faces N]`: a vowel comes every two
seconds or so, in blocks of 20 ms as a microphone brings them. The answer is the first picture in
which the mesh sees the lips apart; its latency counts from the arrival of the vowel's first block
to the moment at which that picture is given. A frame is on time where it is given within 40 ms of
its place in a row of 25 a second, with a picture of its own. At the end the example's speech is
spoken, and mouth and sound are compared. Other faces (`--faces 2`) speak that speech all the while,
on the same model. Pictures are encoded as `moda serve` does. An hour: `--seconds 3600`.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from benchmarks.memory import memory_mb

from moda_cli import media
from moda_cli.config import FPS, SAMPLE_RATE, ClipConfig, RenderConfig
from moda_cli.device import usable_cores, use_threads
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.face.search import choose_face, find_faces
from moda_cli.live.messages import jpeg
from moda_cli.live.session import LiveSession
from moda_cli.live.speaker import Speaker
from moda_cli.media.pictures import Picture
from moda_cli.metrics.video import measure_video
from moda_cli.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[1] / "examples"
BLOCK = SAMPLE_RATE // 50
VOWEL_S = 0.28  # of the example's first word
APART = 0.03  # IOD that lips are further apart than before, when they answer
AROUND_S = (0.25, 0.9)  # before and after a vowel's arrival, in which pictures are kept
LATE_S = 1 / FPS
SETTLED_S = 5.0  # from its beginning on, a session's memory and punctuality count


class Watched:
    """What was given when, by one session; pictures lie in files."""

    def __init__(self, session: LiveSession, folder: Path) -> None:
        self.times: list[float] = []
        self.drawn: list[bool] = []
        self.sounds: list[np.ndarray] = []  # of the last minute
        self._session, self._folder = session, folder
        self._kept = (0.0, 0.0)
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def keep(self, start: float, end: float) -> None:
        """Keep the pictures that are given between these moments."""
        self._kept = (start, end)

    def _watch(self) -> None:
        for frame in self._session.frames():
            now = time.monotonic()
            encoded = jpeg(frame)
            if self._kept[0] <= now <= self._kept[1]:
                (self._folder / f"{len(self.times):06}.jpg").write_bytes(encoded)
            self.times.append(now)
            self.drawn.append(frame.drawn)
            self.sounds = [*self.sounds[-60 * FPS :], frame.sound]

    def pictures(self, numbers: range) -> Iterator[Picture | None]:
        """Those that were kept, in their order."""
        for number in numbers:
            seen = cv2.imread(str(self._folder / f"{number:06}.jpg"))
            yield None if seen is None else cv2.cvtColor(seen, cv2.COLOR_BGR2RGB)

    def punctual(self, start: int) -> float:
        """The share of frames from `start` on that are on time, with a picture of their own."""
        drawn = np.array(self.drawn[start:])  # more may be given meanwhile
        places = np.array(self.times[start:][: len(drawn)]) - np.arange(len(drawn)) / FPS
        late = places - np.median(places)
        return float((drawn & (late <= LATE_S)).mean())


def bring(session: LiveSession, wave: np.ndarray) -> float:
    """Push a wave in blocks as they would be spoken; when the first came."""
    began = time.monotonic()
    for number, start in enumerate(range(0, len(wave), BLOCK)):
        time.sleep(max(0.0, began + number * BLOCK / SAMPLE_RATE - time.monotonic()))
        session.push(wave[start : start + BLOCK])
    return began


def answers(watched: Watched, arrivals: list[float]) -> Iterator[float | None]:
    """The latency of each vowel's answer in seconds; None where the lips stay shut."""
    anchor: Mesh | None = None
    times = np.array(watched.times)
    for arrival in arrivals:
        first, last = np.searchsorted(times, [arrival - AROUND_S[0], arrival + AROUND_S[1]])
        rest: list[float] = []
        latency = None
        for number, picture in zip(
            range(first, last), watched.pictures(range(first, last)), strict=True
        ):
            if picture is None:
                continue
            if anchor is None:
                anchor = Mesh(choose_face(find_faces(picture), "largest").mesh)
            opening = FaceLandmarks(follow_mesh(picture, anchor).points).opening
            if times[number] < arrival:
                rest.append(opening)
            elif rest and opening > max(rest) + APART:
                latency = float(times[number] - arrival)
                break
        yield latency


def chatter(session: LiveSession, speech: np.ndarray) -> None:
    """Another face that speaks, until its session ends."""

    def speak() -> None:
        while True:
            bring(session, speech)

    threading.Thread(target=speak, daemon=True).start()
    for frame in session.frames():
        jpeg(frame)


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(": ")[1] for line in lines if line.startswith("model name"))


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--faces", type=int, default=1)
    asked = parser.parse_args()
    use_threads(1)
    render, dash = RenderConfig(size=asked.size), Path("-")
    clip = ClipConfig(EXAMPLES / "portrait.png", dash, dash, render=render)
    speaker = Speaker(Pipeline.load("mini", "auto"), clip)
    speech = media.read_audio(EXAMPLES / "speech.wav")
    onset = int(np.flatnonzero(np.abs(speech) > 0.1)[0])
    vowel = speech[onset : onset + round(VOWEL_S * SAMPLE_RATE)]
    rng = np.random.default_rng(0)
    arrivals: list[float] = []
    with tempfile.TemporaryDirectory() as name, speaker.session() as session:
        others = [speaker.session() for _ in range(asked.faces - 1)]
        for other in others:
            threading.Thread(target=chatter, args=(other, speech), daemon=True).start()
        watched = Watched(session, Path(name))
        time.sleep(SETTLED_S)
        settled, held = len(watched.times), [memory_mb("VmRSS")]
        ends = time.monotonic() + asked.seconds
        while time.monotonic() < ends:
            soon = time.monotonic()
            watched.keep(soon, soon + AROUND_S[0] + AROUND_S[1] + LATE_S)
            time.sleep(AROUND_S[0] + LATE_S)
            arrivals.append(bring(session, vowel))
            time.sleep(rng.uniform(1.4, 2.2))
            held.append(memory_mb("VmRSS"))
        memory = {"start": held[0], "half": held[len(held) // 2], "end": held[-1]}
        print("MB", memory, file=sys.stderr, flush=True)  # an hour's answers take a while
        pace = session.pace
        share = watched.punctual(settled)
        spoken = len(watched.times)
        watched.keep(time.monotonic(), time.monotonic() + 60)
        bring(session, speech)
        while session.pace.speaking:
            time.sleep(0.04)
        for other in others:
            other.close()
        numbers = range(spoken + 1, len(watched.times) - 1)
        pictures = (picture for picture in watched.pictures(numbers) if picture is not None)
        heard = np.concatenate(watched.sounds[spoken + 1 - len(watched.times) : -1])
        measures = measure_video(pictures, heard)
        found = list(answers(watched, arrivals))
    known = sorted(latency for latency in found if latency is not None)
    said = {
        "machine": f"{cpu_name()}, {usable_cores()} cores",
        "seconds": asked.seconds,
        "size": asked.size,
        "faces": asked.faces,
        "vowels": len(found),
        "unanswered": len(found) - len(known),
        "latency_ms": {
            "median": round(1000 * median(known)),
            "p99": round(1000 * float(np.percentile(known, 99))),
            "most": round(1000 * known[-1]),
        },
        "on_time": round(share, 4),
        "left_out": pace.left_out,
        "busy": round(pace.busy, 3),
        "memory_mb": memory,
        "sync_frames": measures.lag,
        "sync_fit": measures.lag_fit,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
