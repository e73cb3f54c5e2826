"""The motion vector: fields, articulators, statistics, resampling, files."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from by_rule import GOLDEN
from moda_cli.errors import InputError
from moda_cli.motion import (
    ARTICULATORS,
    DIRECTIONS,
    MOTION_DIM,
    POSE,
    SCALE,
    Recording,
    Stats,
    decode,
    decode_gaze,
    encode,
    encode_gaze,
    load_motion,
    pack,
    resample,
    save_motion,
    unpack,
)


@given(st.lists(st.floats(-50, 80), min_size=8, max_size=8))
def test_articulators_survive_the_motion_space(values: list[float]) -> None:
    articulators = torch.tensor(values)
    torch.testing.assert_close(decode(encode(articulators)), articulators, atol=1e-3, rtol=1e-4)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_sideways_gaze_survives_the_motion_space(right: float, down: float) -> None:
    offsets = encode_gaze(torch.tensor([right, down]))
    torch.testing.assert_close(decode_gaze(offsets), torch.tensor(right), atol=1e-6, rtol=0)
    sideways = decode(encode_gaze(torch.tensor([right, 0.0])))
    torch.testing.assert_close(sideways, torch.zeros(8))  # no articulator takes part
    lids = decode(offsets)[4:6]
    assert (lids * down >= -1e-4).all()  # they go down with the eyes


def test_directions_are_well_conditioned_and_named() -> None:
    assert len(ARTICULATORS) == 8
    columns = DIRECTIONS / DIRECTIONS.norm(dim=0)
    assert torch.linalg.cond(columns) < 3  # reference: 2.8
    jaw = encode(torch.eye(8)[ARTICULATORS.index("jaw")]).unflatten(0, (21, 3))
    assert jaw[19, 1] == pytest.approx(0.001)
    assert jaw[17, 1] == pytest.approx(-0.0001)
    assert torch.count_nonzero(jaw) == 3


def test_fields_round_trip() -> None:
    motion = torch.randn(5, MOTION_DIM)
    fields = unpack(motion)
    assert fields.pose.shape == (5, 3)
    assert torch.equal(pack(fields), motion)


def released_stats() -> Stats:
    numbers = json.loads((GOLDEN / "motion_stats.json").read_text())
    mean, std = torch.tensor(numbers["mean"]), torch.tensor(numbers["std"])
    return Stats(mean, std, torch.zeros(70), torch.zeros(63))


def test_normalisation_is_the_released_one() -> None:
    golden = load_file(GOLDEN / "postprocess.safetensors")
    stats, ratio = released_stats(), golden["rescale_ratio"]
    degrees = [golden[f"degrees.{name}"] for name in ("pitch", "yaw", "roll")]
    still = golden["source.t"] * torch.tensor([1.0, 1, 0])
    source = [golden["source.exp"], golden["source.scale"] / ratio, still / ratio, *degrees]
    z = stats.normalise(torch.cat(source, dim=-1))
    torch.testing.assert_close(z, golden["prev_motion"][0], atol=1e-5, rtol=1e-4)
    made = unpack(stats.denormalise(golden["lip.in"]))
    torch.testing.assert_close(made.expression, golden["sequence.exp"], atol=1e-5, rtol=1e-4)
    for part, name in enumerate(("pitch", "yaw", "roll")):
        torch.testing.assert_close(
            made.pose[:, part, None], golden[f"sequence.{name}"], atol=1e-4, rtol=1e-4
        )


@given(st.integers(0, 2**32 - 1))
def test_statistics_round_trip(seed: int) -> None:
    stats = released_stats()
    z = torch.randn(3, 70, generator=torch.Generator().manual_seed(seed))
    moving = stats.std > 1e-4
    again = stats.normalise(stats.denormalise(z))
    torch.testing.assert_close(again[:, moving], z[:, moving], atol=1e-2, rtol=1e-3)


@given(
    frames=st.integers(1, 90),
    cut=st.integers(0, 90),
    fps=st.sampled_from([1, 12.5, 24, 29.97, 30, 60, 120]),
)
def test_resampling_a_line_stays_on_it(frames: int, cut: int, fps: float) -> None:
    line = torch.arange(frames, dtype=torch.float32)[:, None].expand(frames, MOTION_DIM)
    pieces = [piece for piece in (line[:cut], line[cut:]) if len(piece)]
    made = torch.cat(list(resample(pieces, fps)))
    count = len(made)
    assert abs(count - frames * fps / 25) < 1
    expected = (torch.arange(count, dtype=torch.float64) * 25 / fps).clamp(max=frames - 1)
    torch.testing.assert_close(made[:, 0].double(), expected, atol=1e-3, rtol=0)


def test_motion_files(tmp_path: Path) -> None:
    motion, neutral = torch.randn(7, 70), torch.randn(70)
    motion[:, SCALE] = neutral[SCALE] = 1.3
    path = tmp_path / "m.safetensors"
    for absolute in (False, True):
        save_motion(path, Recording(motion, neutral, absolute), {"model": "mini", "seed": "1"})
        read = load_motion(path)
        assert torch.equal(read.motion, motion)
        assert torch.equal(read.neutral, neutral)
        assert read.absolute == absolute
    foreign = tmp_path / "foreign.safetensors"
    save_file({"motion": motion}, foreign)
    assert torch.equal(load_motion(foreign).neutral, motion[0])
    assert not load_motion(foreign).absolute


def still(count: int, size: int = 70) -> torch.Tensor:
    motion = torch.zeros(count, size)
    motion[:, SCALE] = 1.3
    return motion


@pytest.mark.parametrize("fps", [24, 29.97, 50])
def test_a_motion_file_of_another_rate_keeps_its_pace(tmp_path: Path, fps: float) -> None:
    motion = still(round(4 * fps))
    motion[:, POSE] = (torch.arange(len(motion)) / fps)[:, None]  # a degree a second
    path = tmp_path / "m.safetensors"
    save_file({"motion": motion}, path, {"fps": str(fps)})
    read = load_motion(path).motion
    assert len(read) == pytest.approx(100, abs=1)
    torch.testing.assert_close(read[:95, 68], torch.arange(95) / 25, atol=1e-3, rtol=0)


UNUSABLE: dict[str, tuple[torch.Tensor, dict[str, str]]] = {
    "(3, 69)": (still(3, 69), {}),
    "(0, 70)": (still(0), {}),
    "non-finite": (torch.full((3, 70), torch.nan), {}),
    "translation": (still(3).index_fill(1, torch.tensor([65]), 10_000.0), {}),
    "scale": (torch.zeros(3, 70), {}),
    "pose": (still(3).index_fill(1, torch.tensor([68]), 1e6), {}),
    "fps: 0": (still(3), {"fps": "0"}),
    "fps: fast": (still(3), {"fps": "fast"}),
    "mode sideways": (still(3), {"mode": "sideways"}),
    "moda 12": (still(3), {"version": "12.0.0"}),
}


@pytest.mark.parametrize("broken", ["absent", "garbage", *UNUSABLE])
def test_unusable_motion_files_are_named(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "m.safetensors"
    if broken == "garbage":
        path.write_bytes(b"not a motion file")
    elif broken != "absent":
        motion, said = UNUSABLE[broken]
        save_file({"motion": motion}, path, said)
    with pytest.raises(InputError, match=r"m\.safetensors") as refused:
        load_motion(path)
    if broken in UNUSABLE:
        assert broken in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("mean", [0.0] * 69), ("std", [-1.0] * 70), ("identity", [math.nan] * 63)]
)
def test_unusable_statistics_are_named(tmp_path: Path, name: str, value: list[float]) -> None:
    stats = {"mean": [0.0] * 70, "std": [1.0] * 70, "neutral": [0.0] * 70, "identity": [0.0] * 63}
    path = tmp_path / "stats.json"
    path.write_text(json.dumps(stats))
    assert Stats.read(path).mean.shape == (70,)
    path.write_text(json.dumps({**stats, name: value}))
    with pytest.raises(ValueError, match=rf"{name} in stats\.json"):
        Stats.read(path)
