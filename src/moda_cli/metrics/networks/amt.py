"""AMT-S, the frame interpolation network behind the smoothness score.

AMT (arXiv:2304.09790), the small model of the public release, for the moment halfway between two
pictures. Module names are the checkpoint's (key `state_dict` of amt-s.pth, CC BY-NC 4.0). A flow
field carries both directions in one tensor: x, y towards the first picture, x, y to the second.
"""

from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.weights.state import load_strict

MIDDLE = 0.5  # the moment asked for, between 0 and 1
DIVISOR = 16  # sides of the pictures are multiples of it
RADIUS = 3  # of the correlation window, in cells of its level
LEVELS = 4  # of the correlation pyramid
WINDOW = LEVELS * (2 * RADIUS + 1) ** 2  # correlations per cell and direction
WIDTHS = (20, 32, 44, 56)  # features at 1/2, 1/4, 1/8 and 1/16 of the picture
SIDE = 20  # channels the inner convolutions of a residual block touch
NUM_FLOWS = 3  # pairs of flow fields blended into the picture


def resize(x: Tensor, factor: float) -> Tensor:
    """Bilinear, half-pixel centres, no antialiasing."""
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def cell_grid(x: Tensor) -> Tensor:
    """Column and row (2, H, W) of every cell of a map (..., H, W)."""
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) for n in x.shape[-2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))


def sample_at(x: Tensor, at: Tensor, padding: str) -> Tensor:
    """Values (B, C, h, w) of a map (B, C, H, W) at columns and rows (B, h, w, 2)."""
    last = at.new_tensor([x.shape[-1] - 1, x.shape[-2] - 1])
    return F.grid_sample(x, 2 * at / last - 1, padding_mode=padding, align_corners=True)


def warp_along(picture: Tensor, flow: Tensor) -> Tensor:
    """A map (B, C, H, W) fetched along a flow (B, 2, H, W) in pixels, borders replicated."""
    return sample_at(picture, (cell_grid(picture) + flow).permute(0, 2, 3, 1), "border")


class Correlation:
    """Similarity of every cell of one feature map to every cell of another, at four scales."""

    def __init__(self, asking: Tensor, asked: Tensor) -> None:
        """asking, asked: (B, C, H, W)."""
        asking = asking.flatten(2).mT / asking.shape[1] ** 0.5  # (B, H W, C)
        self.pyramid: list[Tensor] = []  # (B H W, 1, H / 2^i, W / 2^i)
        for i in range(LEVELS):
            if i:  # pooling the features is pooling their products, and far cheaper
                asked = F.avg_pool2d(asked, 2)
            products = asking @ asked.flatten(2)
            self.pyramid.append(products.reshape(-1, 1, *asked.shape[2:]))
        reach = torch.arange(-RADIUS, RADIUS + 1, dtype=asked.dtype, device=asked.device)
        # the first axis of the window moves x, as in RAFT (arXiv:2003.12039)
        self.window = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=-1)

    def look_up(self, flow: Tensor) -> Tensor:
        """Correlations (B, WINDOW, H, W) round where the flow (B, 2, H, W) points."""
        batch, _, height, width = flow.shape
        centre = (cell_grid(flow) + flow).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        looks = [
            sample_at(level, centre / 2**i + self.window, "zeros").flatten(1)
            for i, level in enumerate(self.pyramid)
        ]
        return torch.cat(looks, dim=1).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width // 4, 1)
        self.conv2 = nn.Conv2d(width // 4, width // 4, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(width // 4, width, 1)
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.conv1, self.conv2, self.conv3):
            y = F.instance_norm(conv(y)).relu()
        if hasattr(self, "downsample"):
            x = F.instance_norm(self.downsample(x))
        return (x + y).relu()


class CorrelationEncoder(nn.Module):
    """Picture (B, 3, H, W) -> features (B, 84, H / 8, W / 8) to correlate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1), Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2), Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.instance_norm(self.conv1(x)).relu()
        return cast(Tensor, self.conv2(self.layer3(self.layer2(self.layer1(x)))))


def conv_prelu(inputs: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, width, 3, stride, padding=1), nn.PReLU(width))


class PyramidEncoder(nn.Module):
    """Picture -> its features at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, width) in enumerate(pairwise((3, *WIDTHS)), start=1):
            level = nn.Sequential(conv_prelu(inputs, width, 2), conv_prelu(width, width))
            setattr(self, f"pyramid{i}", level)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for level in self.children():
            x = level(x)
            levels.append(x)
        return levels


class ResidualBlock(nn.Module):
    """Five convolutions; the second and fourth see only the last SIDE channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv_prelu(width, width)
        self.conv2 = conv_prelu(SIDE, SIDE)
        self.conv3 = conv_prelu(width, width)
        self.conv4 = conv_prelu(SIDE, SIDE)
        self.conv5 = nn.Conv2d(width, width, 3, padding=1)
        self.prelu = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            y = whole(y)
            y = torch.cat((y[:, :-SIDE], side(y[:, -SIDE:])), dim=1)
        return cast(Tensor, self.prelu(x + self.conv5(y)))


class Decoder(nn.Module):
    """Flow at twice the resolution, in `num_flows` versions, and features beside it."""

    def __init__(self, inputs: int, width: int, features: int, num_flows: int = 1) -> None:
        super().__init__()
        self.num_flows = num_flows
        self.convblock = nn.Sequential(
            conv_prelu(inputs, width),
            ResidualBlock(width),
            nn.ConvTranspose2d(width, 4 * num_flows + features, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, inputs, H, W), flow: (B, 4, H, W) -> (B, 4 num_flows, 2H, 2W), features."""
        out = self.convblock(x)
        towards = (2 * resize(flow, 2)).chunk(2, dim=1)
        coarse = torch.cat([one.repeat(1, self.num_flows, 1, 1) for one in towards], dim=1)
        change, features = out.tensor_split([coarse.shape[1]], dim=1)
        return coarse + change, features


