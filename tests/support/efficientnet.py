"""EfficientNet-B0 as TensorFlow pads it, inside HSEmotion's ONNX file; names are timm's."""

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class SameConv(nn.Conv2d):
    """Output side = input side / stride, rounded up; the smaller half of the padding first."""

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        over_y, over_x = (max((-(-n // s) - 1) * s + k - n, 0) for n in map(int, x.shape[-2:]))
        left, top = over_x // 2, over_y // 2
        return super().forward(F.pad(x, (left, over_x - left, top, over_y - top)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(width, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))
        return x * self.conv_expand(y).sigmoid()


class Block(nn.Module):
    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, width: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion > 1
        last = nn.Conv2d(inner, width, 1, bias=False)
        if self.expands:
            self.conv_pw = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn1, self.bn2, self.bn3 = norm(inner), norm(inner), norm(width)
            self.conv_pwl = last
        else:
            self.bn1, self.bn2 = norm(inner), norm(width)
            self.conv_pw = last
        self.conv_dw = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self.se = SqueezeExcite(inner, inputs // 4)
        self.keeps_shape = stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        if self.expands:
            y = F.silu(self.bn1(self.conv_pw(x)))
            y = self.se(F.silu(self.bn2(self.conv_dw(y))))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.bn2(self.conv_pw(self.se(F.silu(self.bn1(self.conv_dw(x))))))
        return x + y if self.keeps_shape else y


class EfficientNetB0(nn.Module):
    """Faces (B, 3, 224, 224), ImageNet-normalised -> logits (B, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, 32, 3, stride=2, bias=False)
        self.bn1 = norm(32)
        stages, inputs = [], 32
        for kernel, stride, expansion, width, count in STAGES:
            blocks = []
            for k in range(count):
                blocks.append(Block(inputs, kernel, stride if k == 0 else 1, expansion, width))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn2 = norm(1280)
        self.classifier = nn.Sequential(nn.Linear(1280, 8))

    def features(self, x: Tensor) -> Tensor:
        """(B, 1280), what the classifier reads."""
        x = self.blocks(F.silu(self.bn1(self.conv_stem(x))))
        return F.silu(self.bn2(self.conv_head(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
