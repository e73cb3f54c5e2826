"""The motion network against the released one, and its properties."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from by_rule import GOLDEN, RELEASED, SMALL, key_table, mmdit_by_rule, released_state
from moda_cli.config import ModelConfig
from moda_cli.errors import WeightsError
from moda_cli.generator.attention import JointAttention
from moda_cli.generator.embed import rope_table, rotate, timestep_sinusoid
from moda_cli.generator.mmdit import MMDiT
from moda_cli.train.presets import MINI
from moda_cli.weights.renames.moda import motion_generator_state
from moda_cli.weights.state import load_strict


def forward(network: MMDiT, golden: dict[str, Tensor]) -> Tensor:
    prev, z = golden["in.motion"].chunk(2, dim=-1)
    given = network.embed(
        golden["in.audio"][:, :, 0].float(), golden["in.emo"], golden["in.audio_cond"].mean(dim=1)
    )
    with torch.inference_mode():
        return network(z, prev, golden["in.times"].float(), given)


def test_small_network_gives_the_released_numbers_block_by_block() -> None:
    golden = load_file(GOLDEN / "dit_small.safetensors")
    network = mmdit_by_rule(SMALL, "motion_generator_small.json")
    seen: dict[str, Tensor] = {}
    names = {"motion": "motion", "audio": "audio", "emotion": "emo", "identity": "identity"}
    for i, block in enumerate(network.four_stream):
        block.register_forward_hook(
            lambda _m, _i, out, i=i: seen.update(
                {f"act.blocks4.{i}.{names[stream]}": x for stream, x in out.items()}
            )
        )
    for i, block in enumerate(network.two_stream):
        block.register_forward_hook(
            lambda _m, _i, out, i=i: seen.update(
                {
                    f"act.blocks2.{i}.motion": out["motion"],
                    f"act.blocks2.{i}.cond": out["condition"],
                }
            )
        )
    for i, block in enumerate(network.single_stream):
        block.register_forward_hook(lambda _m, _i, out, i=i: seen.update({f"act.blocks.{i}": out}))
    seen["out"] = forward(network, golden)
    assert len(seen) == 3 * 4 + 6 * 2 + 12 + 1
    for name, value in seen.items():
        expected = golden[name]
        if name.endswith((".emo", ".identity")):  # one token for all of the stage
            value = value.expand_as(expected)
        if name == "act.blocks.11":  # of the last block its first stream alone
            expected = expected[:, : value.shape[1]]
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_full_network_gives_the_released_numbers() -> None:
    golden = load_file(GOLDEN / "dit_full.safetensors")
    out = forward(mmdit_by_rule(RELEASED, "motion_generator.json"), golden)
    torch.testing.assert_close(out, golden["out"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "table"),
    [(RELEASED, "motion_generator.json"), (SMALL, "motion_generator_small.json")],
)
def test_every_released_tensor_has_a_place(config: ModelConfig, table: str) -> None:
    with torch.device("meta"):
        network = MMDiT(config)
        state = {name: torch.empty(shape) for name, shape in key_table(table).items()}
    state["scheduler.sigmas"] = torch.empty(1000)
    load_strict(network, motion_generator_state(state, config.audio_dim), table)


def test_released_size() -> None:
    with torch.device("meta"):
        network = MMDiT(RELEASED)
    assert sum(p.numel() for p in network.parameters()) == 372_983_878 + 768  # + null vector


def test_a_wrong_checkpoint_is_refused() -> None:
    table = "motion_generator_small.json"
    state = released_state(table, SMALL.audio_dim)
    with torch.device("meta"):
        network = MMDiT(SMALL)
    broken = dict(state)
    del broken["talking_head_dit.final_layer.linear.weight"]
    with pytest.raises(WeightsError, match=r"missing head\.weight"):
        load_strict(network, motion_generator_state(broken, SMALL.audio_dim), table)
    with pytest.raises(WeightsError, match=r"unexpected tensor module\.x"):
        motion_generator_state({**state, "module.x": torch.zeros(1)}, SMALL.audio_dim)
    with torch.device("meta"):
        wider = MMDiT(ModelConfig(hidden_dim=64, num_heads=4, audio_dim=48))
    with pytest.raises(WeightsError, match=r"audio_embedder\.proj1\.weight is"):
        load_strict(wider, motion_generator_state(state, 48), table)


def test_null_vector_is_fixed_where_the_checkpoint_lacks_it() -> None:
    state = released_state("motion_generator_small.json", SMALL.audio_dim)
    del state["null_audio_feat"]
    first, second = (motion_generator_state(state, SMALL.audio_dim) for _ in range(2))
    assert torch.equal(first["null_audio"], second["null_audio"])
    assert first["null_audio"].shape == (SMALL.audio_dim,)


@pytest.mark.parametrize("head_dim", [16, 64])
def test_rope(head_dim: int) -> None:
    golden = load_file(GOLDEN / "rope.safetensors")
    rope = rope_table(80, head_dim)
    for table, name in zip(rope.unbind(-1), ("cos", "sin"), strict=True):
        torch.testing.assert_close(
            table.repeat_interleave(2, dim=-1), golden[f"{name}.hd{head_dim}"], atol=1e-5, rtol=1e-4
        )
    for name in "qk":
        x = golden[f"{name}.hd{head_dim}"].transpose(1, 2)
        torch.testing.assert_close(
            rotate(x, rope).transpose(1, 2),
            golden[f"{name}_rot.hd{head_dim}"],
            atol=1e-5,
            rtol=1e-4,
        )


def test_time_embedding() -> None:
    golden = load_file(GOLDEN / "time_embed.safetensors")
    network = mmdit_by_rule(SMALL, "motion_generator_small.json")
    sinusoid = timestep_sinusoid(golden["t"])
    torch.testing.assert_close(sinusoid, golden["sinusoid"], atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        embedding = network.time_embedder(sinusoid)
    torch.testing.assert_close(embedding, golden["embedding"], atol=1e-4, rtol=1e-4)


def test_one_stream_is_ordinary_attention() -> None:
    torch.manual_seed(0)
    ours = JointAttention(("x",), 32, 4)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = (
        ours.qkv["x"].weight.data,
        ours.qkv["x"].bias.data,
    )
    theirs.out_proj.load_state_dict(ours.out["x"].state_dict())
    ours.norm["x"].q, ours.norm["x"].k = nn.Identity(), nn.Identity()
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(ours({"x": x}, {})["x"], theirs(x, x, x)[0], atol=1e-5, rtol=1e-4)


def test_untrained_network_predicts_zero_and_learns() -> None:
    torch.manual_seed(0)
    network = MMDiT(MINI)
    network.init_weights()
    given = network.embed(
        torch.randn(2, 80, 4, 80), torch.tensor([8, 4]), torch.zeros(2, MINI.identity_dim)
    )
    out = network(torch.randn(2, 80, 70), torch.zeros(2, 1, 70), torch.tensor([1.0, 900]), given)
    assert out.shape == (2, 80, 70)
    assert not out.any()
    (out - 1).square().mean().backward()
    assert network.head.weight.grad is not None
    assert network.head.weight.grad.any()
