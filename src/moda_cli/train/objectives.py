"""What is trained, a motion generator or a sync expert.

Either is a module that owns the `network`; its call on a batch gives the losses, in bfloat16 where
`bf16` is true: `auto` has been settled by the loop, which knows the device. It also measures a
network and saves one as a model directory.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from moda_cli.config import ModelConfig, SamplerConfig
from moda_cli.errors import UsageError
from moda_cli.files import atomic_write
from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
from moda_cli.generator.mmdit import MMDiT
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.sampler import euler_sigmas, sample_euler
from moda_cli.media.figures import plot_motion
from moda_cli.media.pictures import Picture
from moda_cli.motion import ARTICULATORS, EPS, EXPRESSION, Stats, decode
from moda_cli.train.alse import IN_STEP, LIPS, SyncExpert, expert_loss, gate_loss, sync_loss
from moda_cli.train.dataset import Batch
from moda_cli.train.losses import clean_motion, flow_loss, noisy_motion
from moda_cli.train.presets import SyncConfig, TrainConfig

STILL = 1e-2  # articulator units

Losses = dict[str, Tensor]  # scalars; `loss` is the one to minimise
Scores = dict[str, float]


class MotionObjective(nn.Module):
    """Rectified flow, velocity loss and, with an expert, the gated sync loss (Eq. 4 to 7)."""

    def __init__(self, config: TrainConfig, stats: Stats, expert: SyncExpert | None = None) -> None:
        super().__init__()
        assert isinstance(config.model, ModelConfig)
        self.config, self.stats = config, stats
        self.network = MMDiT(config.model)
        self.network.init_weights()
        self.expert = expert
        self.moving: Tensor  # indices: a constant channel carries no motion
        self.register_buffer("moving", stats.std.nonzero()[:, 0], persistent=False)

    def forward(self, batch: Batch) -> Losses:
        config, network = self.config, self.network
        z, target = noisy_motion(batch.motion, batch.noise, batch.sigma)
        heard = batch.audio.float()
        with torch.autocast(z.device.type, torch.bfloat16, enabled=config.bf16 is True):
            silent = batch.silent[:, None, None, None]
            audio = torch.where(silent, network.null_features(heard), heard)
            given = network.embed(audio, batch.emotion, batch.identity)
            velocity = network(z, batch.prev, 1000 * batch.sigma, given)
        velocity = velocity.float()
        loss, flow = flow_loss(
            velocity[..., self.moving], target[..., self.moving], config.velocity_weight
        )
        losses = {"loss": loss, "flow": flow.detach()}  # one graph: the others are told only
        if self.expert is not None:
            motion = self.stats.denormalise(clean_motion(z, velocity, batch.sigma))
            sync = sync_loss(*self.expert(motion, heard))
            led = gate_loss(sync, config.alse_threshold) * ~batch.silent  # only what was heard
            losses["loss"] = loss + led.mean()
            losses |= {"sync": sync.mean().detach(), "sync_gated": led.mean().detach()}
        return losses

    @torch.inference_mode()
    def validate(self, network: MMDiT, batch: Batch) -> tuple[Scores, Picture]:
        batch = replace(batch, audio=batch.audio.float())
        z, target = noisy_motion(batch.motion, batch.noise, batch.sigma)
        given = network.embed(batch.audio, batch.emotion, batch.identity)
        velocity = network(z, batch.prev, 1000 * batch.sigma, given)
        _, flow = flow_loss(velocity[..., self.moving], target[..., self.moving], 0)
        made, true = (
            self.stats.denormalise(x.cpu()) for x in (sample_motion(network, batch), batch.motion)
        )
        scores = {"val_loss": float(flow), **lip_scores(made, true, self.stats.neutral)}
        nothing = np.zeros(0, np.float32)
        curves = [plot_motion(motion[0], self.stats.neutral, nothing) for motion in (made, true)]
        return scores, np.concatenate(curves, axis=1)

    def save(self, network: MMDiT, directory: Path) -> None:
        MotionGenerator(network, self.stats).save(directory)


class SyncObjective(nn.Module):
    """The sync expert's own training: in-sync against shifted pairs."""

    def __init__(self, config: TrainConfig, stats: Stats) -> None:
        super().__init__()
        assert isinstance(config.model, SyncConfig)
        self.config, self.stats = config, stats
        self.network = SyncExpert(config.model)
        self.network.calibrate(stats)

    def forward(self, batch: Batch) -> Losses:
        bf16 = self.config.bf16 is True
        with torch.autocast(batch.motion.device.type, torch.bfloat16, enabled=bf16):
            lips, sound = self.network(self.stats.denormalise(batch.motion), batch.audio)
        return {"loss": expert_loss(lips, sound)}

    @torch.inference_mode()
    def validate(self, network: SyncExpert, batch: Batch) -> tuple[Scores, None]:
        lips, sound = network(self.stats.denormalise(batch.motion), batch.audio)
        return {"val_loss": float(expert_loss(lips, sound)), **sync_scores(lips, sound)}, None

    def save(self, network: SyncExpert, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(asdict(network.config), indent=2))
        self.stats.write(directory / "stats.json")
        with atomic_write(directory / "model.safetensors") as path:
            save_file(network.state_dict(), path)


