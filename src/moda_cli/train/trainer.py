"""The steps of a run: taken, measured, logged, and kept in checkpoints."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moda_cli.device import usable
from moda_cli.errors import ModaError
from moda_cli.files import to_disk
from moda_cli.media.pictures import write_image
from moda_cli.stopping import stopping
from moda_cli.train import checkpoint
from moda_cli.train.dataset import Batch, TrainingWindows
from moda_cli.train.loader import load, processes_watched, sample_numbers
from moda_cli.train.log import RunLog
from moda_cli.train.objectives import Losses, MotionObjective, Scores, SyncObjective
from moda_cli.train.optimiser import State
from moda_cli.train.pace import Pace
from moda_cli.train.parallel import Ranks, reducing, spread
from moda_cli.train.presets import TrainConfig
from moda_cli.train.regions import prepare_blocks

OnStep = Callable[[int, int, Scores], None]  # (step, of steps, what was just logged if anything)
Say = Callable[[str], None]  # a sentence for whoever watches
Origin = dict[str, Any]  # what must be the same for a run to go on

KEEP_EVERY_S = 600.0  # at most so much work is lost, however slow the steps
PLOTS, BEST = "plots", "best"  # folders of a run
LESS_MEMORY = (
    "--set checkpointing=true keeps less of each step, --set accumulate=2 takes a batch in parts; "
    "with either, a run starts anew in another folder"
)
KEEP = 1  # no number of a signal that asks to stop


class Trainer:
    """Takes steps on this process's share of every batch, measures, logs, and keeps checkpoints."""

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        objective: MotionObjective | SyncObjective,
        ranks: Ranks,
        origin: Origin,
        fsdp: bool,
        say: Say,
    ) -> None:
        self.run, self.config, self.ranks, self.origin = run, config, ranks, origin
        self.say = say if ranks.main else lambda _: None
        self.objective = objective.to(ranks.device)
        prepare_blocks(objective.network, config.compile, config.checkpointing)
        self.module = spread(objective, objective.network, ranks, fsdp)
        self.state = State(objective.network, config)
        self.recent: list[dict[str, Tensor]] = []  # losses not yet logged

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        notes = checkpoint.read_notes(path)
        self.state.restore(checkpoint.read_tensors(path), notes)
        recent = {n: torch.tensor(v).to(self.ranks.device) for n, v in notes["recent"].items()}
        steps = zip(*(values.unbind() for values in recent.values()), strict=True)
        self.recent = [dict(zip(recent, losses, strict=True)) for losses in steps]

    def fit(
        self,
        windows: TrainingWindows,
        held_out: Batch,
        workers: int | None,
        log: RunLog | None,
        on_step: OnStep | None,
    ) -> None:
        """Train to the last step. held_out: what averaged weights are measured on.

        The first SIGINT or SIGTERM lets the step in hand end and its checkpoint be written, and
        only then acts.
        """
        config, state, ranks, steps = self.config, self.state, self.ranks, self.steps(windows)
        numbers = sample_numbers(config, ranks, state.step, steps)
        batches = load(windows, numbers, workers, ranks.device)
        pace = Pace(config, ranks, steps)
        began, kept = time.perf_counter() - state.seconds, time.monotonic()
        stop = 0  # a signal's number

        def on_ask() -> None:
            self.say("stopping after this step and its checkpoint; once more stops at once")

        with (
            closing(batches), stopping(on_ask) as asked, processes_watched(),
            usable(ranks.device, LESS_MEMORY, "--set compile=false"),
        ):  # fmt: skip
            while state.step < steps and not stop:
                rate = learning_rate(state.step, config, steps)
                self.recent.append(self._step(batches, rate))
                late = time.monotonic() - kept > KEEP_EVERY_S
                wish = ranks.agree(asked.signal or (KEEP if late else 0))
                stop = wish if wish > KEEP else 0
                judging = state.step % config.validate_every == 0 or state.step == steps
                due = judging or state.step % config.checkpoint_every == 0
                keeping = due or wish > 0
                row: Scores = {}
                if keeping or state.step % config.log_every == 0:
                    losses = self._losses()
                    state.seconds = time.perf_counter() - began
                    if due or state.step % config.log_every == 0:
                        row = {"step": state.step, **self._means(losses), "learning_rate": rate}
                        row["seconds"] = state.seconds
                tensors = state.tensors() if keeping else {}
                if keeping and ranks.main:
                    row |= self._publish(tensors, held_out if judging else None)
                if log and row:  # before the checkpoint, so that a killed run misses no row
                    log.write(row)
                if keeping and ranks.main:
                    self._checkpoint(tensors, row, {} if row else losses)
                if keeping:
                    ranks.wait()
                    kept = time.monotonic()
                if on_step and ranks.main:
                    on_step(state.step, steps, row)
                if words := pace.after_step(state.step):
                    self.say(words)
            if stop:
                asked.signal = stop  # another process may have been the one that was asked
                self.say(f"step {state.step}: checkpoint written, the same command goes on")

    def steps(self, windows: TrainingWindows) -> int:
        """How many steps the run has in all."""
        config = self.config
        return config.steps or math.ceil(config.epochs * windows.in_one_pass / config.batch_size)

    def _step(self, batches: Iterator[Batch], rate: float) -> dict[str, Tensor]:
        """One step of the optimiser; the losses, and the norm of their gradient."""
        total: dict[str, Tensor] = {}
        for part in range(self.config.accumulate):
            batch = next(batches)
            with reducing(self.module, last=part + 1 == self.config.accumulate):
                losses = self.module(batch)
                (losses["loss"] / self.config.accumulate).backward()
            for name, value in losses.items():
                share = value.detach() / self.config.accumulate
                total[name] = total[name] + share if name in total else share
        return total | {"grad_norm": self.state.update(rate)}

    def _losses(self) -> Losses:
        """Losses of the recent steps by name (N,), averaged over the processes.

        Raises ModaError when one is no number.
        """
        names = list(self.recent[0])
        values = torch.stack([torch.stack([row[name] for name in names]) for row in self.recent])
        values = self.ranks.mean(values)
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            step = self.state.step - len(values) + int(wrong[0, 0]) + 1
            value = float(values[tuple(wrong[0])])
            last, _ = checkpoint.newest(self.run)
            raise ModaError(
                f"training diverged: {names[int(wrong[0, 1])]} is {value} at step {step}",
                hint=(f"the last good checkpoint is {last}; " if last else "")
                + "start another run with a lower learning_rate",
            )
        return dict(zip(names, values.unbind(dim=1), strict=True))

    def _means(self, losses: Losses) -> Scores:
        self.recent.clear()
        return {name: float(values.mean()) for name, values in losses.items()}

    def _publish(self, tensors: Mapping[str, Tensor], held_out: Batch | None) -> Scores:
        """Write the model directory; its scores and curves on held-out windows, if given."""
        run, step = self.run, self.state.step
        network = self.state.averaged(tensors)
        self._save(network, run)
        if held_out is None:
            return {}
        scores, picture = self.objective.validate(network, held_out.to(self.ranks.device))
        if picture is not None:
            (run / PLOTS).mkdir(exist_ok=True)
            write_image(run / PLOTS / f"step-{step:08d}.png", picture)
        if scores["val_loss"] < self.state.best:
            self._save(network, run / BEST)
        return scores

    def _checkpoint(self, tensors: Mapping[str, Tensor], row: Scores, unlogged: Losses) -> None:
        """unlogged: losses of the steps since the last row, for the next one."""
        state = self.state
        best = row.get("val_loss", math.inf) < state.best
        state.best = min(row.get("val_loss", math.inf), state.best)
        notes = {"step": state.step, "seconds": state.seconds, "best": state.best, **self.origin}
        notes["recent"] = {name: values.tolist() for name, values in unlogged.items()}
        checkpoint.write(self.run, tensors, notes, best)

    def _save(self, network: Any, directory: Path) -> None:
        """The model directory; each of its files is replaced whole."""
        directory.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.run) as temporary:
            self.objective.save(network, Path(temporary))
            for path in Path(temporary).iterdir():
                to_disk(path)
                path.replace(directory / path.name)


def learning_rate(step: int, config: TrainConfig, steps: int) -> float:
    """Linear warm-up, then constant, or a cosine down to 2 % at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * (0.51 + 0.49 * math.cos(math.pi * done))
