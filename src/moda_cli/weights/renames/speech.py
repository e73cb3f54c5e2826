"""HuBERT's and wav2vec 2.0's tensors under our names."""

import re
from collections.abc import Mapping

from torch import Tensor

from moda_cli.errors import WeightsError
from moda_cli.weights.state import rename

SPEECH_ENCODER: dict[str, str | None] = {
    "feature_extractor.conv_layers.{}.conv.": "convolutions.{}.",
    "feature_extractor.conv_layers.0.layer_norm.": "first_norm.",
    "feature_projection.layer_norm.": "conv_norm.",
    "feature_projection.projection.": "projection.",
    "encoder.pos_conv_embed.conv.bias": "position.bias",
    "encoder.pos_conv_embed.conv.parametrizations.weight.original0": "position.gain",
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1": "position.direction",
    "encoder.pos_conv_embed.conv.weight_g": "position.gain",  # as older files name them
    "encoder.pos_conv_embed.conv.weight_v": "position.direction",
    "encoder.layer_norm.": "norm.",
    "encoder.layers.{}.attention.q_proj.": "layers.{}.q.",
    "encoder.layers.{}.attention.k_proj.": "layers.{}.k.",
    "encoder.layers.{}.attention.v_proj.": "layers.{}.v.",
    "encoder.layers.{}.attention.out_proj.": "layers.{}.out.",
    "encoder.layers.{}.layer_norm.": "layers.{}.attention_norm.",
    "encoder.layers.{}.feed_forward.intermediate_dense.": "layers.{}.fc1.",
    "encoder.layers.{}.feed_forward.output_dense.": "layers.{}.fc2.",
    "encoder.layers.{}.final_layer_norm.": "layers.{}.mlp_norm.",
    "masked_spec_embed": None,  # stands for masked input in pre-training
    "quantizer.": None,  # wav2vec 2.0's pre-training heads
    "project_hid.": None,
    "project_q.": None,
    "lm_head.": None,  # of a fine-tuned recogniser
}
PREFIX = re.compile(r"^(hubert|wav2vec2)\.")  # of a checkpoint that also holds heads


def speech_encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of our SpeechEncoder, the positional convolution's weight norm folded into a weight.

    Raises WeightsError for an unknown name or a gain of another shape.
    """
    renamed = rename({PREFIX.sub("", name): state[name] for name in state}, SPEECH_ENCODER)
    if {"position.gain", "position.direction"} <= renamed.keys():
        gain = renamed.pop("position.gain").float()
        direction = renamed.pop("position.direction").float()
        if gain.shape != (1, 1, direction.shape[-1]):  # one number per tap, not per channel
            raise WeightsError(f"the positional convolution's gain is {tuple(gain.shape)}")
        renamed["position.weight"] = direction * (gain / direction.norm(dim=(0, 1), keepdim=True))
    return renamed
