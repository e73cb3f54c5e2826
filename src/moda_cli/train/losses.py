"""The training objective of the motion flow."""

from torch import Tensor


def noisy_motion(motion: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Point on the straight path and its velocity, both (B, T, 70) (paper Eq. 1).

    motion, noise: (B, T, 70) normalised; sigma: (B,) in [0, 1], 1 is noise.
    """
    sigma = sigma[:, None, None]
    return (1 - sigma) * motion + sigma * noise, noise - motion


def clean_motion(z: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The motion (B, T, 70) that a velocity says lies at the end of the path through z."""
    return z - sigma[:, None, None] * velocity


def flow_loss(velocity: Tensor, target: Tensor, velocity_weight: float) -> tuple[Tensor, Tensor]:
    """Rectified-flow loss (Eq. 4) plus weighted velocity loss (Eq. 5), and the former alone.

    velocity, target: (B, T, C). The text's derivatives in time are read as first and second finite
    differences over frames of the predicted and of the true flow velocity, noise included.
    """
    error = target - velocity
    flow = error.square().mean()
    first = error.diff(dim=1)
    smooth = first.square().mean() + first.diff(dim=1).square().mean()
    return flow + velocity_weight * smooth, flow
