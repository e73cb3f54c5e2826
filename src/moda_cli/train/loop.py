"""The training loop: the same steps on one process or many, resumable at any of them."""

import json
import math
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from moda_cli.device import usable_cores
from moda_cli.errors import InputError, ModaError, UsageError
from moda_cli.files import sha256_of
from moda_cli.media.pictures import write_image
from moda_cli.motion import Stats
from moda_cli.train import checkpoint
from moda_cli.train.dataset import (
    Batch,
    TrainingWindows,
    check_features,
    feature_stats,
    read_index,
    stack,
)
from moda_cli.train.log import RunLog, tensorboard_writer
from moda_cli.train.objectives import (
    MotionObjective,
    Scores,
    SyncObjective,
    load_expert,
    objective_of,
)
from moda_cli.train.optimiser import State
from moda_cli.train.parallel import Ranks, join_ranks, reducing, spread
from moda_cli.train.presets import TrainConfig

OnStep = Callable[[int, int, Scores], None]  # (step, of steps, what was just logged if anything)
Origin = dict[str, Any]  # what must be the same for a run to go on

VALIDATION_SEED = 1


def train(
    features: Path,
    run: Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    workers: int = 2,
    fsdp: bool = False,
    tensorboard: bool = False,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> None:
    """Train on a feature folder and leave a model directory in `run` (averaged weights).

    A run that was stopped goes on from its newest checkpoint, to the same weights; `resume` insists
    on one. `workers` processes prepare samples; 0 does without. Raises UsageError for a run of
    other settings or features, InputError for features that cannot be used, ModaError when the loss
    is no longer a number.
    """
    clips = read_index(features, "train", config.model.window)
    check_features(clips[0], config.model)
    held_out = read_index(features, config.validate_on, config.model.window)
    expert = load_expert(config)
    board = tensorboard_writer() if tensorboard else None
    with join_ranks(device, fsdp) as ranks:
        if config.batch_size % (ranks.size * config.accumulate):
            raise UsageError(
                f"batch_size {config.batch_size} cannot be split over {ranks.size} processes "
                f"and {config.accumulate} parts",
                hint="choose a multiple",
            )
        origin = {"config": asdict(config), "features": sha256_of(features / "index.jsonl")}
        start = _checkpoint(run, origin, resume)
        ranks.wait()
        if ranks.main and start is None:
            _prepare(run, config, feature_stats(clips, config.model))
        ranks.wait()
        stats = Stats.read(run / "stats.json")
        trainer = Trainer(run, config, objective_of(config, stats, expert), ranks, origin, fsdp)
        if start:
            trainer.state.restore(checkpoint.read_tensors(start), checkpoint.read_notes(start))
        validation = replace(
            config, seed=VALIDATION_SEED, audio_dropout=0, emotion_dropout=0, motion_dropout=0,
            prev_noise=0, augment=False,
        )  # fmt: skip
        samples = TrainingWindows(held_out, stats, validation)
        judged = stack([samples[number] for number in range(config.validate_windows)])
        log = RunLog(run, trainer.state.step, board) if ranks.main else None
        with closing(log) if log else nullcontext():
            trainer.fit(TrainingWindows(clips, stats, config), judged, workers, log, on_step)


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
    ) -> None:
        self.run, self.config, self.ranks, self.origin = run, config, ranks, origin
        self.objective = objective.to(ranks.device)
        if config.compile:
            objective.compile()
        self.module = spread(objective, objective.network, ranks, fsdp)
        self.state = State(objective.network, config)
        self.recent: list[dict[str, Tensor]] = []  # losses not yet logged

    def fit(
        self,
        windows: TrainingWindows,
        held_out: Batch,
        workers: int,
        log: RunLog | None,
        on_step: OnStep | None,
    ) -> None:
        """Train to the last step. held_out: what averaged weights are measured on."""
        config, state, ranks = self.config, self.state, self.ranks
        steps = config.steps or math.ceil(config.epochs * windows.in_one_pass / config.batch_size)
        numbers = sample_numbers(config, ranks, state.step, steps)
        batches = load(windows, numbers, workers, ranks.device)
        began = time.perf_counter() - state.seconds
        while state.step < steps:
            rate = learning_rate(state.step, config, steps)
            self.recent.append(self._step(batches, rate))
            judging = state.step % config.validate_every == 0 or state.step == steps
            keeping = judging or state.step % config.checkpoint_every == 0
            row: Scores = {}
            if keeping or state.step % config.log_every == 0:
                row = {"step": state.step, **self._means(), "learning_rate": rate}
                row["seconds"] = state.seconds = time.perf_counter() - began
            tensors = state.tensors() if keeping else {}
            if keeping and ranks.main:
                row |= self._publish(tensors, held_out if judging else None)
            if log and row:  # before the checkpoint, so that a killed run misses no row
                log.write(row)
            if keeping and ranks.main:
                self._checkpoint(tensors, row)
            if keeping:
                ranks.wait()
            if on_step and ranks.main:
                on_step(state.step, steps, row)

    def _step(self, batches: Iterator[Batch], rate: float) -> dict[str, Tensor]:
        """One step of the optimiser; the losses, and the norm of their gradient."""
        total: dict[str, Tensor] = {}
        for part in range(self.config.accumulate):
            batch = next(batches).to(self.ranks.device)
            with reducing(self.module, last=part + 1 == self.config.accumulate):
                losses = self.module(batch)
                (losses["loss"] / self.config.accumulate).backward()
            for name, value in losses.items():
                share = value.detach() / self.config.accumulate
                total[name] = total[name] + share if name in total else share
        return total | {"grad_norm": self.state.update(rate)}

    def _means(self) -> Scores:
        """Losses of the recent steps, averaged. Raises ModaError when one is no number."""
        values = torch.stack([torch.stack(list(losses.values())) for losses in self.recent])
        values = self.ranks.mean(values)
        names = list(self.recent[0])
        self.recent.clear()
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            step = self.state.step - len(values) + int(wrong[0, 0]) + 1
            value = float(values[tuple(wrong[0])])
            last = checkpoint.newest(self.run)
            raise ModaError(
                f"training diverged: {names[int(wrong[0, 1])]} is {value} at step {step}",
                hint=(f"the last good checkpoint is {last}; " if last else "")
                + "start another run with a lower learning_rate",
            )
        return dict(zip(names, values.mean(dim=0).tolist(), strict=True))

    def _publish(self, tensors: Mapping[str, Tensor], held_out: Batch | None) -> Scores:
        """Write the model directory; its scores and curves on held-out windows, if given."""
        run, step = self.run, self.state.step
        network = self.state.averaged(tensors)
        self._save(network, run)
        if held_out is None:
            return {}
        scores, picture = self.objective.validate(network, held_out.to(self.ranks.device))
        if picture is not None:
            (run / "plots").mkdir(exist_ok=True)
            write_image(run / "plots" / f"step-{step:08d}.png", picture)
        if scores["val_loss"] < self.state.best:
            self._save(network, run / "best")
        return scores

    def _checkpoint(self, tensors: Mapping[str, Tensor], row: Scores) -> None:
        state = self.state
        best = row.get("val_loss", math.inf) < state.best
        state.best = min(row.get("val_loss", math.inf), state.best)
        notes = {"step": state.step, "seconds": state.seconds, "best": state.best, **self.origin}
        checkpoint.write(self.run, tensors, notes, best)

    def _save(self, network: Any, directory: Path) -> None:
        """The model directory; each of its files is replaced whole."""
        directory.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.run) as temporary:
            self.objective.save(network, Path(temporary))
            for path in Path(temporary).iterdir():
                path.replace(directory / path.name)