def objective_of(
    config: TrainConfig, stats: Stats, expert: SyncExpert | None
) -> MotionObjective | SyncObjective:
    """What the shape of the model asks for, with weights drawn from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if isinstance(config.model, ModelConfig):
            return MotionObjective(config, stats, expert)
        return SyncObjective(config, stats)


def load_expert(config: TrainConfig) -> SyncExpert | None:
    """The frozen expert of the run, if it has one. Raises WeightsError and UsageError."""
    if config.alse is None:
        return None
    expert, model = SyncExpert.load(Path(config.alse)), config.model
    kinds = [(x.audio, x.audio_layers, x.audio_dim) for x in (expert.config, model)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"the sync expert {config.alse} hears {kinds[0]} and the model {kinds[1]}",
            hint="train an expert on the same audio features",
        )
    return expert


def sample_motion(network: MMDiT, batch: Batch, seed: int = 0) -> Tensor:
    """Normalised motion (B, N, 70) drawn for a batch's conditions, without guidance."""
    shape = network.config
    noise = torch.randn(batch.motion.shape, generator=torch.Generator().manual_seed(seed))
    noise = noise.to(batch.motion)
    terms = guidance_terms(SamplerConfig(guidance=1.0), shape)
    everywhere = torch.ones(batch.motion.shape[1])
    windows = [
        Window(audio, {label: everywhere}, identity, prev, terms)
        for audio, label, identity, prev in zip(
            batch.audio, batch.emotion.tolist(), batch.identity, batch.prev, strict=True
        )
    ]
    sigmas = euler_sigmas(shape.steps, shape.last_sigma)
    return sample_euler(guided_velocity(network, windows, sigmas), noise, sigmas)


def lip_scores(made: Tensor, true: Tensor, neutral: Tensor) -> Scores:
    """Correlation of sampled with true motion, and the ratio of their spreads.

    made, true: (B, T, 70) physical. `r_lips` is the mean over the lip channels whose deviation is
    at least a tenth of the largest (those below hardly move, and what
    they correlate with is noise); the others are articulators that move.
    """
    scores = {"r_lips": lip_correlation(made, true)}
    made, true = (decode((x - neutral)[..., EXPRESSION]) for x in (made, true))
    for k, name in enumerate(ARTICULATORS):
        if true[..., k].std() < STILL:
            continue
        pair = torch.stack((made[..., k].flatten(), true[..., k].flatten()))
        scores[f"r_{name}"] = float(torch.corrcoef(pair)[0, 1])
        scores[f"sd_{name}"] = float(pair[0].std() / pair[1].std())
    return scores


def lip_correlation(made: Tensor, true: Tensor) -> float:
    """Mean correlation of the moving lip channels of motions (B, T, 70)."""
    made, true = (x[..., LIPS].flatten(0, 1).double() for x in (made, true))
    spread = true.std(dim=0)
    made, true = (x[:, spread >= 0.1 * spread.max()] for x in (made, true))
    made, true = (x - x.mean(dim=0) for x in (made, true))
    both = (made * true).sum(dim=0)
    return float((both / (made.norm(dim=0) * true.norm(dim=0)).clamp(min=EPS**2)).mean())


def sync_scores(lips: Tensor, sound: Tensor) -> Scores:
    """Cosine in sync and shifted, and how often the true shift looks best. Both (B, N, E)."""
    cosine = lips @ sound.mT  # (B, N, N)
    frame = torch.arange(cosine.shape[-1], device=cosine.device)
    shift = (frame[:, None] - frame).abs()
    best = shift.expand_as(cosine).gather(-1, cosine.argmax(dim=-1, keepdim=True))
    return {
        "cos_in_sync": float(cosine[:, shift == 0].mean()),
        "cos_shifted": float(cosine[:, shift > IN_STEP].mean()),
        "found": float((best <= IN_STEP).float().mean()),
    }
