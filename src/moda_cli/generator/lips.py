"""Lip modulation: lips move further from their rest, as in the release. Motion is normalised, z."""

from collections.abc import Sequence

import torch
from torch import Tensor


def modulate_lips(z: Tensor, reference: Tensor, lips: Sequence[int]) -> Tensor:
    """Widen lip motion away from its resting frame, as the release does.

    z: (T, 70); reference: (70) a frame of silence; lips: the lip keypoints. With q_t the squared
    distance of frame t's lip numbers from the reference, they move away from it by
    1 + (sigmoid(5 q_t) - 0.5) / (0.1 max q + 0.05).
    """
    return _widen(z, reference, lips, _lip_distance(z, reference, lips).max())


class LiveLips:
    """`modulate_lips` of motion as it comes: max q is that of the frames so far.

    reference: (70) normalised, a frame of silence; lips: the lip keypoints.
    """

    def __init__(self, reference: Tensor, lips: Sequence[int]) -> None:
        self._reference, self._lips = reference, lips
        self._peak = torch.zeros(1)

    def __call__(self, z: Tensor) -> Tensor:
        """The next frames (n, 70), their lips widened."""
        distances = _lip_distance(z, self._reference, self._lips)
        peaks = torch.cat((self._peak, distances)).cummax(dim=0).values
        self._peak = peaks[-1:]
        return _widen(z, self._reference, self._lips, peaks[1:, None])


def _lip_channels(lips: Sequence[int]) -> Tensor:
    return torch.tensor([3 * keypoint + axis for keypoint in lips for axis in range(3)])


def _lip_distance(z: Tensor, reference: Tensor, lips: Sequence[int]) -> Tensor:
    """q (T)."""
    return (z - reference)[:, _lip_channels(lips)].square().sum(dim=-1)


def _widen(z: Tensor, reference: Tensor, lips: Sequence[int], peak: Tensor) -> Tensor:
    channels = _lip_channels(lips)
    q = _lip_distance(z, reference, lips)[:, None]
    gain = 1 + (torch.sigmoid(5 * q) - 0.5) / (0.1 * peak + 0.05)
    z = z.clone()
    z[:, channels] = reference[channels] + (z[:, channels] - reference[channels]) * gain
    return z
