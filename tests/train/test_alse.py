"""The sync expert tells lips in sync from shifted ones, and its gate opens when it should."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from moda_cli.errors import UsageError, WeightsError
from moda_cli.train.alse import LIPS, SyncExpert, Tower, expert_loss, gate_loss, sync_loss
from moda_cli.train.clip_files import read_index
from moda_cli.train.dataset import TrainingWindows, feature_stats, stack
from moda_cli.train.loop import train
from moda_cli.train.objectives import sync_scores
from moda_cli.train.presets import SyncConfig
from toy_features import TINY, short, write_features

SMALL = SyncConfig("logmel", 4, 80, hidden_dim=32, embed_dim=16, depth=2)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), clips=20, held_out=4)


@pytest.fixture(scope="module")
def expert(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "alse"
    config = short(
        model=SMALL, steps=120, batch_size=8, learning_rate=3e-3, validate_every=120,
        checkpoint_every=120, velocity_weight=1.0,
    )  # fmt: skip
    train(features, run, config, workers=0)
    return run


def test_a_tower_sees_a_short_window() -> None:
    tower = Tower(3, SMALL)
    x = torch.randn(1, 30, 3)
    out = tower(x)
    assert out.shape == (1, 30 - 8, 16)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(1, 22))
    other = x.clone()
    other[0, 12] += 1
    changed = (tower(other) != out).any(dim=-1)[0].nonzero()[:, 0].tolist()
    assert changed == list(range(12 - 8, 12 + 1))


def test_losses_in_closed_form() -> None:
    turning = F.one_hot(torch.arange(6))[None].float()  # each frame unlike all others
    assert expert_loss(turning, turning) == 0
    still = torch.ones(1, 6, 1)
    assert expert_loss(still, still) == pytest.approx(1)  # in sync at every shift
    assert expert_loss(still, -still) == pytest.approx(2)
    half = torch.cat((turning, -turning))
    torch.testing.assert_close(sync_loss(half, turning.expand(2, -1, -1)), torch.tensor([0.0, 2]))


def test_the_gate_is_per_sample() -> None:
    loss = torch.tensor([0.1, 0.39, 0.4, 1.2], requires_grad=True)
    led = gate_loss(loss, 0.4)
    assert led.tolist() == pytest.approx([0.1, 0.39, 0, 0])
    led.sum().backward()
    assert loss.grad is not None
    assert loss.grad.tolist() == [1, 1, 0, 0]


def test_in_sync_is_told_from_shifted(features: Path, expert: Path) -> None:
    """On held-out clips."""
    network = SyncExpert.load(expert)
    stats = feature_stats(read_index(features, "train", 80), TINY)
    config = short(audio_dropout=0.0)
    windows = TrainingWindows(read_index(features, "test", 80), stats, config)
    batch = stack([windows[number] for number in range(16)])
    motion = stats.denormalise(batch.motion)
    lips, sound = network(motion, batch.audio)
    scores = sync_scores(lips, sound)
    assert scores["cos_in_sync"] > 0.8
    assert scores["cos_shifted"] < 0.3
    assert scores["found"] > 0.7
    late = network(motion.roll(8, dims=1), batch.audio)[0]
    assert sync_loss(lips, sound).mean() < 0.4 < sync_loss(late, sound).mean()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    moved = motion.clone()
    moved[..., [c for c in range(70) if c not in LIPS]] += 1
    assert torch.equal(network(moved, batch.audio)[0], lips)  # it reads lips only


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")))


def test_the_loss_leads_only_while_the_gate_is_open(
    features: Path, expert: Path, tmp_path: Path
) -> None:
    config = short(steps=4, model=TINY, learning_rate=1e-3, warmup_steps=0)
    weights = []
    for name, alse, threshold in (("off", None, 0.4), ("shut", expert, 0.0), ("open", expert, 3.0)):
        changed = replace(config, alse=alse and str(alse), alse_threshold=threshold)
        train(features, tmp_path / name, changed, workers=0)
        weights.append(last_weights(tmp_path / name))
    off, shut, led = weights
    assert off.keys() == shut.keys()  # the expert is not in the checkpoint
    assert all(torch.equal(off[name], shut[name]) for name in off)
    assert not torch.equal(off["network.head.weight"], led["network.head.weight"])


def test_an_expert_of_another_kind_is_refused(features: Path, expert: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a sync expert"):
        train(features, tmp_path / "run", short(alse=str(tmp_path)), workers=0)
    other = tmp_path / "other"
    other.mkdir()
    text = (expert / "config.json").read_text().replace('"logmel"', '"hubert"')
    (other / "config.json").write_text(text)
    save_file(load_file(expert / "model.safetensors"), other / "model.safetensors")
    with pytest.raises(UsageError, match=r"hears .*hubert"):
        train(features, tmp_path / "run", short(alse=str(other)), workers=0)
    assert not (tmp_path / "run").exists()
