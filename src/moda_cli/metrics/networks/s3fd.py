"""S3FD face detector (Zhang et al., arXiv:1708.05237) with the weights SyncNet's code uses."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from moda_cli.errors import InputError

MEAN_RGB = (123.0, 117.0, 104.0)
STRIDES = (4, 8, 16, 32, 64, 128)
ANCHOR_STRIDES = 4  # an anchor is a square of four strides
DETECTION_SCALE = 0.25  # the release finds faces at a quarter of the size
MAX_PIXELS = 2**18  # in the network at once: 0.3 GB of activations
MIN_SCORE = 0.9
INNER_IOU, OUTER_IOU = 0.3, 0.1  # the release suppresses twice
MAX_CANDIDATES, MAX_KEPT = 5000, 750
VGG_POOLED = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)


class L2Norm(nn.Module):
    """Divides by the length over channels, then weighs each channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
        return self.weight[:, None, None] * unit  # type: ignore[no-any-return]


def backbone() -> nn.Sequential:
    """VGG-16's convolutions, its dense layers made convolutions: (B, 3, H, W) -> (B, 1024, ...)."""
    layers: list[nn.Module] = []
    dim = 3
    for block, widths in enumerate(VGG_POOLED):
        for width in widths:
            layers += [nn.Conv2d(dim, width, 3, padding=1), nn.ReLU(inplace=True)]
            dim = width
        layers.append(nn.MaxPool2d(2, ceil_mode=block == 2))
    layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class S3FD(nn.Module):
    """Boxes and scores of one square anchor per cell of six maps. Names are the checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = backbone()
        self.L2Norm3_3 = L2Norm(256)
        self.L2Norm4_3 = L2Norm(512)
        self.L2Norm5_3 = L2Norm(512)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, stride=2, padding=1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, stride=2, padding=1),
            ]
        )
        dims = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(dim, 4, 3, padding=1) for dim in dims)
        classes = (4, 2, 2, 2, 2, 2)  # the first map tells three kinds of background apart
        self.conf = nn.ModuleList(
            nn.Conv2d(dim, n, 3, padding=1) for dim, n in zip(dims, classes, strict=True)
        )

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> six maps of strides 4 to 128."""
        conv3_3 = self.vgg[:16](images)
        conv4_3 = self.vgg[16:23](conv3_3)
        conv5_3 = self.vgg[23:30](conv4_3)
        fc7 = self.vgg[30:](conv5_3)
        conv6_2 = F.relu(self.extras[1](F.relu(self.extras[0](fc7))))
        conv7_2 = F.relu(self.extras[3](F.relu(self.extras[2](conv6_2))))
        normed = [self.L2Norm3_3(conv3_3), self.L2Norm4_3(conv4_3), self.L2Norm5_3(conv5_3)]
        return [*normed, fc7, conv6_2, conv7_2]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images: (B, 3, H, W) RGB, 0 to 255, less MEAN_RGB.

        Returns box offsets (B, A, 4), probabilities of background and face (B, A, 2), and `anchors`
        (A, 4).
        """
        maps = self.feature_maps(images)
        offsets, logits = [], []
        for x, loc, conf in zip(maps, self.loc, self.conf, strict=True):
            kinds = conf(x)
            kinds = torch.cat((kinds[:, :-1].amax(dim=1, keepdim=True), kinds[:, -1:]), dim=1)
            offsets.append(loc(x).flatten(2))
            logits.append(kinds.flatten(2))
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        probabilities = torch.cat(logits, dim=2).transpose(1, 2).softmax(dim=-1)
        places = anchors(sizes, images.shape[2], images.shape[3]).to(images)
        return torch.cat(offsets, dim=2).transpose(1, 2), probabilities, places


def anchors(map_sizes: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
    """(A, 4) centre x, centre y, width, height as shares of the image, map by map, row by row."""
    extent = torch.tensor([width, height])
    parts = []
    for (rows, columns), stride in zip(map_sizes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centre = (torch.stack((x, y), dim=-1).flatten(0, 1) + 0.5) * stride / extent
        size = (ANCHOR_STRIDES * stride / extent).expand_as(centre)
        parts.append(torch.cat((centre, size), dim=1))
    return torch.cat(parts)


def decode_boxes(offsets: Tensor, places: Tensor) -> Tensor:
    """Corners x1, y1, x2, y2 (..., A, 4) as shares of the image, of the anchors `places` (A, 4)."""
    centre = places[:, :2] + 0.1 * offsets[..., :2] * places[:, 2:]
    half = places[:, 2:] * torch.exp(0.2 * offsets[..., 2:]) / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def suppress(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], max_iou: float
) -> NDArray[np.int64]:
    """Indices, best first, of the boxes (n, 4) that no better kept one overlaps by more."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        left = left[shared <= max_iou * (area[best] + area[left] - shared)]
    return np.array(kept, np.int64)


@torch.inference_mode()
def detect_faces(network: S3FD, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    """Faces of each RGB frame (H, W, 3): (n, 4) x1, y1, x2, y2 in pixels, best first.

    The frames are of one size; large ones go through the network a few at a time. Raises InputError
    for frames that five halvings leave nothing of.
    """
    device = network.L2Norm3_3.weight.device
    smallest = min(frames[0].shape[:2])
    if smallest * DETECTION_SCALE < 32:
        raise InputError(f"frames with sides of {smallest} pixels are too small to find faces in")
    small = [cv2.resize(frame, None, fx=DETECTION_SCALE, fy=DETECTION_SCALE) for frame in frames]
    images = torch.from_numpy(np.stack(small))  # (B, h, w, 3)
    height, width = frames[0].shape[:2]
    found = []
    for some in images.split(max(1, MAX_PIXELS // (images.shape[1] * images.shape[2]))):
        shifted = some.to(device).float() - torch.tensor(MEAN_RGB, device=device)
        offsets, probabilities, places = network(shifted.permute(0, 3, 1, 2))
        shares = decode_boxes(offsets, places).cpu().double().numpy()
        scores = probabilities[..., 1].cpu().double().numpy()
        found += [
            best_boxes(boxes * (width, height, width, height), score)
            for boxes, score in zip(shares, scores, strict=True)
        ]
    return found


def best_boxes(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The boxes (n, 4) of sure faces, after both suppressions of the release.

    The release keeps weaker boxes through the first one; they could not suppress a sure one.
    """
    sure = np.flatnonzero(scores > MIN_SCORE)
    sure = sure[np.argsort(-scores[sure], kind="stable")[:MAX_CANDIDATES]]
    boxes, scores = boxes[sure], scores[sure]
    first = suppress(boxes, scores, INNER_IOU)[:MAX_KEPT]
    boxes, scores = boxes[first], scores[first]
    return boxes[suppress(boxes, scores, OUTER_IOU)]
