"""Compiled, with activations forgotten, or in bfloat16: the same gradients for less."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moda_cli.generator.mmdit import MMDiT
from moda_cli.train.dataset import Batch, stack
from moda_cli.train.objectives import MotionObjective, SyncObjective
from moda_cli.train.parallel import blocks_of
from moda_cli.train.presets import SyncConfig
from moda_cli.train.regions import prepare_blocks
from toy_features import TINY, short, windows_of, write_features

DEEP = replace(TINY, four_stream_depth=3, two_stream_depth=3, single_stream_depth=3)
TWO_KINDS = replace(DEEP, four_stream_depth=0)  # of blocks


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"))


def objective_and_batch(features: Path, **changes: Any) -> tuple[MotionObjective, Batch]:
    """With weights drawn at random: at its start every block is the identity."""
    windows = windows_of(features, short(**{"model": DEEP, **changes}))
    objective = MotionObjective(windows.config, windows.stats)
    generator = torch.Generator().manual_seed(0)
    for parameter in objective.network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return objective, stack([windows[number] for number in range(3)])


def gradients(objective: MotionObjective, batch: Batch) -> dict[str, Tensor]:
    objective.zero_grad()
    loss = objective(batch)["loss"]
    loss.backward()
    named = objective.network.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None} | {"loss": loss}


def kept_bytes(objective: MotionObjective, batch: Batch) -> int:
    """What the backward pass needs of the forward one."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = objective(batch)["loss"]
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("bf16", [False, True])
def test_forgotten_activations_change_no_gradient(features: Path, bf16: bool) -> None:
    objective, batch = objective_and_batch(features, bf16=bf16)
    plain, before = gradients(objective, batch), kept_bytes(objective, batch)
    prepare_blocks(objective.network, compile=False, checkpointing=True)
    again, after = gradients(objective, batch), kept_bytes(objective, batch)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.equal(again[name], gradient), name
    assert after < before / 4


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_give_the_same_gradients(features: Path, checkpointing: bool) -> None:
    """Blocks of one kind share a graph, or the first of them and the others one each."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    objective, batch = objective_and_batch(features, model=TWO_KINDS)
    plain = gradients(objective, batch)
    prepare_blocks(objective.network, compile=True, checkpointing=checkpointing)
    compiled = gradients(objective, batch)
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, atol=2e-5, rtol=2e-4, msg=name)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 2 <= graphs <= 4
    gradients(objective, batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
def test_a_network_without_blocks_is_compiled_whole(features: Path) -> None:
    model = SyncConfig(audio="logmel", audio_layers=4, audio_dim=80, hidden_dim=16)
    windows = windows_of(features, short(model=model))
    objective = SyncObjective(windows.config, windows.stats)
    batch = stack([windows[number] for number in range(2)])
    plain = objective(batch)["loss"]
    assert not blocks_of(objective.network)
    torch._dynamo.utils.counters.clear()
    prepare_blocks(objective.network, compile=True, checkpointing=False)
    torch.testing.assert_close(objective(batch)["loss"], plain)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_under_autocast_no_stream_is_float32(features: Path) -> None:
    """One float32 stream would make the rest of the network's residuals float32."""
    objective, batch = objective_and_batch(features, bf16=True)
    seen: list[torch.dtype] = []

    def look(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        streams = inputs[0].values() if isinstance(inputs[0], dict) else [inputs[0]]
        seen.extend(stream.dtype for stream in streams)

    for block in blocks_of(objective.network):
        block.register_forward_pre_hook(look)
        for module in block.modules():
            if isinstance(module, nn.RMSNorm):
                module.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    losses = objective(batch)
    assert [name for name, loss in losses.items() if loss.requires_grad] == ["loss"]
    assert set(seen) == {torch.bfloat16}
    assert losses["loss"].dtype == torch.float32
    exact, _ = objective_and_batch(features, bf16=False)
    torch.testing.assert_close(losses["loss"], exact(batch)["loss"], rtol=0.02, atol=0)


def test_blocks_are_found_in_every_network() -> None:
    assert len(blocks_of(MMDiT(DEEP))) == 9
    caba = replace(TINY, cross_attention_depth=2, four_stream_depth=0, two_stream_depth=0)
    assert len(blocks_of(MMDiT(caba))) == 3
