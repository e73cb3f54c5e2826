"""LivePortrait's keypoint algebra against the released one, and its properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from by_rule import GOLDEN, key_table
from liveportrait_by_rule import retargeting_file
from moda_cli.errors import WeightsError
from moda_cli.face.extractors import read_heads
from moda_cli.motion import Source
from moda_cli.render.liveportrait.keypoints import (
    Retargeting,
    drive_absolute,
    drive_relative,
    rotation,
    source_keypoints,
    transform,
)
from moda_cli.weights.renames.liveportrait import RETARGETING, liveportrait_state
from moda_cli.weights.state import load_strict

DRIVE = load_file(GOLDEN / "lp_drive.safetensors")


def close(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def retargeting(state: dict[str, Tensor]) -> Retargeting:
    with torch.device("meta"):
        networks = Retargeting()
    load_strict(networks, liveportrait_state(state, RETARGETING), "a file")
    return networks.requires_grad_(False)


def driving_source() -> tuple[Source, Tensor]:
    """The source of lp_drive and its predicted motion (9, 70)."""
    names = ("kp", "exp", "scale", "t", "pitch", "yaw", "roll")
    ours = ("kp_canonical", "expression", "scale", "translation", "pitch", "yaw", "roll")
    heads = {name: DRIVE[f"src.{key}"] for name, key in zip(ours, names, strict=True)}
    motion, kp_canonical = read_heads(heads)
    driving = [DRIVE[f"motion.{name}"] for name in ("exp", "scale", "t", "pitch", "yaw", "roll")]
    return Source(motion[0], kp_canonical[0]), torch.cat(driving, dim=-1)


def test_rotation_and_transform_are_the_released_ones() -> None:
    golden = load_file(GOLDEN / "lp_pure.safetensors")
    close(rotation(golden["rot.pitch_yaw_roll_deg"]), golden["rot.R"], 1e-6)
    pose = torch.cat([golden[f"tk.{name}"] for name in ("pitch", "yaw", "roll")], dim=-1)
    parts = (golden[f"tk.{name}"] for name in ("exp", "scale", "t"))
    close(transform(golden["tk.kp"], rotation(pose), *parts), golden["tk.out"])


@given(st.tuples(*[st.floats(-89, 89)] * 3))
def test_rotations_are_orthonormal(angles: tuple[float, ...]) -> None:
    pose = torch.tensor(angles, dtype=torch.float64)
    turn = rotation(pose)
    close(turn @ turn.mT, torch.eye(3, dtype=torch.float64), 1e-12)


def test_a_rotation_is_roll_after_yaw_after_pitch() -> None:
    pitch, yaw, roll = (torch.deg2rad(torch.tensor(a)) for a in (11.0, -23.0, 7.0))

    def turn(axis: int, angle: Tensor) -> Tensor:
        i, j = (k for k in range(3) if k != axis)
        matrix = torch.eye(3)
        matrix[i, i] = matrix[j, j] = angle.cos()
        matrix[j, i], matrix[i, j] = angle.sin(), -angle.sin()
        return matrix

    m = turn(2, roll) @ turn(1, -yaw) @ turn(0, pitch)  # yaw turns the other way about y
    close(rotation(torch.tensor([11.0, -23.0, 7.0])), m.mT, 1e-6)


def test_source_keypoints() -> None:
    source, motion = driving_source()
    close(source_keypoints(source), DRIVE["x_s"][0])
    close(rotation(source.motion[67:]), DRIVE["R_s"][0])
    close(rotation(motion[:, 67:]), DRIVE["R_motion"])


@pytest.mark.parametrize("stitched", [True, False])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_driving_is_the_released_one(mode: str, stitched: bool) -> None:
    source, motion = driving_source()
    if mode == "absolute":
        kp = drive_absolute(source, motion)
        name = "stitch" if stitched else "nostitch"
    else:
        kp = drive_relative(source, motion, motion[0])
        name = "pose" if stitched else "pose_nostitch"
    if stitched:
        kp = retargeting(retargeting_file()).stitch(source_keypoints(source)[None], kp)
    close(kp, DRIVE[f"x_d.{mode}_{name}"])


def test_a_motion_at_its_neutral_leaves_the_source() -> None:
    source, motion = driving_source()
    kp = drive_relative(source, motion[3:4], motion[3])
    close(kp[0], source_keypoints(source), 1e-6)


@pytest.mark.parametrize("layout", ["{group}.", "{group}.module.", "{group}_module."])
def test_stitching_from_every_layout_gives_the_released_numbers(layout: str) -> None:
    golden = load_file(GOLDEN / "lp_S.safetensors")
    state = {"retarget_unread.module.mlp.0.weight": torch.zeros(1)} if "e}" not in layout else {}
    for name, tensor in retargeting_file().items():
        group, _, key = name.partition(".")
        state[layout.format(group=group) + key] = tensor
    networks = retargeting(state)
    close(networks.stitching(golden["stitching.x"]), golden["stitching.out"])
    kp = [golden[f"wrap.{name}"] for name in ("kp_source", "kp_driving")]
    close(networks.stitch(*kp), golden["wrap.kp_driving_stitched"])


def test_stitching_that_says_nothing_changes_nothing() -> None:
    networks = retargeting({name: torch.zeros_like(x) for name, x in retargeting_file().items()})
    _, kp = torch.randn(2, 4, 21, 3)
    assert torch.equal(networks.stitch(kp[:1], kp), kp)


def test_the_stitching_of_a_file_is_read_strictly() -> None:
    state = retargeting_file()
    for group, table in (("shoulder", "stitching"), ("mouth", "retarget_lip")):
        names = {name for name in state if name.startswith(f"retarget_{group}.")}
        assert names == {f"retarget_{group}.{key}" for key in key_table(f"{table}.json")}
    with pytest.raises(WeightsError, match=r"unexpected stitching\.extra"):
        retargeting({**state, "retarget_shoulder.module.extra": torch.zeros(1)})
    del state["retarget_shoulder.mlp.6.bias"]
    with pytest.raises(WeightsError, match=r"missing stitching\.mlp\.6\.bias"):
        retargeting(state)
    with pytest.raises(WeightsError, match=r"missing stitching.* \(8 faults\)"):
        retargeting({"conv.weight": torch.zeros(1)})
