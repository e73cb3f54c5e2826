"""The training loop: rectified flow with condition dropout, an EMA, and a held-out lip score."""

import argparse
import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from moda_cli.config import MINI, NO_EMOTION, ModelConfig, SamplerConfig, TrainConfig
from moda_cli.data.dataset import Batch, Clips
from moda_cli.generator import MotionGenerator, guided_velocity
from moda_cli.losses import flow_loss, noisy_motion
from moda_cli.model.mmdit import MMDiT
from moda_cli.motion import ARTICULATORS, EPS, EXPRESSION, Stats, decode
from moda_cli.sampler import euler_sigmas, guidance_terms, sample_euler

log = logging.getLogger(__name__)

DEFAULTS = TrainConfig()
OnLog = Callable[[dict[str, float]], None]


def feature_stats(root: Path) -> Stats:
    """Statistics of the training split; neutral and identity are its first clip's first frame."""
    rows = [json.loads(line) for line in (root / "index.jsonl").read_text().splitlines()]
    files = [root / f"{row['clip']}.safetensors" for row in rows if row["split"] == "train"]
    count, total, squares = 0, torch.zeros(70).double(), torch.zeros(70).double()
    for path in files:
        with safe_open(path, framework="pt") as file:
            motion = file.get_tensor("motion").double()
        count += len(motion)
        total += motion.sum(dim=0)
        squares += motion.square().sum(dim=0)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std[std < EPS] = 0  # constant but for rounding
    with safe_open(files[0], framework="pt") as file:
        neutral, identity = file.get_slice("motion")[0], file.get_tensor("kp")
    return Stats(mean.float(), std.float(), neutral, identity)


def drop_conditions(
    batch: Batch, config: TrainConfig, network: MMDiT, generator: torch.Generator
) -> Batch:
    """The batch with speech, emotion and previous motion dropped independently, at their rates."""
    count = len(batch.motion)

    def chosen(rate: float) -> Tensor:
        return torch.rand(count, generator=generator) < rate

    silent, plain, free = map(
        chosen, (config.audio_dropout, config.emotion_dropout, config.motion_dropout)
    )
    noise = torch.randn(batch.prev.shape, generator=generator)
    prev = batch.prev + config.prev_noise * noise
    null = network.null_features(batch.audio)
    return replace(
        batch,
        audio=torch.where(silent[:, None, None, None], null, batch.audio),
        emotion=torch.where(plain, NO_EMOTION, batch.emotion),
        prev=torch.where(free[:, None, None], 0.0, prev),
    )


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to 2 % at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.51 + 0.49 * math.cos(math.pi * done))


@torch.inference_mode()
def lip_correlation(model: MotionGenerator, batch: Batch, seed: int) -> dict[str, float]:
    """Correlation of sampled with true articulators over a batch, and their spread's ratio."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch.motion.shape, generator=generator)
    terms = guidance_terms(SamplerConfig(guidance=1.0), model.network.config)
    everywhere = torch.ones(batch.motion.shape[1])
    sampled = torch.empty_like(noise)
    for label in batch.emotion.unique().tolist():
        rows = batch.emotion == label
        velocity = guided_velocity(
            model.network,
            terms,
            batch.audio[rows],
            {label: everywhere},
            batch.identity[rows],
            batch.prev[rows],
        )
        sampled[rows] = sample_euler(velocity, noise[rows], euler_sigmas(10))
    made, true = (
        decode(model.stats.denormalise(z)[..., EXPRESSION] - model.stats.neutral[EXPRESSION])
        for z in (sampled, batch.motion)
    )
    scores = {}
    for k, name in enumerate(ARTICULATORS):
        pair = torch.stack((made[..., k].flatten(), true[..., k].flatten()))
        scores[f"r_{name}"] = float(torch.corrcoef(pair)[0, 1])
        scores[f"sd_{name}"] = float(pair[0].std() / pair[1].std())
    return scores


def train(
    features: Path, run: Path, shape: ModelConfig, config: TrainConfig, on_log: OnLog | None = None
) -> MotionGenerator:
    """Train on a feature folder and leave a model directory in `run` (EMA weights, log.jsonl).

    Raises InputError for a folder without usable clips.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / "train.json").write_text(json.dumps(asdict(config), indent=2))
    stats = feature_stats(features)
    clips = Clips(features, "train", shape.window, stats)
    held_out = Clips(features, "test", shape.window, stats).draw(
        32, torch.Generator().manual_seed(1), augment=False
    )
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    network = MMDiT(shape)
    network.init_weights()
    ema = copy.deepcopy(network).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(
        network.parameters(), weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    moving = stats.std > 0  # a constant channel carries no motion

    @torch.compile
    def predict(z: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        given = network.embed(batch.audio, batch.emotion, batch.identity)
        velocity: Tensor = network(z, batch.prev, 1000 * sigma, given)
        return velocity

    started, losses = time.perf_counter(), []
    with (run / "log.jsonl").open("w") as journal:
        for step in range(config.steps):
            batch = clips.draw(config.batch_size, generator, augment=shape.audio == "logmel")
            sigma = torch.rand(config.batch_size, generator=generator)
            noise = torch.randn(batch.motion.shape, generator=generator)
            z, target = noisy_motion(batch.motion, noise, sigma)
            with torch.autocast(z.device.type, torch.bfloat16):
                batch = drop_conditions(batch, config, network, generator)
                velocity = predict(z, sigma, batch)
            loss, flow = flow_loss(
                velocity.float()[..., moving], target[..., moving], config.velocity_weight
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decay = min(config.ema_decay, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - decay)
            losses.append(float(flow.detach()))

            if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
                model = MotionGenerator(ema, stats)
                row = {
                    "step": step + 1,
                    "loss": sum(losses) / len(losses),
                    "seconds": time.perf_counter() - started,
                    **lip_correlation(model, held_out, seed=0),
                }
                losses.clear()
                journal.write(json.dumps(row) + "\n")
                journal.flush()
                model.save(run)
                if on_log:
                    on_log(row)
    return MotionGenerator(ema, stats)


def main() -> None:
    """Train the bundled model: `python -m moda_cli.train FEATURES RUN`."""
    parser = argparse.ArgumentParser(prog="python -m moda_cli.train", description=main.__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=DEFAULTS.steps)
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(
        args.features,
        args.run,
        MINI,
        replace(DEFAULTS, steps=args.steps, seed=args.seed),
        on_log=lambda row: log.info(" ".join(f"{name}={value:.4g}" for name, value in row.items())),
    )


if __name__ == "__main__":
    main()
