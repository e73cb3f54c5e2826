"""Training windows: the files' own frames, their random parts, and nothing read beyond them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.config import NO_EMOTION, ModelConfig
from moda_cli.errors import InputError
from moda_cli.motion import SCALE, Stats
from moda_cli.speech.logmel import window_features
from moda_cli.train.clip_files import FeatureFile, read_index
from moda_cli.train.dataset import TrainingWindows, augment_log_mel, stack
from moda_cli.train.loader import sample_numbers
from moda_cli.train.loop import train
from moda_cli.train.parallel import Ranks
from toy_features import TINY, short, windows_of, write_features

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"))


def test_dropout_rates(features: Path) -> None:
    count = 1500
    config = short(audio_dropout=0.5, emotion_dropout=0.1, motion_dropout=0.2, prev_noise=0.0)
    windows = windows_of(features, config)
    labelled = [clip for clip in windows.clips if clip.path.stem in ("c1", "c3")]
    windows = TrainingWindows(labelled, windows.stats, config)
    batch = stack([windows[number] for number in range(count)])
    plain, free = batch.emotion == NO_EMOTION, (batch.prev == 0).all(dim=-1)[:, 0]
    for rate, seen in ((0.5, batch.silent), (0.1, plain), (0.2, free)):
        assert seen.double().mean().item() == pytest.approx(rate, abs=0.035)
    both = (batch.silent & plain).double().mean().item()
    assert both == pytest.approx(0.05, abs=0.02)  # independent
    assert batch.sigma.mean() == pytest.approx(0.5, abs=0.03)


def test_windows_are_the_files_own(features: Path) -> None:
    windows = windows_of(features, short(emotion_dropout=0.0, motion_dropout=0.0, prev_noise=0.0))
    batch = stack([windows[number] for number in range(64)])
    assert batch.motion.shape == (64, 80, 70)
    jaw, low = batch.motion[:, 1:, 58], batch.audio[:, 1:, :, :27].mean(dim=(-1, -2))
    together = torch.corrcoef(torch.stack((jaw.flatten(), low.flatten())))[0, 1]
    assert together > 0.95  # sound and motion of the same frames
    assert set(batch.emotion.tolist()) == {1, 3, NO_EMOTION}  # 0.4 is no label
    at_start = (batch.prev == windows.stats.normalise(windows.stats.neutral)).all(dim=-1)[:, 0]
    assert 0 < at_start.float().mean() < 0.5
    assert windows.in_one_pass == 5  # of 5 clips of 120 frames
    again, other = windows[7], windows[8]
    assert all(map(torch.equal, windows[7].parts(), again.parts()))
    assert not torch.equal(again.noise, other.noise)


def test_windows_of_a_batch_have_one_length_and_half_of_the_batches_shorter_ones(
    features: Path,
) -> None:
    windows = windows_of(features, short(batch_size=2, shortest_window=20, motion_dropout=0.0))
    lengths = []
    for batch in range(120):
        samples = [windows[2 * batch + k] for k in range(2)]
        frames = {len(part) for s in samples for part in (s.motion, s.audio, s.noise)}
        assert len(frames) == 1
        lengths += frames
        assert stack(samples).prev.shape[1] in (1, *frames)
    assert 0.35 < np.mean(np.array(lengths) == 80) < 0.65
    assert min(lengths) < 30
    assert min(lengths) >= 20
    jaw, low = samples[0].motion[1:, 58], samples[0].audio[1:, :, :27].mean(dim=(-1, -2))
    assert torch.corrcoef(torch.stack((jaw, low)))[0, 1] > 0.95  # still of the same frames


def test_a_short_window_is_told_its_first_frames_and_then_the_last_of_them(features: Path) -> None:
    config = short(batch_size=1, shortest_window=20, motion_dropout=0.0, prev_noise=0.0)
    windows = windows_of(features, config)
    told = []
    for number in range(200):
        sample = windows[number]
        if len(sample.prev) == 1:
            assert len(sample.motion) == 80
            continue
        same = (sample.prev == sample.motion).all(dim=-1)
        known = int(same.cumprod(0).sum())
        told.append(known)
        if known:
            assert (sample.prev[known:] == sample.motion[known - 1]).all()
        else:
            assert (sample.prev == sample.prev[0]).all()
    assert max(told) == 16
    assert 0.5 < np.mean(np.array(told) == 16) < 0.9
    assert min(told) == 0
    free = windows_of(features, replace(config, motion_dropout=1.0))
    assert not any(free[number].prev.any() for number in range(20))


def test_unusable_features(features: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no test clip of 500"):
        read_index(features, "test", 500)
    with pytest.raises(InputError, match=r"no index\.jsonl"):
        read_index(tmp_path, "train", 80)
    (tmp_path / "index.jsonl").write_text('{"clip": "a"}\n')
    with pytest.raises(InputError, match="damaged"):
        read_index(tmp_path, "train", 80)
    wanted = short(model=ModelConfig())
    with pytest.raises(InputError, match="4 x 80, and the model hears hubert of 12 x 768"):
        train(features, tmp_path / "run", wanted, workers=0)
    index = features / "index.jsonl"
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    rows = [{**row, "options": {"audio": "wav2vec2"}} for row in rows]
    index.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="wav2vec2 features of 4 x 80, and the model hears logmel"):
        train(features, tmp_path / "run", short(), workers=0)
    assert not (tmp_path / "run").exists()


def test_a_window_is_all_that_is_read(tmp_path: Path) -> None:
    """A feature file of 3.7 GB, most of it a hole: reading it whole would show in the memory."""
    frames = 200_000
    shapes = {"motion": ([frames, 70], "F32", 4), "audio": ([frames, 12, 768], "F16", 2)}
    shapes |= {"kp": ([63], "F32", 4), "emotion": ([8], "F32", 4)}
    header, end = {}, 0
    for name, (shape, dtype, size) in shapes.items():
        start, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path = tmp_path / "c.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)

    def peak() -> int:
        status = dict(
            line.split(":") for line in Path("/proc/self/status").read_text().splitlines()
        )
        return int(status["VmHWM"].split()[0]) // 1024  # MiB

    stats = Stats(torch.zeros(70), torch.ones(70), torch.zeros(70), torch.zeros(63))
    windows = TrainingWindows([FeatureFile(path, frames)], stats, short(model=ModelConfig()))
    windows[0]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = peak()
    for number in range(20):
        windows[number]
    assert peak() - before < 100


def test_log_mel_windows_hear_a_minute_back(tmp_path: Path) -> None:
    root = write_features(tmp_path, clips=2, frames=1700)
    windows = windows_of(root, short())
    mel = load_file(root / "c0.safetensors")["audio"].float()
    motion = load_file(root / "c0.safetensors")["motion"]
    for number in range(20):
        window = windows[number]
        z = windows.stats.normalise(motion).unfold(0, 80, 1).mT  # (places, 80, 70)
        start = int((z - window.motion).abs().sum(dim=(1, 2)).argmin())
        torch.testing.assert_close(window.audio, window_features(mel, start, 80))


def test_faces_of_all_sizes_train_at_one(tmp_path: Path) -> None:
    root = write_features(tmp_path, clips=4)
    for k, path in enumerate(sorted(root.glob("*.safetensors"))):
        tensors = load_file(path)
        size = 1 + 0.2 * k
        tensors["motion"][:, 63] = size * (1 + 0.1 * torch.linspace(0, 1, 120))
        tensors["motion"][:, 64:67] = size * torch.tensor([0.1, 0.2, 0.3])
        tensors["kp"] = torch.full((63,), float(k))
        save_file(tensors, path)
    extracted = short(model=replace(TINY, source="extracted"))
    windows = windows_of(root, extracted)
    stats = windows.stats
    assert stats.mean[SCALE] == pytest.approx(1.2 * 1.05)  # as the motion is
    assert stats.std[64:67].tolist() == [0, 0, 0]
    assert stats.mean[64] == pytest.approx(0.1 * 1.26, rel=1e-3)
    assert stats.mean[66] == 0  # translation z
    batch = stack([windows[number] for number in range(30)])
    motion = stats.denormalise(batch.motion)
    assert motion[..., 63].min() >= 1.26 - 1e-4
    assert motion[..., 63].max() <= 1.26 * 1.1 + 1e-4
    assert set(batch.identity[:, 0].tolist()) == {0, 1, 2}
    own = windows_of(root, short())
    assert {float(own[number].identity[0]) for number in range(9)} == {0}  # a constant source


def test_constant_channels_have_no_deviation(features: Path) -> None:
    stats = windows_of(features, short()).stats
    assert stats.std[63] == 0
    assert stats.std[58] > 0.01
    assert stats.neutral[63] == pytest.approx(1.3)
    assert stats.identity[0] == pytest.approx(0.1)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("step", [0, 5])
def test_processes_share_every_batch_without_overlap(size: int, accumulate: int, step: int) -> None:
    config = short(batch_size=24, accumulate=accumulate)
    shares = [list(sample_numbers(config, Ranks(rank, size, CPU), step, 6)) for rank in range(size)]
    for k in range(6 - step):
        batch = [
            number
            for share in shares
            for part in share[k * accumulate : (k + 1) * accumulate]
            for number in part
        ]
        assert batch == list(range((step + k) * 24, (step + k + 1) * 24))


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
