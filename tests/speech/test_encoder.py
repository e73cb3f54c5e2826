"""HuBERT against the released one, wav2vec 2.0 against transformers, and their names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from by_rule import GOLDEN, goldens, key_table, state_by_rule
from moda_cli.errors import WeightsError
from moda_cli.speech.encoder import SpeechEncoder, SpeechEncoderConfig
from moda_cli.speech.released import normalise_piece, pad_piece
from moda_cli.weights.renames.speech import speech_encoder_state
from moda_cli.weights.state import load_strict
from speech_by_rule import CONFIGS, SMALL, speech_encoder_by_rule


def padded(samples: Tensor) -> Tensor:
    return pad_piece(normalise_piece(samples.numpy().astype(np.float32) / np.float32(32768)))


def test_small_hubert_gives_the_released_numbers_step_by_step() -> None:
    golden = load_file(GOLDEN / "hubert_small.safetensors")
    encoder = speech_encoder_by_rule("hubert_small.json")
    sound = padded(golden["in.wave_i16"])
    torch.testing.assert_close(sound, golden["act.padded"], atol=1e-6, rtol=1e-4)
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: torch.nn.Module, change: Any = lambda out: out) -> None:
        module.register_forward_hook(lambda _m, _i, out: seen.update({name: change(out)[0]}))

    keep("act.conv", encoder.convolutions[-1], lambda out: F.gelu(out).mT)
    encoder.conv_norm.register_forward_pre_hook(
        lambda _m, args: seen.update({"act.interpolated": args[0][0]})
    )
    keep("act.projected", encoder.projection)
    keep("act.pos_conv", encoder.position, lambda out: F.gelu(out[..., :-1]).mT)
    keep("act.encoder_input", encoder.norm)
    with torch.inference_mode():
        seen["out"] = encoder(sound[None])[0]
    assert len(seen) == 6
    for name, value in seen.items():
        torch.testing.assert_close(value, golden[name], atol=3e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_clips(frames: int) -> None:
    golden = load_file(GOLDEN / "hubert_small.safetensors")
    wave = golden["in.wave_i16"][5000 : 5000 + 640 * frames + 100]
    with torch.inference_mode():
        out = speech_encoder_by_rule("hubert_small.json")(padded(wave)[None])[0]
    torch.testing.assert_close(out, golden[f"out.frames{frames}"], atol=3e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("path", goldens("hubert_full.safetensors"))
def test_full_hubert_gives_the_released_numbers(path: Path) -> None:
    golden = load_file(path)
    step = 12 // golden["out"].shape[1]  # the committed file has every third layer
    with torch.inference_mode():
        out = speech_encoder_by_rule("hubert_base.json")(padded(golden["in.wave_i16"])[None])[0]
    torch.testing.assert_close(out[:, step - 1 :: step], golden["out"], atol=3e-4, rtol=1e-4)


def wav2vec2_differs_by(config: SpeechEncoderConfig) -> float:
    """Largest difference between our encoder and transformers' with the same random weights."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    theirs = Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=config.hidden_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            conv_dim=(config.conv_dim,) * 7,
        )
    ).eval()
    state = {f"wav2vec2.{name}": tensor for name, tensor in theirs.state_dict().items()}
    state |= {"quantizer.codevectors": torch.empty(1), "project_q.bias": torch.empty(1)}
    with torch.device("meta"):
        ours = SpeechEncoder(config)
    load_strict(ours, speech_encoder_state(state), "wav2vec2")

    layers: list[Tensor] = []
    for layer in theirs.encoder.layers:
        layer.register_forward_hook(
            lambda _m, _i, out: layers.append(out[0] if isinstance(out, tuple) else out)
        )
    sound = pad_piece(np.random.default_rng(0).normal(size=31 * 640).astype(np.float32))[None]
    with torch.inference_mode():
        vectors = theirs.feature_extractor(sound)
        assert vectors.shape[-1] == 62
        vectors = F.interpolate(vectors, size=31, mode="linear", align_corners=True)
        theirs.encoder(theirs.feature_projection(vectors.mT)[0])
        expected = torch.stack(layers, dim=2)
        out = ours.eval()(sound)
    assert out.shape == expected.shape == (1, 31, config.num_layers, config.hidden_dim)
    return float((out - expected).abs().max())


def test_wav2vec2_is_transformers() -> None:
    assert wav2vec2_differs_by(SMALL) <= 3e-4


@pytest.mark.slow
def test_wav2vec2_base_is_transformers() -> None:
    assert wav2vec2_differs_by(SpeechEncoderConfig()) <= 3e-4


@pytest.mark.parametrize("prefix", ["", "hubert.", "wav2vec2."])
@pytest.mark.parametrize("aliased", [False, True])
@pytest.mark.parametrize("table", CONFIGS)
def test_every_released_tensor_has_a_place(table: str, aliased: bool, prefix: str) -> None:
    old = {"original0": "weight_g", "original1": "weight_v"}
    shapes = key_table(table)
    if aliased:
        shapes = {
            name.replace(f"parametrizations.weight.{leaf}", old[leaf]) if leaf in old else name: s
            for name, s in shapes.items()
            for leaf in [name.rsplit(".", 1)[-1]]
        }
        assert "encoder.pos_conv_embed.conv.weight_g" in shapes
    with torch.device("meta"):
        encoder = SpeechEncoder(CONFIGS[table])
        state = {prefix + name: torch.empty(shape) for name, shape in shapes.items()}
    load_strict(encoder, speech_encoder_state(state), table)


def test_released_size() -> None:
    """All but the mask, and with the two weight norm tensors folded: 128 gains fewer."""
    with torch.device("meta"):
        encoder = SpeechEncoder(SpeechEncoderConfig())
    released = sum(int(np.prod(shape)) for shape in key_table("hubert_base.json").values())
    assert sum(p.numel() for p in encoder.parameters()) == released - 768 - 128


def test_a_wrong_checkpoint_is_refused() -> None:
    state = state_by_rule(key_table("hubert_small.json"))
    with torch.device("meta"):
        encoder = SpeechEncoder(SMALL)

    def load(changed: dict[str, Tensor]) -> None:
        load_strict(encoder, speech_encoder_state(changed), "a file")

    convolution = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    for lost, fault in (("0", "position.direction"), ("1", "position.gain")):
        with pytest.raises(WeightsError, match=rf"missing position\.weight; unexpected {fault}"):
            load({name: x for name, x in state.items() if name != convolution + lost})
    with pytest.raises(WeightsError, match=r"gain is \(32, 1, 1\)"):
        load({**state, f"{convolution}0": torch.ones(32, 1, 1)})
    with pytest.raises(WeightsError, match="unexpected tensor decoder"):
        load({**state, "decoder.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"unexpected layers\.12\."):
        load({**state, "encoder.layers.12.final_layer_norm.bias": torch.ones(32)})


def test_half_precision_checkpoints_run_in_float32() -> None:
    state = state_by_rule(key_table("hubert_small.json"))
    with torch.device("meta"):
        encoder = SpeechEncoder(SMALL)
    halves = {name: tensor.half() for name, tensor in state.items()}
    load_strict(encoder, speech_encoder_state(halves), "a file")
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
