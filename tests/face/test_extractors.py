"""LivePortrait's appearance and motion extractors against the released ones."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from by_rule import GOLDEN, key_table
from liveportrait_by_rule import TABLES, by_rule, released_shapes
from moda_cli.errors import WeightsError
from moda_cli.face.extractors import (
    AppearanceExtractor,
    Extractors,
    MotionExtractor,
    pose_degrees,
    read_heads,
)
from moda_cli.generator.lips import modulate_lips
from moda_cli.motion import LIP_KEYPOINTS, Stats, unpack
from moda_cli.weights.renames.liveportrait import APPEARANCE, liveportrait_state
from moda_cli.weights.state import load_strict

HEADS = {  # ours: the golden's
    "kp_canonical": "kp",
    "expression": "exp",
    "scale": "scale",
    "translation": "t",
    "pitch": "pitch",
    "yaw": "yaw",
    "roll": "roll",
}


def watch(seen: dict[str, Tensor], modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))


def close(actual: Tensor, expected: Tensor, name: str = "", atol: float = 1e-4) -> None:
    torch.testing.assert_close(
        actual, expected, atol=atol, rtol=0, msg=lambda text: f"{name}: {text}"
    )


def test_small_appearance_extractor_step_by_step() -> None:
    golden = load_file(GOLDEN / "lp_small_F.safetensors")
    network = by_rule(AppearanceExtractor((8, 16, 32), channels=4, depth=8, num_blocks=2))
    seen: dict[str, Tensor] = {}
    watch(seen, {"first": network.first, "down0": network.down[0], "down1": network.down[1]})
    watch(seen, {"second": network.lift})
    with torch.inference_mode():
        seen["out"] = network(golden["x"])
    seen["first"] = seen["first"].relu()
    for name in ("down0", "down1"):
        seen[name] = nn.functional.avg_pool2d(seen[name].relu(), 2)
    for name, value in seen.items():
        close(value, golden[name], name)


def test_small_motion_extractor_step_by_step() -> None:
    golden = load_file(GOLDEN / "lp_small_M.safetensors")
    network = by_rule(MotionExtractor((1, 1, 2, 1), (8, 16, 24, 32), num_keypoints=5))
    seen: dict[str, Tensor] = {}
    watch(seen, {"stem": network.downsample[0], "stage0": network.stages[0]})
    watch(seen, {"stage0_grn": network.stages[0][0].grn, "stage3": network.stages[3]})
    watch(seen, {"pooled_norm": network.norm})
    with torch.inference_mode():
        heads = network(golden["x"])
    seen |= {f"out_{HEADS[name]}": value for name, value in heads.items()}
    assert len(seen) == 12
    for name, value in seen.items():
        close(value, golden[name], name)


def test_full_extractors_give_the_released_numbers() -> None:
    appearance = load_file(GOLDEN / "lp_full_F.safetensors")
    raw = load_file(GOLDEN / "lp_full_M.safetensors")
    with torch.device("meta"):
        networks = AppearanceExtractor(), MotionExtractor()
    extractors = Extractors(*map(by_rule, networks))

    volume, _ = extractors.extract(appearance["image_uint8"].numpy())
    assert volume.shape == (1, 32, 16, 64, 64)
    close(volume[:, :, ::4, ::4, ::4], appearance["out_sub"])
    close(volume.mean(dim=(2, 3, 4)), appearance["out_ch_mean"])
    close(volume.std(dim=(2, 3, 4)), appearance["out_ch_std"])
    probe = torch.linspace(0, volume.numel() - 1, 4096, dtype=torch.float64).long()
    close(volume.flatten()[probe], appearance["out_probe"])

    motion, kp_canonical = extractors.motions(raw["image_uint8"][None].numpy())
    close(kp_canonical.flatten(1), raw["out_kp"])
    fields = unpack(motion)
    close(fields.expression, raw["out_exp"])
    close(fields.scale, raw["out_scale"])
    close(fields.translation, raw["out_t"] * torch.tensor([1.0, 1, 0]))
    degrees = [pose_degrees(raw[f"out_{name}"]) for name in ("pitch", "yaw", "roll")]
    close(fields.pose, torch.stack(degrees, dim=-1), atol=1e-3)  # degrees


def test_degrees_of_pose_logits() -> None:
    golden = load_file(GOLDEN / "lp_pure.safetensors")
    close(pose_degrees(golden["headpose.logits"]), golden["headpose.degree"])


def source_heads(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: golden[f"src.{theirs}"] for name, theirs in HEADS.items()}


def test_source_motion_starts_the_released_generator() -> None:
    golden = load_file(GOLDEN / "lp_motion_io.safetensors")
    motion, kp_canonical = read_heads(source_heads(golden))
    assert torch.equal(kp_canonical.flatten(1), golden["src.kp"])
    rest = torch.zeros(70)
    stats = Stats(golden["mean"][0], golden["std"][0], rest, rest[:63])
    ratio = (motion[:, 63:64] + 1e-5) / (golden["mean"][:, 63:64] + 1e-5)
    close(ratio, golden["rescale_ratio"])
    rescaled = torch.cat((motion[:, :63], motion[:, 63:67] / ratio, motion[:, 67:]), dim=-1)
    close(stats.normalise(rescaled), golden["prev_motion"][0])

    lips = modulate_lips(golden["generated"], golden["generated"][-2], LIP_KEYPOINTS)
    close(lips, golden["modulated"])
    made = unpack(stats.denormalise(lips))
    close(made.expression, golden["seq.exp"])
    close(made.scale * ratio, golden["seq.scale"])
    close(made.translation * ratio, golden["seq.t"])
    degrees = [golden[f"seq.{name}"] for name in ("pitch", "yaw", "roll")]
    close(made.pose, torch.cat(degrees, dim=-1))


@pytest.mark.parametrize("kind", TABLES)
def test_every_released_tensor_has_a_place(kind: type[nn.Module]) -> None:
    name, table = TABLES[kind]
    with torch.device("meta"):
        network = kind()
        state = {key: torch.empty(shape) for key, shape in key_table(name).items()}
    load_strict(network, liveportrait_state(state, table), name)
    assert released_shapes(network) == key_table(name)


@pytest.mark.parametrize(
    ("dropped", "named"),
    [
        ("first.conv.weight", r"first"),
        ("first.norm.running_mean", r"unexpected tensor first\.norm"),
        ("first.norm.running_var", r"missing first\.norm\.running_var"),
        ("first.norm.num_batches_tracked", r"missing first\.norm\.num_batches_tracked"),
        ("resblocks_3d.3dr1.norm1.bias", r"missing blocks\.1\.norm1\.bias"),
        ("second.bias", r"missing lift\.bias"),
    ],
)
def test_an_incomplete_file_is_refused(dropped: str, named: str) -> None:
    with torch.device("meta"):
        network = AppearanceExtractor()
        table = json.loads((GOLDEN / "appearance_feature_extractor.json").read_text())
        state = {key: torch.empty(shape) for key, shape in table.items() if key != dropped}
    with pytest.raises(WeightsError, match=named):
        load_strict(network, liveportrait_state(state, APPEARANCE), "a file")
