"""The released LivePortrait tensors under our names, with their normalisations folded.

Both published layouts are read: the .pth files, and Kijai's safetensors of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from moda_cli.errors import WeightsError
from moda_cli.weights.state import rename

Table = Mapping[str, str | None]

APPEARANCE: Table = {
    "first.conv.": "first.",
    "down_blocks.{}.conv.": "down.{}.",
    "second.": "lift.",
    "resblocks_3d.3dr{}.": "blocks.{}.",
}

MOTION: Table = {
    "detector.downsample_layers.": "downsample.",
    "detector.stages.": "stages.",
    "detector.norm.": "norm.",
    "detector.fc_kp.": "heads.kp_canonical.",
    "detector.fc_exp.": "heads.expression.",
    "detector.fc_scale.": "heads.scale.",
    "detector.fc_t.": "heads.translation.",
    "detector.fc_pitch.": "heads.pitch.",
    "detector.fc_yaw.": "heads.yaw.",
    "detector.fc_roll.": "heads.roll.",
}

_HOURGLASS = "dense_motion_network.hourglass."
WARPING: Table = {
    "dense_motion_network.": "dense_motion.",
    f"{_HOURGLASS}encoder.down_blocks.{{}}.conv.": "dense_motion.hourglass.down.{}.",
    f"{_HOURGLASS}decoder.up_blocks.{{}}.conv.": "dense_motion.hourglass.up.{}.",
    f"{_HOURGLASS}decoder.conv.": "dense_motion.hourglass.out.",
    "third.conv.": "third.",
    "fourth.": "fourth.",
}

_SPADE = {"mlp_shared.0.": "shared.", "mlp_gamma.": "gamma.", "mlp_beta.": "beta."}
_BLOCKS = {"G_middle_{}.": "middle.{}.", "up_{}.": "up.{}."}
GENERATOR: Table = {
    "fc.": "fc.",
    **_BLOCKS,
    **{
        f"{block}{norm}.{layer}": f"{ours}{norm}.{name}"
        for block, ours in _BLOCKS.items()
        for norm in ("norm_0", "norm_1", "norm_s")
        for layer, name in _SPADE.items()
    },
    "conv_img.0.": "to_rgb.",
}

RETARGETING: Table = {
    "retarget_shoulder.": "stitching.",
    "retarget_shoulder.module.": "stitching.",  # the .pth, nested
    "retarget_shoulder_module.": "stitching.",  # the safetensors
    "": None,  # R_lip and R_eye, which a clip never asks for, and what no code reads
}

BATCH_NORM_EPS = 1e-5
# The convolution before a batch norm, by the norm's name; `norm1` has none before it and stays.
_NORMALISED = {"norm": ("conv", "compress"), "norm2": ("conv1",)}


def liveportrait_state(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """State of our network from a released file's, by the table of that file.

    Raises WeightsError for tensors that belong together and do not come together.
    """
    return rename(fold_batch_norms(fold_spectral_norms(state)), table)


def fold_spectral_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with weight_orig, weight_u, weight_v replaced by weight = W / (u^T W v)."""
    folded = dict(state)
    for name in state:
        if not name.endswith(".weight_orig"):
            continue
        weight = name.removesuffix("_orig")
        w, u, v = (_pop(folded, f"{weight}_{part}").double() for part in ("orig", "u", "v"))
        if w.shape[:1] != u.shape or w[0].numel() != v.numel():
            raise WeightsError(f"{weight}_u and {weight}_v do not fit {name}")
        folded[weight] = (w / (u @ w.flatten(1) @ v)).float()
    return folded


def fold_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with every batch norm that follows a convolution folded into it."""
    folded = dict(state)
    for name in state:
        if not name.endswith(".running_mean"):
            continue
        norm = name.removesuffix(".running_mean")
        block, _, leaf = norm.rpartition(".")
        names = (f"{block}.{conv}" for conv in _NORMALISED.get(leaf, ()))
        conv = next((conv for conv in names if f"{conv}.weight" in state), None)
        if conv is None:
            continue
        mean, variance, gain, shift = (
            _pop(folded, f"{norm}.{part}").double()
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        _pop(folded, f"{norm}.num_batches_tracked")
        weight, bias = (_pop(folded, f"{conv}.{part}").double() for part in ("weight", "bias"))
        if not bias.shape == mean.shape == variance.shape == gain.shape == shift.shape:
            raise WeightsError(f"{norm} does not fit {conv}")
        factor = gain / torch.sqrt(variance + BATCH_NORM_EPS)
        folded[f"{conv}.weight"] = (weight * factor.view(-1, *[1] * (weight.ndim - 1))).float()
        folded[f"{conv}.bias"] = ((bias - mean) * factor + shift).float()
    return folded


def _pop(state: dict[str, Tensor], name: str) -> Tensor:
    try:
        return state.pop(name)
    except KeyError:
        raise WeightsError(f"missing {name}", hint="the file is damaged") from None
