"""FVD's features against the reference's numbers, and how clips are cut for them."""

from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from by_rule import GOLDEN, goldens, key_table, state_by_rule
from metric_networks import GAINS, assert_close, outputs_of
from moda_cli.errors import InputError, UsageError, WeightsError
from moda_cli.metrics.fvd import (
    FvdNetwork,
    FvdProtocol,
    fvd_features,
    load_fvd_network,
    prepare_windows,
)
from moda_cli.metrics.networks import i3d
from moda_cli.metrics.networks.i3d import I3D, ScriptedI3D, load_i3d

SCRIPTS = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@cache
def i3d_by_rule(gain: str) -> I3D:
    return load_i3d(state_by_rule(key_table("i3d.json"), gain=GAINS[gain]), "by rule")


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("path", goldens("eval_i3d.safetensors"))
def test_i3d_gives_the_reference_logits(path: Path, gain: str) -> None:
    golden = load_file(path)
    network = i3d_by_rule(gain)
    clips = sorted(name for name in golden if name.startswith("clip_"))
    assert clips
    for name in clips:
        clip, letter = golden[name].numpy(), name[-1]
        assert_close(fvd_features(network, clip), golden[f"logits_{letter}{gain}"])
        short = f"logits_{letter}_first10{gain}"
        if short in golden:
            assert_close(fvd_features(network, clip[:10], FvdProtocol(cut="whole")), golden[short])


@pytest.mark.parametrize("path", goldens("eval_i3d.safetensors"))
def test_centre_cropped_clips_give_the_reference_logits(path: Path) -> None:
    golden = load_file(path)
    wanted = golden["input_b_centercrop_t0_c0"]
    every = 1 if len(wanted) == i3d.SIDE else 8
    red = prepare_windows(golden["clip_b"][None, :1], "centre-crop")[0, 0, 0]
    torch.testing.assert_close(red[::every], wanted, atol=1e-5, rtol=0)

    network, clip = i3d_by_rule("_g"), golden["clip_b"].numpy()
    logits = fvd_features(network, clip, FvdProtocol(resize="centre-crop"))
    assert_close(logits, golden["logits_b_centercrop_g"])
    stretched = golden["logits_b_g"]
    assert (logits - stretched).abs().max() > 0.01 * stretched.abs().max()


@pytest.mark.parametrize("path", goldens("eval_i3d.safetensors"))
def test_inner_features_of_i3d_give_the_reference_means(path: Path) -> None:
    golden = load_file(path)
    network, clip = i3d_by_rule("_g"), golden["clip_b"].numpy()
    inner = outputs_of(network.Mixed_5c, lambda: fvd_features(network, clip))
    assert_close(inner.mean(dim=(2, 3, 4)), golden["avgpool_b_g"])


class ScriptedWrapper(nn.Module):
    """A TorchScript with the published one's call; its flags change what it gives."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        if rescale:
            x = x / 255 * 2 - 1
        if resize:
            x = x[..., ::2, ::2]
        logits = x.flatten(2).mean(dim=2).repeat(1, 134)[:, :400]
        return logits if return_features else logits.softmax(dim=1)


@SCRIPTS
def test_the_torchscript_is_called_on_prepared_pictures_for_its_logits(tmp_path: Path) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.save(torch.jit.script(ScriptedWrapper()), str(path))
    clip = np.full((33, 30, 40, 3), (0, 51, 255), dtype=np.uint8)
    logits = fvd_features(ScriptedI3D(path), clip, batch=1)
    assert logits.shape == (2, 400)
    torch.testing.assert_close(logits[1, :3], torch.tensor([-1.0, -0.6, 1.0]), atol=1e-5, rtol=0)


@SCRIPTS
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_both_files_of_the_same_weights_give_the_same_logits(tmp_path: Path) -> None:
    class Published(nn.Module):
        def __init__(self, network: torch.jit.ScriptModule) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
            if rescale or resize or not return_features:
                raise ValueError
            return self.network(x)

    files = {name: tmp_path / name for name in get_args(FvdNetwork)}
    network = i3d_by_rule("_g")
    clip = load_file(GOLDEN / "eval_i3d.safetensors")["clip_b"].numpy()
    save_file(network.state_dict(), files["i3d"])
    with torch.no_grad():
        traced = torch.jit.trace(network, prepare_windows(torch.from_numpy(clip[None]), "stretch"))
    torch.jit.save(torch.jit.script(Published(traced)), str(files["i3d_torchscript"]))

    first, second = (
        fvd_features(load_fvd_network(name, path), clip) for name, path in files.items()
    )
    assert_close(first, second, 1e-6)


@SCRIPTS
def test_a_file_that_is_no_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i3d_torchscript.pt"
    for content in (b"", b"not found", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"i3d_torchscript\.pt"):
            ScriptedI3D(path)


class MeanColour(nn.Module):
    """Stands for a network where only the windows matter."""

    device = torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3, 4))


@pytest.mark.parametrize("num_frames", [9, 15, 16, 31, 32, 70])
@pytest.mark.parametrize("batch", [1, 3])
def test_windows_follow_each_other_without_overlap(num_frames: int, batch: int) -> None:
    clip = np.arange(num_frames, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    for cut, length, count in (
        ("all-16", 16, num_frames // 16),
        ("first-16", 16, min(1, num_frames // 16)),
        ("whole", num_frames, 1),
    ):
        protocol = FvdProtocol(cut=cut)
        if not count:
            with pytest.raises(InputError, match=f"{num_frames} frames are too few"):
                fvd_features(MeanColour(), clip, protocol)
            continue
        means = fvd_features(MeanColour(), iter(clip), protocol, batch)[:, 0]
        centres = length * torch.arange(count) + (length - 1) / 2
        torch.testing.assert_close((means + 1) * 127.5, centres, atol=1e-3, rtol=0)


def test_unknown_protocols_are_named() -> None:
    with pytest.raises(UsageError, match="cut 'all-32'"):
        FvdProtocol(cut="all-32")
    with pytest.raises(UsageError, match="resize 'lanczos'"):
        FvdProtocol(resize="lanczos")


def test_bicubic_is_pillows() -> None:
    from PIL import Image

    clip = np.random.default_rng(0).integers(0, 256, (1, 1, 300, 451, 3), dtype=np.uint8)
    ours = prepare_windows(torch.from_numpy(clip), "bicubic")[0, 0, 0]
    red = Image.fromarray(clip[0, 0, ..., 0].astype(np.float32))
    theirs = np.asarray(red.resize((224, 224), Image.Resampling.BICUBIC)) / 127.5 - 1
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-4, rtol=0)


def test_every_released_tensor_has_a_place() -> None:
    state = {name: torch.empty(shape) for name, shape in key_table("i3d.json").items()}
    load_i3d(state, "by rule")
    surplus = {**state, "Mixed_5b.branch9.conv.weight": torch.empty(1)}
    with pytest.raises(WeightsError, match=r"unexpected Mixed_5b\.branch9"):
        load_i3d(surplus, "by rule")
    state.pop(next(name for name in state if name.endswith("running_var")))
    with pytest.raises(WeightsError, match=r"missing .*running_var"):
        load_i3d(state, "by rule")