class Update(nn.Module):
    """Flow and features corrected by the correlations at 1/8, `factor` times coarser."""

    def __init__(self, features: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convc1 = nn.Conv2d(2 * WINDOW, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, padding=3)
        self.convf2 = nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(64 + 20, 68, 3, padding=1)
        self.gru = self.two_convs(68 + 4 + features, 76)
        self.feat_head = self.two_convs(76, features)
        self.flow_head = self.two_convs(76, 4)

    @staticmethod
    def two_convs(inputs: int, outputs: int) -> nn.Sequential:
        first, last = nn.Conv2d(inputs, 76, 3, padding=1), nn.Conv2d(76, outputs, 3, padding=1)
        return nn.Sequential(first, nn.LeakyReLU(0.1), last)

    def forward(
        self, flow: Tensor, features: Tensor, volumes: tuple[Correlation, Correlation]
    ) -> tuple[Tensor, Tensor]:
        """flow: (B, 4, H, W), features: (B, C, H, W), both in and out."""
        low = resize(flow, 1 / self.factor) / self.factor
        # the pictures' own cells move as the middle ones do, over the whole time instead of a part
        forth, back = low[:, 2:] / MIDDLE, low[:, :2] / (1 - MIDDLE)
        seen = torch.cat((volumes[0].look_up(forth), volumes[1].look_up(back)), dim=1)
        seen = F.leaky_relu(self.convc1(seen), 0.1)
        moved = F.leaky_relu(self.convf1(low), 0.1)
        moved = F.leaky_relu(self.convf2(moved), 0.1)
        joint = F.leaky_relu(self.conv(torch.cat((seen, moved), dim=1)), 0.1)
        x = self.gru(torch.cat((joint, low, resize(features, 1 / self.factor)), dim=1))
        flow = flow + self.factor * resize(self.flow_head(x), self.factor)
        return flow, features + resize(self.feat_head(x), self.factor)


class AmtS(nn.Module):
    """The picture halfway between two."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = WIDTHS
        self.feat_encoder = CorrelationEncoder()
        self.encoder = PyramidEncoder()
        self.decoder4 = Decoder(2 * sixteenth + 1, 112, eighth)
        self.decoder3 = Decoder(3 * eighth + 4, 132, quarter)
        self.decoder2 = Decoder(3 * quarter + 4, 96, half)
        self.decoder1 = Decoder(3 * half + 4, 60, 4 * NUM_FLOWS, NUM_FLOWS)
        self.update4 = Update(eighth, 1)
        self.update3 = Update(quarter, 2)
        self.update2 = Update(half, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * NUM_FLOWS, 6 * NUM_FLOWS, 3, padding=1),
            nn.PReLU(6 * NUM_FLOWS),
            nn.Conv2d(6 * NUM_FLOWS, 3, 3, padding=1),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1], H and W multiples of DIVISOR -> (B, 3, H, W)."""
        mean = torch.cat((first, second), dim=3).mean(dim=(1, 2, 3), keepdim=True)
        pair = first - mean, second - mean

        map0, map1 = self.feat_encoder(torch.cat(pair)).chunk(2)  # (B, C, H / 8, W / 8)
        volumes = Correlation(map0, map1), Correlation(map1, map0)

        *finer, (last0, last1) = zip(self.encoder(pair[0]), self.encoder(pair[1]), strict=True)
        moment = torch.full_like(last0[:, :1], MIDDLE)
        still = torch.zeros_like(last0[:, :4])
        flow, features = self.decoder4(torch.cat((last0, last1, moment), dim=1), still)
        flow, features = self.update4(flow, features, volumes)
        stages = ((self.decoder3, self.update3), (self.decoder2, self.update2))
        for (decoder, update), level in zip(stages, reversed(finer[1:]), strict=True):
            flow, features = decoder(self.gather(features, level, flow), flow)
            flow, features = update(flow, features, volumes)
        flows, rest = self.decoder1(self.gather(features, finer[0], flow), flow)
        return self.blend(pair, flows, rest, mean)

    @staticmethod
    def gather(features: Tensor, level: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
        """What a decoder reads: features, both pictures' own brought together, the flow."""
        brought = [warp_along(x, part) for x, part in zip(level, flow.chunk(2, dim=1), strict=True)]
        return torch.cat((features, *brought, flow), dim=1)

    def blend(
        self, pair: tuple[Tensor, Tensor], flows: Tensor, rest: Tensor, mean: Tensor
    ) -> Tensor:
        """The picture from its NUM_FLOWS versions and a correction of their average."""
        masks, residuals = rest.tensor_split([NUM_FLOWS], dim=1)
        fields = flows.unflatten(1, (2, NUM_FLOWS, 2))
        versions = []
        for i, residual in enumerate(residuals.chunk(NUM_FLOWS, dim=1)):
            mask = masks[:, i : i + 1].sigmoid()
            near, far = (warp_along(x, fields[:, way, i]) for way, x in enumerate(pair))
            versions.append(mask * near + (1 - mask) * far + mean + residual)
        correction: Tensor = self.comb_block(torch.cat(versions, dim=1))
        return (torch.stack(versions).mean(dim=0) + correction).clamp(0, 1)


def load_amt_s(path: Path, device: torch.device | str = "cpu") -> AmtS:
    """The network of a safetensors file. Raises WeightsError if it holds another."""
    with torch.device("meta"):
        network = AmtS()
    load_strict(network, load_file(path), str(path))
    return network.to(device).eval()
