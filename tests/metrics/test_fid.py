"""FID's features against the reference's numbers, and how pictures reach them."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from by_rule import goldens, key_table, state_by_rule
from metric_networks import GAINS, assert_close, outputs_of
from moda_cli.errors import WeightsError
from moda_cli.metrics.fid import fid_features, prepare_frames
from moda_cli.metrics.networks import inception
from moda_cli.metrics.networks.inception import Inception, load_inception


@cache
def inception_by_rule(gain: str) -> Inception:
    state = state_by_rule(key_table("inception_fid.json"), gain=GAINS[gain])
    return load_inception(state, "by rule")


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("path", goldens("eval_fid_inception.safetensors"))
def test_inception_gives_the_reference_features(path: Path, gain: str) -> None:
    golden = load_file(path)
    network = inception_by_rule(gain)
    pictures = sorted(name for name in golden if name.startswith("img_"))
    for name in pictures:
        letter = name[-1]
        pool3 = golden[f"pool3_{letter}{gain}"]
        assert_close(fid_features(network, golden[name].numpy(), batch=1), pool3)
    assert len(pictures) >= 2


@pytest.mark.parametrize("path", goldens("eval_fid_inception.safetensors"))
def test_inner_blocks_of_inception_give_the_reference_means(path: Path) -> None:
    golden = load_file(path)
    network = inception_by_rule("_g")
    picture = golden["img_d"].numpy()
    for module, name in ((network.pool2, "b1mean_d_g"), (network.Mixed_6e, "b2mean_d_g")):
        means = outputs_of(module, lambda: fid_features(network, picture)).mean(dim=(2, 3))
        assert_close(means, golden[name])


@pytest.mark.parametrize("path", goldens("eval_fid_inception.safetensors"))
def test_pictures_are_resized_as_pytorch_fid_does_and_not_otherwise(path: Path) -> None:
    golden = load_file(path)
    red = prepare_frames(golden["img_b"])[0, 0]
    wanted = golden["resized_b_channel0"]
    every = 1 if len(wanted) == inception.SIDE else 8
    torch.testing.assert_close((red[::every] + 1) / 2, wanted, atol=1e-6, rtol=0)

    features = fid_features(inception_by_rule("_g"), golden["img_b"].numpy())
    for other, gap in (("torch_fidelity", 2e-3), ("torchmetrics", 5e-3)):
        theirs = golden[f"other_{other}_b_g"]
        assert (features - theirs).abs().max() > gap * theirs.abs().max()


def test_inception_reads_batches_and_no_frames_at_all() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    network = inception_by_rule("_g")
    together = fid_features(network, frames, batch=2)
    apart = torch.cat([fid_features(network, frame[None]) for frame in frames])
    assert_close(together, apart, 1e-5)
    assert fid_features(network, []).shape == (0, 2048)


def test_published_inception_files_may_lack_the_batch_counts() -> None:
    table = key_table("inception_fid.json")
    kept = {n: torch.empty(s) for n, s in table.items() if not n.endswith("num_batches_tracked")}
    assert len(kept) < len(table)
    load_inception(kept, "published")


def test_every_released_tensor_has_a_place() -> None:
    state = {name: torch.empty(shape) for name, shape in key_table("inception_fid.json").items()}
    load_inception(state, "by rule")
    surplus = {**state, "Mixed_5b.branch9.conv.weight": torch.empty(1)}
    with pytest.raises(WeightsError, match=r"unexpected Mixed_5b\.branch9"):
        load_inception(surplus, "by rule")
    state.pop(next(name for name in state if name.endswith("running_var")))
    with pytest.raises(WeightsError, match=r"missing .*running_var"):
        load_inception(state, "by rule")
