"""Attention Mesh (arXiv:2006.10962): 478 points of a face, lips and eyes measured a second time.

The network is MediaPipe's published one. "Left" is the picture's left throughout.
"""

import torch
from torch import Tensor, nn

from moda_cli.face.blazeface import Block, pad_after

SIDE = 192  # pixels of the square it reads; its points are in them
MAP_SIDE = 48  # of the feature map that regions are cut from
REGION_SIDE = 16  # of a region, in cells of the feature map's kind
REGION_MARGIN = 1.5
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408,
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
)  # fmt: skip
LEFT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
    130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190,
    226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189,
    35, 124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245,
    156, 70, 63, 105, 66, 107, 55, 193,
)  # fmt: skip
RIGHT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
    359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414,
    446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413,
    265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465,
    383, 300, 293, 334, 296, 336, 285, 417,
)  # fmt: skip
# What is measured again: its points, the two that level it, the heads that read it.
REGIONS = {
    "lips": (LIPS, (61, 291), ("lips",)),
    "left": (LEFT_EYE, (33, 133), ("left_eye", "left_iris")),
    "right": (RIGHT_EYE, (362, 263), ("right_eye", "right_iris")),
}
HEADS = {"lips": 80, "left_eye": 71, "left_iris": 5, "right_eye": 71, "right_iris": 5}
LEFT_IRIS, RIGHT_IRIS = range(468, 473), range(473, 478)


class AttentionMesh(nn.Module):
    """Points and face flag of (B, 3, 192, 192) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.PReLU(16))
        self.early = nn.Sequential(_block(16), _block(16), _block(16, 32, 2))
        self.late = nn.Sequential(
            *(_block(32) for _ in range(2)),
            *_stage(32, 64),
            *_stage(64, 128),
            *_stage(128, 128),
            *_stage(128, 128),
            *_narrowed(),
        )
        self.mesh = nn.Conv2d(32, 468 * 3, 3)
        self.flag = nn.Conv2d(32, 1, 3)
        self.regions = nn.ModuleDict(
            {
                region: nn.Sequential(
                    *(_block(32) for _ in range(2)), *_stage(32, 64), _block(64, 128, 2)
                )
                for region in REGIONS
            }
        )
        self.heads = nn.ModuleDict(
            {
                head: nn.Sequential(
                    *(_block(128) for _ in range(2)),
                    *_stage(128, 128),
                    *_narrowed(),
                    nn.Conv2d(32, 2 * count, 2),
                )
                for head, count in HEADS.items()
            }
        )

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Points by name, in pixels of the square, and the face flag's logit (B,).

        mesh (B, 468, 3), z growing away from the viewer; a region's points (B, n, 2) by its head.
        """
        features = self.early(self.first(pad_after(images)))
        late = self.late(features)
        points = {"mesh": self.mesh(late).reshape(len(images), 468, 3)}
        for region, (members, level, heads) in REGIONS.items():
            first = points["mesh"][..., :2] * (MAP_SIDE / SIDE)
            matrix = region_matrix(first, members, *level)
            seen = self.regions[region](sample(features, matrix))
            for head in heads:
                local = self.heads[head](seen).reshape(len(images), -1, 2)
                points[head] = to_square(local, matrix)
        return points, self.flag(late).flatten()


def _block(narrow: int, wide: int | None = None, stride: int = 1) -> Block:
    return Block(narrow, wide or narrow, stride, slopes=True)


def _stage(narrow: int, wide: int) -> list[Block]:
    return [_block(narrow, wide, 2), _block(wide), _block(wide)]


def _narrowed() -> list[nn.Module]:
    return [nn.Conv2d(128, 32, 1), nn.PReLU(32), _block(32)]


def region_matrix(points: Tensor, members: tuple[int, ...], left: int, right: int) -> Tensor:
    """The maps (B, 2, 3) from a region's square, 0..16, to the feature map that holds `points`.

    points: (B, 468, 2) in cells of the map. The region is the members' bounding box in the frame
    where `left` to `right` is level, widened; its width and height are scaled apart.
    """
    along = points[:, right] - points[:, left]
    angle = torch.atan2(along[:, 1], along[:, 0])
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    level = points[:, list(members)] @ turn  # each point turned by -angle
    low, high = level.amin(1), level.amax(1)
    middle = turn @ ((low + high) / 2)[..., None]  # (B, 2, 1)
    linear = turn * ((high - low) * (REGION_MARGIN / REGION_SIDE))[:, None]
    return torch.cat((linear, middle - linear.sum(-1, keepdim=True) * REGION_SIDE / 2), -1)


def sample(features: Tensor, matrix: Tensor) -> Tensor:
    """The regions (B, C, 16, 16) of a map (B, C, 48, 48) by `region_matrix`; outside is 0."""
    scale = REGION_SIDE / 2  # affine_grid speaks of -1..1
    linear = matrix[..., :2] * (scale * 2 / MAP_SIDE)
    middle = (matrix[..., :2].sum(-1) * scale + matrix[..., 2]) * (2 / MAP_SIDE) - 1
    size = [len(features), features.shape[1], REGION_SIDE, REGION_SIDE]
    grid = nn.functional.affine_grid(
        torch.cat((linear, middle[..., None]), -1), size, align_corners=False
    )
    return nn.functional.grid_sample(features, grid, align_corners=False)


def to_square(local: Tensor, matrix: Tensor) -> Tensor:
    """Points (B, n, 2) of a region's head, 0..64 there, in pixels of the network's square."""
    return local @ matrix[..., :2].mT + (SIDE / MAP_SIDE) * matrix[:, None, :, 2]
