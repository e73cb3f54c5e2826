"""The objective, the windows and the loop that made the bundled model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moda_cli.config import MINI, NO_EMOTION, TrainConfig
from moda_cli.data.dataset import Batch, Clips, augment_log_mel
from moda_cli.errors import InputError
from moda_cli.features.audio import window_features
from moda_cli.generator import MotionGenerator
from moda_cli.losses import flow_loss, noisy_motion
from moda_cli.model.mmdit import MMDiT
from moda_cli.motion import MOTION_DIM, encode
from moda_cli.train import drop_conditions, feature_stats, learning_rate, train

TINY = replace(MINI, hidden_dim=32, num_heads=2, single_stream_depth=1)


def write_features(root: Path, clips: int = 6, frames: int = 120) -> Path:
    """Clips whose jaw follows the loudness of their sound."""
    generator = torch.Generator().manual_seed(0)
    root.mkdir(exist_ok=True)
    rows = []
    for k in range(clips):
        phase = 6.3 * torch.rand(1, generator=generator)
        loud = 0.5 + 0.5 * torch.sin(phase + torch.arange(frames) * (0.2 + 0.02 * k))
        articulators = torch.zeros(frames, 8)
        articulators[1:, 0] = 50 * loud[1:]
        motion = torch.zeros(frames, MOTION_DIM)
        motion[:, :63] = encode(articulators)
        motion[:, 63] = 1.3
        grain = torch.randn(frames, 4, 80, generator=generator)
        emotion = torch.zeros(8)
        emotion[k % 4] = 1.0 if k % 2 else 0.4
        tensors = {
            "motion": motion,
            "audio": (6 * loud[:, None, None] - 8 + 0.3 * grain).half(),
            "emotion": emotion,
            "kp": torch.full((63,), 0.1),
        }
        save_file(tensors, root / f"c{k}.safetensors")
        split = "test" if k == clips - 1 else "train"
        rows.append({"clip": f"c{k}", "split": split, "frames": frames})
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_the_path_runs_from_motion_to_noise() -> None:
    motion, noise = torch.randn(2, 3, 5, 70)
    z, velocity = noisy_motion(motion, noise, torch.tensor([0.0, 1.0, 0.25]))
    torch.testing.assert_close(z[0], motion[0])
    torch.testing.assert_close(z[1], noise[1])
    torch.testing.assert_close(z[2] - 0.25 * velocity[2], motion[2])


def test_losses_in_closed_form() -> None:
    target = torch.zeros(1, 4, 1)
    ramp = torch.tensor([0.0, 1, 2, 3])[None, :, None]
    loss, flow = flow_loss(ramp, target, velocity_weight=0.5)
    assert flow == pytest.approx((0 + 1 + 4 + 9) / 4)
    assert loss == pytest.approx(3.5 + 0.5 * (1 + 0))  # slope 1, curvature 0
    kink = torch.tensor([0.0, 0, 1, 0])[None, :, None]
    loss, flow = flow_loss(kink, target, velocity_weight=1.0)
    assert loss == pytest.approx(1 / 4 + 2 / 3 + (1 + 4) / 2)
    assert flow_loss(kink, kink, 1.0)[0] == 0


def test_dropout_rates() -> None:
    count = 4000
    network = MMDiT(TINY)
    batch = Batch(
        torch.zeros(count, 2, 70),
        torch.full((count, 1, 70), 3.0),
        torch.ones(count, 2, 4, 80),
        torch.full((count,), 4),
        torch.zeros(count, 63),
    )
    config = TrainConfig(audio_dropout=0.5, emotion_dropout=0.1, motion_dropout=0.2, prev_noise=0)
    with torch.no_grad():
        dropped = drop_conditions(batch, config, network, torch.Generator().manual_seed(0))
    silent = (dropped.audio == network.null_audio).all(dim=-1).all(dim=-1).all(dim=-1)
    kept = (dropped.audio == 1).all(dim=-1).all(dim=-1).all(dim=-1)
    assert (silent ^ kept).all()
    plain, free = dropped.emotion == NO_EMOTION, (dropped.prev == 0).all(dim=-1)[:, 0]
    for rate, seen in ((0.5, silent), (0.1, plain), (0.2, free)):
        assert seen.float().mean().item() == pytest.approx(rate, abs=0.03)
    both = (silent & plain).float().mean().item()
    assert both == pytest.approx(0.05, abs=0.02)  # independent


def test_schedule() -> None:
    config = TrainConfig(steps=1000, warmup_steps=100, learning_rate=1.0)
    assert learning_rate(0, config) == pytest.approx(0.01)
    assert learning_rate(100, config) == pytest.approx(1.0)
    assert learning_rate(1000, config) == pytest.approx(0.02)


def test_windows_are_the_files_own(tmp_path: Path) -> None:
    root = write_features(tmp_path / "features")
    stats = feature_stats(root)
    clips = Clips(root, "train", 80, stats)
    batch = clips.draw(64, torch.Generator().manual_seed(3), augment=False)
    assert batch.motion.shape == (64, 80, 70)
    jaw, loud = batch.motion[:, 1:, 58], batch.audio[:, 1:].mean(dim=(-1, -2))
    together = torch.corrcoef(torch.stack((jaw.flatten(), loud.flatten())))[0, 1]
    assert together > 0.95  # sound and motion of the same frames
    assert set(batch.emotion.tolist()) == {1, 3, NO_EMOTION}  # 0.4 is no label
    at_start = (batch.prev == stats.normalise(stats.neutral)).all(dim=-1)[:, 0]
    assert 0 < at_start.float().mean() < 0.5
    with pytest.raises(InputError, match="no test clip of 500"):
        Clips(root, "test", 500, stats)
    with pytest.raises(InputError, match=r"no index\.jsonl"):
        Clips(tmp_path, "train", 80, stats)


def test_constant_channels_have_no_deviation(tmp_path: Path) -> None:
    stats = feature_stats(write_features(tmp_path / "features"))
    assert stats.std[63] == 0
    assert stats.std[58] > 0.01
    assert stats.neutral[63] == pytest.approx(1.3)
    assert stats.identity[0] == pytest.approx(0.1)


def envelope(mel: Tensor) -> Tensor:
    return mel.mean(dim=-1).flatten()


def test_augmented_sound_keeps_its_timing() -> None:
    generator = torch.Generator().manual_seed(1)
    mel = torch.full((100, 4, 80), -9.0) + torch.randn(100, 4, 80, generator=generator)
    mel[40:60] += 9
    changed = [augment_log_mel(mel, generator) for _ in range(20)]
    assert not torch.equal(changed[0], changed[1])
    for other in changed:
        assert other.shape == mel.shape
        assert other.isfinite().all()
        assert torch.corrcoef(torch.stack((envelope(mel), envelope(other))))[0, 1] > 0.5


def test_features_do_not_hear_the_future_nor_the_volume() -> None:
    mel = torch.randn(300, 4, 80)
    cut = window_features(mel[:200], 120, 80)
    torch.testing.assert_close(window_features(mel, 120, 80), cut)
    torch.testing.assert_close(window_features(mel - 3, 120, 80), cut, atol=1e-4, rtol=0)
    tail = window_features(mel, 290, 80)
    features_of_silence = window_features(torch.full((80, 4, 80), -99.0), 0, 80)[0]
    assert tail.shape == (80, 4, 80)
    assert (tail[10:] == features_of_silence).all()


@pytest.mark.slow
def test_a_short_run_learns_and_leaves_a_model_directory(tmp_path: Path) -> None:
    root = write_features(tmp_path / "features", clips=24)
    rows: list[dict[str, float]] = []
    config = TrainConfig(
        steps=300, batch_size=8, learning_rate=3e-3, warmup_steps=20, validate_every=100,
        ema_decay=0.97,
    )  # fmt: skip
    train(root, tmp_path / "run", TINY, config, on_log=rows.append)
    assert [row["step"] for row in rows] == [100, 200, 300]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["r_jaw"] > 0.5
    model = MotionGenerator.load(tmp_path / "run", torch.device("cpu"))
    assert model.network.config == TINY
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3
