"""Frechet distance between two sets of features: the number behind FID and FVD.

Sets are kept as mean and a square root of their scatter, in float64. So it is exact also for fewer
samples than dimensions, where the matrix square root of pytorch-fid is not, and sets of any size
(or a bootstrap's choice of clips) are merged without their features.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from moda_cli.errors import InputError


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A normal distribution with the mean and covariance of `count` features.

    mean: (D,). root: (R, D), R <= 2D, such that its Gram matrix root^T root is the scatter,
    count - 1 times the covariance (pytorch-fid's; StyleGAN-V and cd-fvd divide by count).
    """

    count: int
    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Gaussian":
        """Of features (N, D), N >= 1, on their device if it knows float64; Metal does not."""
        x = (features.cpu() if features.device.type == "mps" else features).double()
        mean = x.mean(dim=0)
        return cls(len(x), mean, _shortened(x - mean))

    def merge(self, other: "Gaussian") -> "Gaussian":
        """Of both sets together, exactly (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        gap = other.mean - self.mean
        between = (self.count * other.count / count) ** 0.5 * gap
        root = torch.cat((self.root, other.root, between[None]))
        return Gaussian(count, self.mean + other.count / count * gap, _shortened(root))


def pool(parts: Iterable[Gaussian]) -> Gaussian:
    """One set of several, at least one: a data set of its clips."""
    return reduce(Gaussian.merge, parts)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + Tr(S1) + Tr(S2) - 2 Tr((S1 S2)^(1/2)), not below 0.

    The last trace is the sum of the singular values of A B^T where A^T A = S1, B^T B = S2.
    Raises InputError for a set of one sample, which has no covariance.
    """
    if min(first.count, second.count) < 2:
        raise InputError(
            f"a Frechet distance of {first.count} and {second.count} samples is not defined",
            hint="both sides need at least 2 frames (FID) or 2 windows (FVD)",
        )
    a, b = (_triangular(g.root) / (g.count - 1) ** 0.5 for g in (first, second))
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    distance = (first.mean - second.mean).square().sum() + a.square().sum() + b.square().sum()
    return max(0.0, float(distance - 2 * overlap))


def _shortened(root: Tensor) -> Tensor:
    """Another root of the same scatter if this one has grown long; rarely, as it takes a QR."""
    return _triangular(root) if len(root) > 2 * root.shape[1] else root


def _triangular(root: Tensor) -> Tensor:
    """A root of the same scatter, of D rows at most."""
    rows, columns = root.shape
    return torch.linalg.qr(root, mode="r").R if rows > columns else root
