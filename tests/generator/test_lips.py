"""Lip modulation against the released one, and as motion comes."""

import torch
from safetensors.torch import load_file

from by_rule import GOLDEN
from moda_cli.generator.lips import LiveLips, modulate_lips
from moda_cli.motion import LIP_KEYPOINTS

LIPS = [3 * keypoint + axis for keypoint in LIP_KEYPOINTS for axis in range(3)]


def test_lips_are_the_released_ones() -> None:
    golden = load_file(GOLDEN / "postprocess.safetensors")
    lips = golden["lip.in"]
    for row, name in ((-37, "add50"), (-1, "add1")):
        torch.testing.assert_close(
            modulate_lips(lips, lips[row], LIP_KEYPOINTS), golden[f"lip.out.{name}"],
            atol=1e-5, rtol=1e-4,
        )  # fmt: skip


def test_lips_widen_by_the_largest_distance_so_far() -> None:
    z = torch.randn(90, 70, generator=torch.Generator().manual_seed(3))
    rest = z[40]
    whole = modulate_lips(z, rest, LIP_KEYPOINTS)
    widen = LiveLips(rest, LIP_KEYPOINTS)
    live = torch.cat([widen(piece) for piece in z.split([1, 33, 56])])
    peak = int((z - rest)[:, LIPS].square().sum(dim=1).argmax())
    torch.testing.assert_close(live[peak:], whole[peak:])
    for frame in (0, peak - 1):
        known = modulate_lips(z[: frame + 1], rest, LIP_KEYPOINTS)
        torch.testing.assert_close(live[frame], known[frame])
