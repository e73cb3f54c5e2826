"""What `moda train` tells: a bar on a terminal, elsewhere a line every half minute."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import typer

from moda_cli.cli.bar import Draw
from moda_cli.files import parse_json, read_rows

LINE_EVERY_S = 30.0
LABELS = {"grad_norm": "gradient norm", "sync_gated": "sync (gated)"}
GROUPS = {"r_": "correlation with the true motion", "sd_": "spread against it"}


def say(text: str) -> None:
    """Print a line to stderr; also from a signal's handler, which may have cut into another."""
    with suppress(RuntimeError):
        typer.echo(text, err=True)


class Progress:
    """Follows the steps of a run."""

    def __init__(
        self, draw: Draw | None, shown: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.draw, self.shown, self.clock = draw, shown, clock
        self.last: dict[str, float] = {}  # the newest of every number logged
        self._begun, self._first = 0.0, 0
        self._told = clock()

    def on_step(self, step: int, steps: int, row: Mapping[str, float]) -> None:
        """row: what was logged at this step, if anything."""
        self.last.update(row)
        now = self.clock()
        if not self._begun:  # the first step compiles, and may be a resumed one
            self._begun, self._first = now, step
        each_s = (now - self._begun) / max(1, step - self._first)
        if self.draw:
            rate = f"{each_s:.3g} s a step" if each_s else ""
            loss = f"loss {self.last['loss']:.4f}" if "loss" in self.last else ""
            self.draw(step, steps, loss=loss, rate=rate)
        elif self.shown and self.last and now - self._told >= LINE_EVERY_S:
            self._told = now
            say(step_line(step, steps, self.last, each_s))
        if self.shown and "val_loss" in row:
            say(score_line(step, row))


def step_line(step: int, steps: int, numbers: Mapping[str, float], each_s: float) -> str:
    """Where a run is, its losses on training windows, and the time that is left."""
    from moda_cli.train.pace import duration

    names = [
        name for name in ("loss", "flow", "sync", "sync_gated", "grad_norm") if name in numbers
    ]
    parts = [f"{LABELS.get(name, name)} {numbers[name]:.4g}" for name in names]
    parts.append(f"learning rate {numbers['learning_rate']:.3g}")
    if each_s:
        parts.append(f"{each_s:.3g} s a step, {duration(each_s * (steps - step))} left")
    return f"step {step:,} of {steps:,} ({step / steps:.0%}): {', '.join(parts)}"


def score_line(step: int, row: Mapping[str, float]) -> str:
    """What was measured on held-out windows."""
    parts = [f"loss {row['val_loss']:.4g}"]
    for prefix, title in GROUPS.items():
        found = {name: value for name, value in row.items() if name.startswith(prefix)}
        words = [f"{name.removeprefix(prefix)} {value:.2f}" for name, value in found.items()]
        parts += [f"{title}: {', '.join(words)}"] if words else []
    if "found" in row:
        parts.append(f"the true shift looks best in {row['found']:.0%}")
    return f"step {step:,}, held-out clips: {'; '.join(parts)}"


def closing_lines(run: Path, speaks: bool) -> list[str]:
    """The best score of a run and where its files are, and the command to run next.

    speaks: it is a motion generator, no sync expert.
    """
    rows = read_rows(run / "log.jsonl")
    judged = [row for row in rows if "val_loss" in row]
    lines = gain_lines(run)
    if judged:
        best = min(judged, key=lambda row: row["val_loss"])
        kept = "" if best is judged[-1] else f", kept in {run / 'best'}"
        line = f"best held-out loss {best['val_loss']:.4g} at step {best['step']:,}{kept}"
        lines.append(line + (f"; curves in {run / 'plots'}" if speaks else ""))
    next_ = f"generate PORTRAIT SPEECH --model {run}" if speaks else f"train FEATURES --alse {run}"
    return [*lines, f"next: moda {next_}" + ("" if speaks else " -o OTHER_RUN")]


def gain_lines(run: Path) -> list[str]:
    """What a run gained on the model it started from, if it did, on held-out windows."""
    from moda_cli.train.gains import FILE

    path = run / FILE
    if not path.exists():
        return []
    found = parse_json(path.read_text())
    before, after, true = found["before"], found["after"], found["true"]
    alike = [f"{n} {before[n]:.2f} -> {v:.2f}" for n, v in after.items() if n.startswith("r_")]
    if "closure" in after:
        alike.append(
            f"lips closed with the speaker's {before['closure']:.0%} -> {after['closure']:.0%}"
        )
    habits = [
        f"{title} {before[name]:.3g} -> {after[name]:.3g}, the speaker's {true[name]:.3g}"
        for name, title in (("blinks", "blinks a minute"), ("head", "degrees the head turns"))
    ]
    return [f"held-out windows, before -> after: {', '.join(alike)}", "; ".join(habits)]
