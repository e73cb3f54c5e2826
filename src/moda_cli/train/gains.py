"""What fine-tuning gained: the model it began with and the tuned one, on held-out windows."""

from dataclasses import replace

import torch
from torch import Tensor

from moda_cli.config import FPS
from moda_cli.control.blinks import CLOSED_LID, without_blinks
from moda_cli.generator.mmdit import MMDiT
from moda_cli.motion import ARTICULATORS, EXPRESSION, JAW_OPENS, POSE, Stats, decode
from moda_cli.train.dataset import Batch
from moda_cli.train.objectives import Scores, lip_scores, sample_motion

FILE = "gains.json"  # of a run
SHUT = 0.015 / JAW_OPENS  # units of jaw up to which lips touch
OPEN = 3 * SHUT  # from which a mouth has been open
NEAR = 5  # frames before or after which it was open: it closes within speech
LATE = 1  # frames that a closure may be off
SEEDS = 4  # samples of each window: one is chance

JAW = ARTICULATORS.index("jaw")
LIDS = [ARTICULATORS.index(name) for name in ("lid_a", "lid_b")]
SHOWN = ("r_lips", "r_jaw", "r_spread", "r_round", "closure", "blinks", "head")


@torch.inference_mode()
def gains(before: MMDiT, after: MMDiT, held_out: Batch, stats: Stats) -> dict[str, Scores]:
    """Scores of both networks on the same windows, and what is counted of the true motion.

    r_*: correlation with the true motion. closure: share of the true closures of the lips within
    speech in which the made ones are shut too. blinks: a minute. head: mean deviation of pitch, yaw
    and roll within a window, in degrees.
    """
    true = stats.denormalise(held_out.motion)
    batch = replace(held_out, audio=held_out.audio.float())
    scores = {}
    for name, network in (("before", before), ("after", after)):
        made = [stats.denormalise(sample_motion(network, batch, seed)) for seed in range(SEEDS)]
        pairs = [motion_scores(motion, true, stats.neutral) for motion in made]
        scores[name] = {key: sum(pair[key] for pair in pairs) / SEEDS for key in pairs[0]}
    return {**scores, "true": counted(true, stats.neutral)}


def motion_scores(made: Tensor, true: Tensor, neutral: Tensor) -> Scores:
    """How made motion (B, T, 70) is like the true one, and what is counted of it."""
    scores = {n: v for n, v in lip_scores(made, true, neutral).items() if n.startswith("r_")}
    jaw, own = (decode((x - neutral)[..., EXPRESSION])[..., JAW] for x in (made, true))
    if (closing := closures(own)).any():
        scores["closure"] = float((_lowest(jaw)[closing] < SHUT).float().mean())
    return {name: scores[name] for name in SHOWN if name in scores} | counted(made, neutral)


def closures(jaw: Tensor) -> Tensor:
    """Where lips (B, T) touch shortly after or before they were open, (B, T) bool."""
    around = torch.nn.functional.max_pool1d(jaw[:, None], 2 * NEAR + 1, 1, NEAR)[:, 0]
    return (jaw < SHUT) & (around > OPEN)


def counted(motion: Tensor, neutral: Tensor) -> Scores:
    """Blinks a minute and how far the head turns, of motion (B, T, 70)."""
    lids = decode((motion - neutral)[..., EXPRESSION])[..., LIDS].amin(dim=-1)
    slow = torch.stack([without_blinks(window[:, None])[:, 0] for window in lids])
    shut = (lids - slow) > CLOSED_LID / 2
    begun = (shut[:, 1:] & ~shut[:, :-1]).sum()
    minutes = lids.numel() / FPS / 60
    head = motion[..., POSE].std(dim=1).mean()
    return {"blinks": float(begun) / minutes, "head": float(head)}


def _lowest(jaw: Tensor) -> Tensor:
    """The lowest of the neighbouring frames too."""
    return -torch.nn.functional.max_pool1d(-jaw[:, None], 2 * LATE + 1, 1, LATE)[:, 0]
