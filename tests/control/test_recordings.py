"""Recorded motion scaled, smoothed, joined, played faster and mixed."""

import pytest
import torch
from torch import Tensor

from moda_cli.control import recordings as r
from moda_cli.errors import UsageError
from moda_cli.motion import (
    ARTICULATORS,
    EXPRESSION,
    POSE,
    SCALE,
    Recording,
    decode,
    decode_gaze,
    encode,
    encode_gaze,
)


def recorded(frames: int = 100, neutral: float = 0.0, **curves: Tensor | float) -> Recording:
    """Articulators by name, and `yaw`, off a neutral whose expression is `neutral` throughout."""
    rest = torch.zeros(70)
    rest[EXPRESSION], rest[SCALE] = neutral, 1.3
    units = torch.zeros(frames, len(ARTICULATORS))
    motion = rest.repeat(frames, 1)
    for name, curve in curves.items():
        if name == "yaw":
            motion[:, 68] += curve
        else:
            units[:, ARTICULATORS.index(name)] = torch.as_tensor(curve)
    motion[:, EXPRESSION] += encode(units)
    return Recording(motion, rest)


def units(recording: Recording, name: str) -> Tensor:
    offsets = (recording.motion - recording.neutral)[:, EXPRESSION]
    return decode(offsets)[:, ARTICULATORS.index(name)]


def wave(frames: int = 100, period: float = 50) -> Tensor:
    return torch.sin(torch.arange(frames) / period * 2 * torch.pi)


def test_scale_takes_the_mouth_the_face_and_the_head_apart() -> None:
    given = recorded(jaw=40 * wave(), smile=0.5, lid_a=10 * wave(), yaw=8 * wave(), neutral=0.01)
    lips = r.scale(given, lips=0.5)
    torch.testing.assert_close(units(lips, "jaw"), units(given, "jaw") / 2, atol=1e-3, rtol=0)
    torch.testing.assert_close(units(lips, "smile"), units(given, "smile"), atol=1e-4, rtol=0)
    face = r.scale(given, face=2, head=0)
    torch.testing.assert_close(units(face, "lid_a"), 2 * units(given, "lid_a"), atol=1e-3, rtol=0)
    torch.testing.assert_close(units(face, "jaw"), units(given, "jaw"), atol=1e-3, rtol=0)
    assert face.motion[:, POSE].abs().max() == 0
    assert torch.equal(r.scale(given).motion, given.motion)


def test_smoothing_has_no_lag() -> None:
    noisy = wave() + 0.3 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    even = r.smooth(recorded(yaw=noisy), 0.1).motion[:, 68]
    assert (even[2:] - 2 * even[1:-1] + even[:-2]).abs().mean() < 0.1 * (
        noisy[2:] - 2 * noisy[1:-1] + noisy[:-2]
    ).abs().mean()
    fits = [float((even[10:90] * wave()[10 + k : 90 + k]).sum()) for k in range(-5, 6)]
    assert max(range(11), key=fits.__getitem__) == 5
    still = recorded(yaw=3.0)
    torch.testing.assert_close(r.smooth(still, 1.0).motion, still.motion)
    with pytest.raises(UsageError, match="-1"):
        r.smooth(still, -1)


def test_joined_motion_leaves_the_first_neutral_and_does_not_jump() -> None:
    first, second = recorded(jaw=20.0, yaw=5.0), recorded(60, jaw=40.0, yaw=-5.0, neutral=0.02)
    joined = r.concat([first, second], fade=0.4)
    assert len(joined.motion) == 150
    torch.testing.assert_close(joined.neutral, first.neutral)
    torch.testing.assert_close(
        units(joined, "jaw")[[0, -1]], torch.tensor([20.0, 40.0]), atol=1e-2, rtol=0
    )
    assert (joined.motion[1:, 68] - joined.motion[:-1, 68]).abs().max() < 2
    assert len(r.concat([first, second], fade=0).motion) == 160
    with pytest.raises(UsageError, match="no motion"):
        r.concat([])


def test_retimed_motion_takes_so_much_longer() -> None:
    given = recorded(yaw=torch.arange(100.0))
    fast = r.retime(given, 2)
    torch.testing.assert_close(fast.motion[:, 68], torch.arange(0.0, 100, 2))
    assert len(r.retime(given, 0.5).motion) == 200
    with pytest.raises(UsageError, match="speed 0"):
        r.retime(given, 0)


def test_mixing_takes_the_parts_that_are_asked_for() -> None:
    talk, nod = recorded(jaw=30 * wave(), brow_up=5.0), recorded(80, yaw=9.0, brow_up=1.0, jaw=4.0)
    head = r.mix(talk, nod, take=["head"])
    assert len(head.motion) == 80
    torch.testing.assert_close(head.motion[:, 68], torch.full((80,), 9.0))
    torch.testing.assert_close(units(head, "jaw"), units(talk, "jaw")[:80], atol=1e-3, rtol=0)
    half = r.mix(talk, nod, share=0.5, take=["face", "lips"])
    torch.testing.assert_close(units(half, "brow_up"), torch.full((80,), 3.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(half.motion[:, 68], torch.zeros(80))
    torch.testing.assert_close(
        units(half, "jaw"), (units(talk, "jaw")[:80] + 4) / 2, atol=1e-2, rtol=0
    )
    with pytest.raises(UsageError, match="nose"):
        r.mix(talk, nod, take=["nose"])


def test_a_gaze_can_be_taken_by_itself() -> None:
    plain = recorded(40, jaw=20.0)
    looking = recorded(40, brow_up=8.0)
    looking.motion[:, EXPRESSION] += encode_gaze(torch.tensor([0.8, 0.0]))
    looking = Recording(looking.motion, looking.neutral, gaze=torch.full((40, 2), 0.5))
    gaze = r.mix(plain, looking, take=["gaze"])
    offsets = (gaze.motion - gaze.neutral)[:, EXPRESSION]
    torch.testing.assert_close(decode_gaze(offsets), torch.full((40,), 0.8))
    assert gaze.gaze is not None
    assert float(gaze.gaze.min()) == 0.5
    assert units(gaze, "brow_up").abs().max() < 0.1
    face = r.mix(plain, looking, take=["face"])
    assert decode_gaze((face.motion - face.neutral)[:, EXPRESSION]).abs().max() < 1e-6
    assert face.gaze is None
    torch.testing.assert_close(units(face, "brow_up"), torch.full((40,), 8.0), atol=1e-3, rtol=0)
    assert r.parse_take("head, lips") == ("lips", "head")
    with pytest.raises(UsageError, match="'lip'"):
        r.parse_take("lip")


def test_a_gaze_goes_along() -> None:
    given = recorded(50)
    looking = Recording(given.motion, given.neutral, gaze=torch.full((50, 2), 0.5))
    assert r.concat([given, looking], fade=0).gaze is not None
    assert float(r.mix(given, looking, 0.5).gaze.max()) == 0.25  # type: ignore[union-attr]
    assert r.mix(looking, given, take=["head"]).gaze is not None
    assert len(r.retime(looking, 2).gaze) == 25  # type: ignore[arg-type]
    assert r.retime(given, 2).gaze is None
