"""The released MoDA motion generator's tensors under our names."""

from collections.abc import Mapping

import torch
from torch import Tensor

from moda_cli.weights.state import rename

MOTION_GENERATOR: dict[str, str | None] = {
    "talking_head_dit.": "",
    "talking_head_dit.motion_embedder.mlp.": "motion_embedder.",
    "talking_head_dit.identity_embedder.mlp.": "identity_embedder.",
    "talking_head_dit.time_embedder.mlp.": "time_embedder.",
    "talking_head_dit.emo_embedder.embedding_table.": "emotion_embedder.",
    "talking_head_dit.blocks4.{}.attn1.qkv_xs.": "four_stream.{}.attention.qkv.motion.",
    "talking_head_dit.blocks4.{}.attn1.qkv_au1.": "four_stream.{}.attention.qkv.audio.",
    "talking_head_dit.blocks4.{}.attn1.qkv_au2.": "four_stream.{}.attention.qkv.emotion.",
    "talking_head_dit.blocks4.{}.attn1.qkv_au3.": "four_stream.{}.attention.qkv.identity.",
    "talking_head_dit.blocks4.{}.attn1.xs_q_norm.": "four_stream.{}.attention.norm.motion.q.",
    "talking_head_dit.blocks4.{}.attn1.xs_k_norm.": "four_stream.{}.attention.norm.motion.k.",
    "talking_head_dit.blocks4.{}.attn1.au_q_norm1.": "four_stream.{}.attention.norm.audio.q.",
    "talking_head_dit.blocks4.{}.attn1.au_k_norm1.": "four_stream.{}.attention.norm.audio.k.",
    "talking_head_dit.blocks4.{}.attn1.au_q_norm2.": "four_stream.{}.attention.norm.emotion.q.",
    "talking_head_dit.blocks4.{}.attn1.au_k_norm2.": "four_stream.{}.attention.norm.emotion.k.",
    "talking_head_dit.blocks4.{}.attn1.au_q_norm3.": "four_stream.{}.attention.norm.identity.q.",
    "talking_head_dit.blocks4.{}.attn1.au_k_norm3.": "four_stream.{}.attention.norm.identity.k.",
    "talking_head_dit.blocks4.{}.attn1.xs_proj.": "four_stream.{}.attention.out.motion.",
    "talking_head_dit.blocks4.{}.attn1.au_proj1.": "four_stream.{}.attention.out.audio.",
    "talking_head_dit.blocks4.{}.attn1.au_proj2.": "four_stream.{}.attention.out.emotion.",
    "talking_head_dit.blocks4.{}.attn1.au_proj3.": "four_stream.{}.attention.out.identity.",
    "talking_head_dit.blocks4.{}.xs_mlp.": "four_stream.{}.mlp.motion.",
    "talking_head_dit.blocks4.{}.audio_mlp1.": "four_stream.{}.mlp.audio.",
    "talking_head_dit.blocks4.{}.audio_mlp2.": "four_stream.{}.mlp.emotion.",
    "talking_head_dit.blocks4.{}.audio_mlp3.": "four_stream.{}.mlp.identity.",
    "talking_head_dit.blocks4.{}.adaLN_modulation_xs.1.": "four_stream.{}.modulation.motion.",
    "talking_head_dit.blocks4.{}.adaLN_modulation_audio1.1.": "four_stream.{}.modulation.audio.",
    "talking_head_dit.blocks4.{}.adaLN_modulation_audio2.1.": "four_stream.{}.modulation.emotion.",
    "talking_head_dit.blocks4.{}.adaLN_modulation_audio3.1.": "four_stream.{}.modulation.identity.",
    "talking_head_dit.blocks2.{}.attn1.qkv_xs.": "two_stream.{}.attention.qkv.motion.",
    "talking_head_dit.blocks2.{}.attn1.qkv_au.": "two_stream.{}.attention.qkv.condition.",
    "talking_head_dit.blocks2.{}.attn1.xs_q_norm.": "two_stream.{}.attention.norm.motion.q.",
    "talking_head_dit.blocks2.{}.attn1.xs_k_norm.": "two_stream.{}.attention.norm.motion.k.",
    "talking_head_dit.blocks2.{}.attn1.au_q_norm.": "two_stream.{}.attention.norm.condition.q.",
    "talking_head_dit.blocks2.{}.attn1.au_k_norm.": "two_stream.{}.attention.norm.condition.k.",
    "talking_head_dit.blocks2.{}.attn1.xs_proj.": "two_stream.{}.attention.out.motion.",
    "talking_head_dit.blocks2.{}.attn1.au_proj.": "two_stream.{}.attention.out.condition.",
    "talking_head_dit.blocks2.{}.xs_mlp.": "two_stream.{}.mlp.motion.",
    "talking_head_dit.blocks2.{}.audio_mlp.": "two_stream.{}.mlp.condition.",
    "talking_head_dit.blocks2.{}.adaLN_modulation_xs.1.": "two_stream.{}.modulation.motion.",
    "talking_head_dit.blocks2.{}.adaLN_modulation_audio.1.": "two_stream.{}.modulation.condition.",
    "talking_head_dit.blocks.{}.attn1.xs_q_norm.": "single_stream.{}.norm.q.",
    "talking_head_dit.blocks.{}.attn1.xs_k_norm.": "single_stream.{}.norm.k.",
    "talking_head_dit.blocks.{}.qkv_xs.": "single_stream.{}.qkv_mlp.",
    "talking_head_dit.blocks.{}.linear2.": "single_stream.{}.out.",
    "talking_head_dit.blocks.{}.adaLN_modulation_xs.1.": "single_stream.{}.modulation.",
    "talking_head_dit.final_layer.linear.": "head.",
    "talking_head_dit.final_layer.adaLN_modulation.1.": "final_modulation.",
    "null_audio_feat": "null_audio",
    "null_motion_feat": None,  # inference never reads it
    "scheduler.sigmas": None,  # a table the sampler computes
}

NULL_AUDIO_SEED = 2507_03256  # the checkpoint may lack the null vector: drawn from this seed then


def motion_generator_state(state: Mapping[str, Tensor], audio_dim: int) -> dict[str, Tensor]:
    """State of our MMDiT from the release's; a missing null vector is drawn from a fixed seed."""
    renamed = rename(state, MOTION_GENERATOR)
    if "null_audio" in renamed:
        renamed["null_audio"] = renamed["null_audio"].flatten()
    else:
        generator = torch.Generator().manual_seed(NULL_AUDIO_SEED)
        renamed["null_audio"] = torch.randn(audio_dim, generator=generator)
    return renamed
