"""What a visitor has made: clips with their settings, in a folder that goes with the server."""

import hashlib
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moda_cli.pipeline import Result
from moda_cli.ui.limits import Limits
from moda_cli.ui.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Made:
    """A finished clip, and what it was made of."""

    number: int  # of its visitor's, from 1
    wanted: Wanted
    portrait: Path
    sound: Path
    timeline: Path | None
    motion: Path
    result: Result
    model: str

    @property
    def title(self) -> str:
        """What tells it from the visitor's other clips."""
        lasts = f"{self.result.frames / self.result.fps:.1f} s"
        timed = ", timeline" if self.timeline else ""
        return f"{self.number}: {self.wanted.feeling}{timed}, seed {self.wanted.seed}, {lasts}"


@dataclass(slots=True)
class Session:
    """A visitor's folder and clips."""

    folder: Path
    most: int
    clips: dict[int, Made] = field(default_factory=dict)
    batch: Path | None = None  # the last
    begun: int = 0

    def new_files(self, stem: str) -> tuple[int, Path]:
        """A number for the next clip, and a folder of its own for its files."""
        self.begun += 1
        folder = self.folder / f"{self.begun}-{stem}"
        folder.mkdir(parents=True)
        return self.begun, folder

    def keep(self, made: Made) -> None:
        """Remember a clip, and forget the oldest where there are too many."""
        self.clips[made.number] = made
        while len(self.clips) > self.most:
            oldest = self.clips.pop(min(self.clips))
            shutil.rmtree(oldest.motion.parent, ignore_errors=True)

    def keep_batch(self, folder: Path) -> None:
        """Keep the clips of a batch in place of those of the one before."""
        if self.batch:
            shutil.rmtree(self.batch, ignore_errors=True)
        self.batch = folder


class Sessions:
    """Everybody who has the page open, and what is being made for each tab of theirs."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._stops: dict[str, set[threading.Event]] = {}  # by tab
        self._lock = threading.Lock()

    def of(self, token: str) -> Session:
        """The session of a visitor, who alone knows the token."""
        name = hashlib.sha256(token.encode()).hexdigest()[:32]
        with self._lock:
            if name not in self._sessions:
                folder = self.folder / name
                folder.mkdir(parents=True)
                self._sessions[name] = Session(folder, self.limits.clips)
            self._sessions.move_to_end(name)
            while len(self._sessions) > self.limits.visitors:
                _, gone = self._sessions.popitem(last=False)
                shutil.rmtree(gone.folder, ignore_errors=True)
            return self._sessions[name]

    @contextmanager
    def stoppable(self, tab: str) -> Iterator[threading.Event]:
        """An event that is set when this tab wants its work to end."""
        stop = threading.Event()
        with self._lock:
            self._stops.setdefault(tab, set()).add(stop)
        try:
            yield stop
        finally:
            with self._lock:
                self._stops[tab].discard(stop)
                if not self._stops[tab]:
                    del self._stops[tab]

    def stop(self, tab: str) -> None:
        """End what is being made for a tab."""
        with self._lock:
            for stop in self._stops.get(tab, ()):
                stop.set()
