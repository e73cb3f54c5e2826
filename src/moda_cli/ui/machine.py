"""One warm pipeline a model, and one clip at a time, followed while it is made."""

import base64
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import cv2

from moda_cli.checks import resolve
from moda_cli.choice import choose, missing
from moda_cli.config import ClipConfig
from moda_cli.device import resolve_device
from moda_cli.errors import UsageError
from moda_cli.jobs.clips import KeepingStudio, LeastRecent
from moda_cli.media.pictures import Picture, opaque, shrunk
from moda_cli.pipeline import Pipeline, Result
from moda_cli.ui.heap import give_back

LOOK_S = 0.12  # between two looks at a clip in the making
ALONE_S = 10.0  # after which a clip that nobody looks at is given up
PORTRAITS_KEPT = 2  # a visitor tries one many times
PREVIEW_SIDE = 480  # pixels
QUALITY = 80  # of its JPEG

PHASES = {
    "waiting": "Waiting for the machine",
    "loading": "Loading the model",
    "listening": "Listening to the speech",
    "finding the face": "Finding the face",
    "sampling": "Sampling the motion",
    "drawing": "Drawing",
}


class Cancelled(Exception):
    """Whoever asked for the clip no longer wants it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a clip in the making has come to."""

    phase: str  # of PHASES
    done: int = 0
    total: int | None = None
    fps: float = 0.0  # frames drawn a second
    picture: Picture | None = None  # the latest, (H, W, 3), at most PREVIEW_SIDE long

    @property
    def phase_words(self) -> str:
        """The phase, as a visitor reads it."""
        return PHASES[self.phase]

    @property
    def detail(self) -> str:
        """How far it is, and how fast."""
        if self.phase == "waiting" and self.done:
            return f"{self.done} before you"
        if self.phase != "drawing":
            return ""
        of = f" of {self.total}" if self.total else ""
        return f"frame {self.done}{of}, {self.fps:.0f} frames/s"


class _Watched:
    """A clip in the making, seen from two threads: one makes it, the other looks at it."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.news = threading.Event()
        self.seen = Progress("waiting")
        self.looked = time.monotonic()
        self.dropped = False
        self._began = self._pictured = 0.0

    def on_phase(self, phase: str, done: int, total: int | None) -> None:
        self.check()
        now = time.monotonic()
        if phase == "drawing" and self.seen.phase != "drawing":
            self._began = now
        elif phase == "sampling" and self.seen.phase == "drawing":
            return  # of the windows ahead
        fps = (done - 1) / (now - self._began) if phase == "drawing" and done > 1 else 0.0
        if phase == "waiting" and done == self.seen.done:
            return
        news = phase != self.seen.phase
        self.seen = replace(self.seen, phase=phase, done=done, total=total, fps=fps)
        if news:
            self.news.set()

    def on_picture(self, picture: Picture) -> None:
        self.check()
        now = time.monotonic()
        if now - self._pictured < LOOK_S:
            return
        first, self._pictured = not self._pictured, now
        scale = min(1.0, PREVIEW_SIDE / max(picture.shape[:2]))
        small = shrunk(opaque(picture), scale)
        self.seen = replace(self.seen, picture=small)
        if first:
            self.news.set()

    def check(self) -> None:
        """Raises Cancelled where the clip is no longer wanted."""
        alone = self.dropped or time.monotonic() - self.looked > ALONE_S
        if alone or self.stop.is_set():
            raise Cancelled


class Machine:
    """Pipelines that stay loaded, and a line of those who wait for them.

    waiting: how many may, beside the one whose clip is made.
    """

    def __init__(
        self, model: str, renderer: str, device: str, dtype: str, waiting: int = 8
    ) -> None:
        self.model, self.waiting = model, waiting
        self._how = device, renderer, dtype
        self._loaded: dict[str, Pipeline] = {}
        self._loading = threading.Lock()
        self._line: deque[_Watched] = deque()  # whose turn it is, and who waits
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clip")

    def models(self) -> list[str]:
        """Names that a visitor may choose: the server's own first, then what is installed."""
        own = choose(self.model, self._how[1], resolve_device(self._how[0])).model
        official = choose("moda", "auto", resolve_device(self._how[0]))
        there = ["mini", *(["moda"] if not missing(official.components) else [])]
        return list(dict.fromkeys(["auto" if self.model == "auto" else own, *there]))

    def load(self, model: str) -> Pipeline:
        """The pipeline of a model, which stays. Raises WeightsError, DeviceError, UsageError."""
        name = self.model if model == "auto" else model
        with self._loading:
            if name not in self._loaded:
                pipeline = Pipeline.load(name, *self._how)
                kept = LeastRecent[Any](PORTRAITS_KEPT), LeastRecent[Any](PORTRAITS_KEPT)
                studio = KeepingStudio(pipeline.studio, *kept)
                self._loaded[name] = replace(pipeline, studio=studio)
            return self._loaded[name]

    def make(
        self, clip: ClipConfig, model: str, stop: threading.Event
    ) -> Generator[Progress, None, Result]:
        """Make a clip in another thread; yield how far it is, a few times a second.

        Raises Cancelled soon after `stop` is set, UsageError where too many wait, and what
        `Pipeline.load` and `generate` raise. A clip whose steps nobody takes any more is given up.
        """
        watched = _Watched(stop)
        if len(self._line) > self.waiting:
            hint = "try again in a minute"
            raise UsageError(f"{self.waiting} clips wait for the machine already", hint=hint)
        self._line.append(watched)

        def work() -> Result:
            try:
                watched.on_phase("loading", 0, None)
                return self.load(model).generate(
                    resolve(clip), on_phase=watched.on_phase, on_picture=watched.on_picture
                )
            finally:
                self._line.remove(watched)
                give_back()
                watched.news.set()

        making = self._pool.submit(work)
        last = None
        try:
            while not making.done():
                with suppress(ValueError):  # it has just ended
                    if position := self._line.index(watched):
                        watched.on_phase("waiting", position, None)
                if watched.seen is not last:
                    last = watched.seen
                    yield last
                watched.looked = time.monotonic()
                watched.news.wait(LOOK_S)
                watched.news.clear()
            return making.result()
        finally:
            watched.dropped = True
            if making.cancel():
                self._line.remove(watched)

    def close(self) -> None:
        """Give up every clip, and return when nothing works any more."""
        for watched in tuple(self._line):
            watched.dropped = True
        self._pool.shutdown(cancel_futures=True)


def data_url(picture: Picture) -> str:
    """A picture (H, W, 3) as a JPEG that a page holds in itself."""
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