def learning_rate(step: int, config: TrainConfig, steps: int) -> float:
    """Linear warm-up, then constant, or a cosine down to 2 % at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * (0.51 + 0.49 * math.cos(math.pi * done))


def sample_numbers(config: TrainConfig, ranks: Ranks, step: int, steps: int) -> Iterator[list[int]]:
    """The samples of each part of this process's share of every batch from `step` on."""
    share = config.batch_size // ranks.size
    size = share // config.accumulate
    for first in range(step * config.batch_size, steps * config.batch_size, config.batch_size):
        own = first + ranks.rank * share
        for start in range(own, own + share, size):
            yield list(range(start, start + size))


def load(
    windows: TrainingWindows, numbers: Iterable[list[int]], workers: int, device: torch.device
) -> Iterator[Batch]:
    """Batches of the numbered samples, prepared ahead by `workers` processes. Raises InputError.

    No more processes than this one may use cores: samples do not depend on who prepares them.
    """
    loader = DataLoader(
        windows,
        batch_sampler=numbers,
        collate_fn=stack,
        num_workers=min(workers, usable_cores()),
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_interrupts,
    )
    try:
        yield from loader
    except InputError as error:  # from a worker it comes with a traceback in its text
        raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None


def _ignore_interrupts(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process stops them


def _prepare(run: Path, config: TrainConfig, stats: Stats) -> None:
    """What a run begins with. Raises UsageError."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / "train.json").write_text(json.dumps(asdict(config), indent=2))
        stats.write(run / "stats.json")
    except OSError as error:
        raise UsageError(f"cannot write to {run}: {error.strerror}") from None


def _checkpoint(run: Path, origin: Origin, resume: bool) -> Path | None:
    """The checkpoint a run goes on from. Raises UsageError for a run of another origin."""
    path = checkpoint.newest(run)
    if path is None:
        if resume:
            raise UsageError(f"no checkpoint in {run} to resume from")
        if (run / "model.safetensors").exists():
            raise UsageError(f"{run} holds a model already", hint="choose another folder for -o")
        return None
    known = checkpoint.read_notes(path)
    if known["config"] != origin["config"]:
        old, new = (_flat(notes["config"]) for notes in (known, origin))
        names = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
        changes = ", ".join(f"{n} {old.get(n)}, now {new.get(n)}" for n in sorted(names))
        raise UsageError(
            f"{run} was started with other settings: {changes}",
            hint="give the same settings to go on, or another folder for -o",
        )
    if known["features"] != origin["features"]:
        raise UsageError(
            f"{run} was started on other features", hint="choose another folder for -o"
        )
    return path


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        inner = value if isinstance(value, dict) else None
        flat |= {f"{name}.{k}": v for k, v in inner.items()} if inner else {name: value}
    return flat
