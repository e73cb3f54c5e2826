"""G of LivePortrait: warped features to the picture, by spatially adaptive normalisation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_MIDDLE = 6


class Spade(nn.Module):
    """Spatially adaptive scale and shift (arXiv:1903.07291, sec. 3)."""

    def __init__(self, channels: int, seg_channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.shared = nn.Conv2d(seg_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, normal: Tensor, seg: Tensor) -> Tensor:
        """normal: (B, C, H, W) after instance norm. seg: (B, S, H, W)."""
        hidden = F.relu(self.shared(seg))
        return torch.addcmul(self.beta(hidden), normal, 1 + self.gamma(hidden))


class SpadeBlock(nn.Module):
    """Residual block of two SPADE norms; where the width changes the shortcut is learned.

    Spectral norms are folded into the weights.
    """

    def __init__(self, channels: int, out_channels: int, seg_channels: int) -> None:
        super().__init__()
        middle = min(channels, out_channels)
        self.conv_0 = nn.Conv2d(channels, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, out_channels, 3, padding=1)
        self.norm_0 = Spade(channels, seg_channels)
        self.norm_1 = Spade(middle, seg_channels)
        self.learned_shortcut = channels != out_channels
        if self.learned_shortcut:
            self.conv_s = nn.Conv2d(channels, out_channels, 1, bias=False)
            self.norm_s = Spade(channels, seg_channels)

    def forward(self, x: Tensor, seg: Tensor) -> Tensor:
        """x: (B, C, H, W) -> (B, out, H, W). seg: (B, S, h, w), enlarged to H x W if smaller."""
        if seg.shape[2:] != x.shape[2:]:
            seg = F.interpolate(seg, x.shape[2:])
        normal = F.instance_norm(x)
        shortcut = self.conv_s(self.norm_s(normal, seg)) if self.learned_shortcut else x
        dx = self.conv_0(F.leaky_relu(self.norm_0(normal, seg), 0.2))
        dx = self.conv_1(F.leaky_relu(self.norm_1(F.instance_norm(dx), seg), 0.2))
        out: Tensor = shortcut + dx
        return out


class SpadeGenerator(nn.Module):
    """G of LivePortrait (arXiv:2407.03168, sec. 3.1). Defaults: as released."""

    def __init__(
        self, in_channels: int = 256, width: int = 512, out_channels: int = 64, upscale: int = 2
    ) -> None:
        super().__init__()
        self.upscale = upscale
        self.fc = nn.Conv2d(in_channels, width, 3, padding=1)
        self.middle = nn.ModuleList(
            SpadeBlock(width, width, in_channels) for _ in range(NUM_MIDDLE)
        )
        self.up = nn.ModuleList(
            (
                SpadeBlock(width, width // 2, in_channels),
                SpadeBlock(width // 2, out_channels, in_channels),
            )
        )
        self.to_rgb = nn.Conv2d(out_channels, 3 * upscale**2, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Warped features (B, 256, 64, 64) -> image (B, 3, 512, 512) in (0, 1)."""
        x = self.fc(features)
        for block in self.middle:
            x = block(x, features)
        for block in self.up:
            x = block(F.interpolate(x, scale_factor=2.0), features)
        return F.pixel_shuffle(self.to_rgb(F.leaky_relu(x, 0.2)), self.upscale).sigmoid()
