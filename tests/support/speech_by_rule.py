"""Speech encoders with a released checkpoint made by rule."""

import torch

from by_rule import key_table, state_by_rule
from moda_cli.speech.encoder import SpeechEncoder, SpeechEncoderConfig
from moda_cli.weights.renames.speech import speech_encoder_state
from moda_cli.weights.state import load_strict

SMALL = SpeechEncoderConfig(conv_dim=48, hidden_dim=32, num_heads=4, mlp_dim=96)
CONFIGS = {"hubert_small.json": SMALL, "hubert_base.json": SpeechEncoderConfig()}


def speech_encoder_by_rule(table: str) -> SpeechEncoder:
    """Our encoder with a released checkpoint made by rule."""
    with torch.device("meta"):
        encoder = SpeechEncoder(CONFIGS[table])
    load_strict(encoder, speech_encoder_state(state_by_rule(key_table(table))), table)
    return encoder.eval()
