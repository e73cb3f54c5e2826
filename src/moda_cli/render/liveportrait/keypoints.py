"""LivePortrait's keypoint algebra: from motion to the driving keypoints, and their refinement."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.motion import Motion, Source, unpack

NUM_KEYPOINTS = 21

# Expression offsets that absolute driving takes from the motion; the others stay the source's.
DRIVEN = torch.zeros(NUM_KEYPOINTS, 3, dtype=torch.bool)
DRIVEN[[1, 2, 6, *range(11, NUM_KEYPOINTS)]] = True
DRIVEN[[3, 4], 1] = True
DRIVEN[[5, 8], 2] = True
DRIVEN[9, 1:] = True

# The release lowers the gaze of every absolute frame by this constant.
GAZE = torch.zeros(NUM_KEYPOINTS, 3)
GAZE[[11, 15], 1] = 0.0025
GAZE[[13, 16], 1] = 0.00075


def rotation(pose: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of pitch, yaw, roll (..., 3) in degrees.

    LivePortrait's are transposed: they turn row vectors, x @ R.
    """
    sin, cos = torch.deg2rad(pose).sin(), torch.deg2rad(pose).cos()
    (sa, sb, sc), (ca, cb, cc) = sin.unbind(-1), cos.unbind(-1)
    columns = (  # of roll @ yaw @ pitch, one after another: the rows of its transpose
        (cc * cb, sc * cb, -sb),
        (cc * sb * sa - sc * ca, sc * sb * sa + cc * ca, cb * sa),
        (cc * sb * ca + sc * sa, sc * sb * ca - cc * sa, cb * ca),
    )
    return torch.stack([torch.stack(column, dim=-1) for column in columns], dim=-2)


def transform(
    kp_canonical: Tensor, turn: Tensor, expression: Tensor, scale: Tensor, translation: Tensor
) -> Tensor:
    """scale (kp_canonical R + expression) + translation: LivePortrait (arXiv:2407.03168) eq. 2.

    kp_canonical, expression: (..., 21, 3). turn: (..., 3, 3). scale: (..., 1). translation:
    (..., 3), of which z is never used.
    """
    kp = scale[..., None] * (kp_canonical @ turn + expression)
    shift = translation * translation.new_tensor([1.0, 1.0, 0.0])
    return kp + shift[..., None, :]


def source_keypoints(source: Source) -> Tensor:
    """kp_source (21, 3): where the portrait's own keypoints are."""
    own = unpack(source.motion)
    turn = rotation(own.pose)
    return transform(source.kp_canonical, turn, _offsets(own), own.scale, own.translation)


def drive_absolute(source: Source, motion: Tensor) -> Tensor:
    """kp_driving (T, 21, 3) that takes pose and face of motion (T, 70) as they are.

    The release's mode: the scale and the offsets outside DRIVEN stay the source's.
    """
    own, new = unpack(source.motion), unpack(motion)
    offsets = torch.where(DRIVEN.to(motion.device), _offsets(new) + GAZE.to(motion), _offsets(own))
    return transform(source.kp_canonical, rotation(new.pose), offsets, own.scale, new.translation)


def drive_relative(source: Source, motion: Tensor, neutral: Tensor) -> Tensor:
    """kp_driving (T, 21, 3) that moves the source as motion (T, 70) moves off neutral (70)."""
    own, new, rest = unpack(source.motion), unpack(motion), unpack(neutral)
    return transform(
        source.kp_canonical,
        rotation(new.pose) @ rotation(rest.pose).mT @ rotation(own.pose),
        _offsets(own) + _offsets(new) - _offsets(rest),
        own.scale * new.scale / rest.scale,
        own.translation + new.translation - rest.translation,
    )


def _offsets(motion: Motion) -> Tensor:
    return _points(motion.expression)


def _points(flat: Tensor) -> Tensor:
    points: Tensor = flat.unflatten(-1, (NUM_KEYPOINTS, 3))
    return points


class KeypointMLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(sizes):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = self.mlp(x)
        return out


class Retargeting(nn.Module):
    """S of LivePortrait, which corrects keypoints at the crop's border (sec. 3.3)."""

    def __init__(self) -> None:
        super().__init__()
        kp = 3 * NUM_KEYPOINTS
        self.stitching = KeypointMLP((2 * kp, 128, 128, 64, kp + 2))

    def stitch(self, kp_source: Tensor, kp_driving: Tensor) -> Tensor:
        """kp_driving (T, 21, 3) moved so that the shoulders stay. kp_source: (T or 1, 21, 3)."""
        pair = torch.cat((kp_source.expand_as(kp_driving), kp_driving), dim=1)
        delta = self.stitching(pair.flatten(1))
        offsets, shift = delta.split((3 * NUM_KEYPOINTS, 2), dim=-1)
        return kp_driving + _points(offsets) + F.pad(shift, (0, 1))[:, None]  # z stays
