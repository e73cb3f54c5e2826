"""What a server counts, as Prometheus reads it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Counts:
    """Sums since the server began; only its event loop adds to them."""

    sessions: int = 0  # that began
    refused: Counter[str] = field(default_factory=Counter)  # clients, by reason
    frames: int = 0  # sent
    left_out: Counter[str] = field(default_factory=Counter)  # pictures, by who had no time for them
    faults: int = 0  # messages that could not be read
    heard_s: float = 0.0  # of sound

    def text(self, running: int, most: int, busy: float) -> str:
        """All of it. running: sessions now, of `most`; busy: the share of time of the slowest."""
        rows: list[tuple[str, str, str, Mapping[str, float]]] = [
            ("sessions", "gauge", "Sessions that run", {"": running}),
            ("sessions_limit", "gauge", "Sessions that may run", {"": most}),
            ("busy_ratio", "gauge", "Share of its time that the busiest session takes", {"": busy}),
            ("sessions_total", "counter", "Sessions that began", {"": self.sessions}),
            ("refused_total", "counter", "Clients refused", _by("reason", self.refused)),
            ("frames_total", "counter", "Frames sent", {"": self.frames}),
            ("pictures_left_out_total", "counter", "Pictures", _by("who", self.left_out)),
            ("faults_total", "counter", "Messages that could not be read", {"": self.faults}),
            ("sound_seconds_total", "counter", "Seconds of sound taken", {"": self.heard_s}),
        ]
        lines = []
        for name, kind, told, values in rows:
            full = f"moda_live_{name}"
            lines += [f"# HELP {full} {told}.", f"# TYPE {full} {kind}"]
            lines += [f"{full}{label} {value:.10g}" for label, value in values.items()]
        return "\n".join(lines) + "\n"


def _by(name: str, counted: Counter[str]) -> dict[str, float]:
    return {f'{{{name}="{value}"}}': count for value, count in sorted(counted.items())}
