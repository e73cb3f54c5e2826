"""How long each stage of a clip is at work, in whichever thread. Standard library only."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

DETAIL = (logging.DEBUG + logging.INFO) // 2  # the level of what `-v` shows

Item = TypeVar("Item")
Watch = Callable[[str], AbstractContextManager[None]]  # watch(stage) is entered while it works


def unwatched(_: str) -> AbstractContextManager[None]:
    """The watch of work that nobody times."""
    return nullcontext()


def watched(items: Iterable[Item], stage: str, watch: Watch) -> Iterator[Item]:
    """The same items, each made under the eyes of `watch`."""
    iterator = iter(items)
    while True:
        with watch(stage):
            item = next(iterator, None)
        if item is None:
            return
        yield item


@dataclass
class Stopwatch:
    """Seconds of each stage. One that a thread enters within another is not counted in that other.

    finish: waits until the device has done what it was given, so that this counts for the stage.
    """

    finish: Callable[[], None] = lambda: None
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    _local: threading.local = field(default_factory=threading.local)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        outer = getattr(self._local, "inner", None)  # seconds of what is entered within that
        self._local.inner, since = 0.0, time.perf_counter()
        try:
            yield
            self.finish()
        finally:
            whole = time.perf_counter() - since
            own = whole - self._local.inner
            self.seconds[stage] = self.seconds.get(stage, 0.0) + own
            self._local.inner = None if outer is None else outer + whole

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def shares(self, *stages: str) -> str:
        """In words, what part of the time since the start these were at work."""
        whole = self.elapsed()
        return ", ".join(f"{stage} {self.seconds.get(stage, 0.0) / whole:.0%}" for stage in stages)
