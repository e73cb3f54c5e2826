"""A run of training, begun or gone on with: what it needs is checked before anything is written."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from moda_cli.choice import choose
from moda_cli.config import FPS
from moda_cli.device import has_bf16
from moda_cli.errors import UsageError
from moda_cli.files import atomic_write, sha256_of
from moda_cli.generator.model import MotionGenerator
from moda_cli.motion import Stats
from moda_cli.owner import owned
from moda_cli.train import checkpoint
from moda_cli.train.clip_files import FeatureFile, check_clips, clips_key, read_index
from moda_cli.train.dataset import TrainingWindows, feature_stats, stack
from moda_cli.train.gains import FILE, gains
from moda_cli.train.log import RunLog, tensorboard_writer
from moda_cli.train.objectives import load_expert, objective_of
from moda_cli.train.pace import headline
from moda_cli.train.parallel import Ranks, join_ranks
from moda_cli.train.presets import TrainConfig
from moda_cli.train.trainer import OnStep, Origin, Say, Trainer

VALIDATION_SEED = 1
LENGTH = ("epochs", "steps")  # of a run: a finished one may be prolonged
CPU = torch.device("cpu")


def train(
    features: Path,
    run: Path,
    config: TrainConfig,
    *,
    device: str = "auto",
    workers: int | None = None,
    fsdp: bool = False,
    tensorboard: bool = False,
    resume: bool = False,
    on_step: OnStep | None = None,
    say: Say = lambda _: None,
) -> None:
    """Train on a feature folder and leave a model directory in `run` (averaged weights).

    A run that was stopped goes on from its newest whole checkpoint, to the same weights; one that
    is finished goes on where it is given more steps. `resume` insists on a checkpoint. `workers`
    processes prepare samples; 0 does without, None takes as many as the device needs. `say` is told
    in sentences what begins, how long it will take and what is amiss. SIGINT and SIGTERM act after
    the step in hand and its checkpoint. Raises UsageError for a run of other settings or features,
    or one that another process writes, InputError for features that cannot be used, WeightsError
    for a model to start from that is not there, ModaError when the loss is no longer a number.
    """
    begin = choose(config.start, "auto", CPU).load(CPU) if config.start else None
    if begin:
        config = replace(config, model=begin.network.config)
    clips = read_index(features, "train", config.model.window)
    held_out = read_index(features, config.validate_on, config.model.window)
    expert = load_expert(config)
    board = tensorboard_writer() if tensorboard else None
    origin = {"config": asdict(config), "features": sha256_of(features / "index.jsonl")}
    with join_ranks(device, fsdp) as ranks, _sole_writer(run, ranks):
        if config.batch_size % (ranks.size * config.accumulate):
            raise UsageError(
                f"batch_size {config.batch_size} cannot be split over {ranks.size} processes "
                f"and {config.accumulate} parts",
                hint="choose a multiple",
            )
        if config.bf16 == "auto":  # the origin keeps the word: another machine may go on
            config = replace(config, bf16=has_bf16(ranks.device))
        say = say if ranks.main else lambda _: None
        start = _checkpoint(run, origin, resume, say)
        ranks.wait()
        if ranks.main:
            _check([*clips, *held_out], config, start, origin, say)
            if start is None:
                _prepare(run, origin, begin.stats if begin else feature_stats(clips, config.model))
        ranks.wait()
        stats = Stats.read(run / "stats.json")
        objective = objective_of(config, stats, expert)
        if begin:
            objective.network.load_state_dict(begin.network.state_dict())
        trainer = Trainer(run, config, objective, ranks, origin, fsdp, say)
        if start:
            trainer.restore(start)
        validation = replace(
            config, seed=VALIDATION_SEED, audio_dropout=0, emotion_dropout=0, motion_dropout=0,
            prev_noise=0, augment=False, shortest_window=None,
        )  # fmt: skip
        samples = TrainingWindows(held_out, stats, validation)
        judged = stack([samples[number] for number in range(config.validate_windows)])
        windows = TrainingWindows(clips, stats, config)
        taken, steps = trainer.state.step, trainer.steps(windows)
        if steps < taken:
            hint = f"give at least {taken}, or another folder for -o"
            raise UsageError(f"{run} has taken {taken} steps, more than {steps}", hint=hint)
        if taken and ranks.main:
            _write_settings(run, origin)
        say(headline(trainer.state, windows, ranks, steps))
        log = RunLog(run, trainer.state.step, board) if ranks.main else None
        with closing(log) if log else nullcontext():
            trainer.fit(windows, judged, workers, log, on_step)
        if begin and ranks.main:
            after = MotionGenerator.load(run, CPU)
            found = gains(begin.network, after.network, judged, stats)
            with atomic_write(run / FILE) as path:
                path.write_text(json.dumps(found, indent=2))


@contextmanager
def _sole_writer(run: Path, ranks: Ranks) -> Iterator[None]:
    with owned(run) if ranks.main else nullcontext():
        yield


def _check(
    clips: Sequence[FeatureFile], config: TrainConfig, start: Path | None, origin: Origin, say: Say
) -> None:
    """Read every clip, unless the run that goes on has read them as they are. Raises InputError."""
    clips = list(dict.fromkeys(clips))  # a run may be judged on what it learns from
    origin["clips"] = clips_key(clips)
    if start is None or checkpoint.read_notes(start)["clips"] != origin["clips"]:
        hours = sum(clip.frames for clip in clips) / FPS / 3600
        say(f"checking {len(clips)} clips, {hours:.2f} h")
        check_clips(clips, config.model)


def _prepare(run: Path, origin: Origin, stats: Stats) -> None:
    """What a run begins with. Raises UsageError."""
    try:
        _write_settings(run, origin)
        stats.write(run / "stats.json")
        checkpoint.begin(run)
    except OSError as error:
        raise UsageError(f"cannot write to {run}: {error.strerror}") from None


def _write_settings(run: Path, origin: Origin) -> None:
    with atomic_write(run / "train.json") as path:
        path.write_text(json.dumps(origin["config"], indent=2))


def _checkpoint(run: Path, origin: Origin, resume: bool, say: Say) -> Path | None:
    """The checkpoint a run goes on from. Raises UsageError for a run of another origin."""
    path, damaged = checkpoint.newest(run)
    for fault in damaged:
        say(f"{fault}; going on from {path}")
    if path is None:
        if resume:
            raise UsageError(f"no checkpoint in {run} to resume from")
        if (run / "model.safetensors").exists() and not checkpoint.has_begun(run):
            raise UsageError(f"{run} holds a model already", hint="choose another folder for -o")
        return None
    known = checkpoint.read_notes(path)
    old, new = (_flat(notes["config"]) for notes in (known, origin))
    names = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    if set(names) - set(LENGTH):
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
