"""DFN restated in the plainest way under the names of its public code, with its losses at the image's size.

Sources: Yu et al., CVPR 2018, arXiv:1804.09337, figures 2-4 and section 3.4; ycszen/TorchSeg, voc.dfn.R101_v1c. As
there, every head enlarges its scores to the image (corners aligned), all are supervised at that size, and the borders
too. The focal loss is the textbook one that perpixel trains with; the code's own costs the same. The border stage's
block that the code builds and never calls is left out. Sides must be multiples of 32.
"""

from __future__ import annotations

from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.bench.plain_networks import convolution

__all__ = ["PlainDFN", "plain_dfn_loss"]

BORDER_WEIGHT = 0.1
_TRUNKS: dict[int, tuple[str, dict[str, Any]]] = {
    18: ("resnet18", {}),
    101: ("resnet101", {"stem_type": "deep", "stem_width": 64}),
}


class PlainDFN(nn.Module):
    """DFN on ResNet-18 or on the ResNet-101 with the deep stem."""

    def __init__(self, depth: int = 101, num_classes: int = 21, *, width: int = 512, border_width: int = 21) -> None:
        super().__init__()
        name, options = _TRUNKS[depth]
        self.backbone: Any = timm.create_model(name, num_classes=0, **options)
        channels = (64, 128, 256, 512) if depth == 18 else (256, 512, 1024, 2048)
        coarse_first = channels[::-1]
        self.global_context = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBnRelu(coarse_first[0], width, 1))
        self.smooth_pre_rrbs = nn.ModuleList(PlainRefinement(c, width) for c in coarse_first)
        self.cabs = nn.ModuleList(PlainAttention(width) for _ in channels)
        self.smooth_aft_rrbs = nn.ModuleList(PlainRefinement(width, width) for _ in channels)
        self.smooth_heads = nn.ModuleList(PlainHead(width, num_classes, scale) for scale in (32, 16, 8, 4))
        self.border_pre_rrbs = nn.ModuleList(PlainRefinement(c, border_width) for c in channels)
        later = {str(i): PlainRefinement(border_width, border_width) for i in range(1, 4)}
        self.border_aft_rrbs = nn.ModuleDict(later)
        self.border_heads = nn.ModuleList(PlainHead(border_width, 1, 4) for _ in channels)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Maps images (B, 3, H, W) to four class scores (B, K, H, W), coarse to fine, and four of borders."""
        features = self._features(images)
        high = F.interpolate(
            self.global_context(features[-1]), features[-1].shape[-2:], mode="bilinear", align_corners=True
        )
        scores = []
        for i, low in enumerate(reversed(features)):
            x = self.smooth_aft_rrbs[i](self.cabs[i](self.smooth_pre_rrbs[i](low), high))
            scores.append(self.smooth_heads[i](x))
            high = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True) if i < 3 else x
        borders = []
        total = features[0]
        for i, feature in enumerate(features):
            x = self.border_pre_rrbs[i](feature)
            if i:
                larger = F.interpolate(x, scale_factor=2.0**i, mode="bilinear", align_corners=True)
                total = self.border_aft_rrbs[str(i)](total + larger)
            else:
                total = x
            borders.append(self.border_heads[i](total))
        return scores, borders

    def _features(self, images: Tensor) -> list[Tensor]:
        net = self.backbone
        x = net.maxpool(net.act1(net.bn1(net.conv1(images))))
        maps = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            maps.append(x)
        return maps


class ConvBnRelu(nn.Module):
    """Convolution, batch norm and ReLU by name."""

    def __init__(self, inside: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = convolution(inside, out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, W, h, w)."""
        return cast(Tensor, self.relu(self.bn(self.conv(x))))


class PlainRefinement(nn.Module):
    """1x1 convolution, then a residual of two 3x3 ones."""

    def __init__(self, inside: int, out: int, *, relu: bool = True) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv2d(inside, out, 1, bias=False)
        self.cbr = ConvBnRelu(out, out, 3)
        self.conv_refine = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, W, h, w)."""
        x = self.conv_1x1(x)
        x = self.conv_refine(self.cbr(x)) + x
        return F.relu(x) if self.relu else x


class PlainAttention(nn.Module):
    """Both stages, concatenated and pooled, weigh the channels of the finer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channel_attention = nn.Module()
        self.channel_attention.fc = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.Sigmoid()
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Maps two maps (B, W, h, w) to one."""
        pooled = F.adaptive_avg_pool2d(torch.cat([low, high], dim=1), 1).flatten(1)
        weights = cast(nn.Sequential, self.channel_attention.fc)(pooled)
        return cast(Tensor, low * weights[:, :, None, None] + high)


class PlainHead(nn.Module):
    """Refinement without ReLU to nine channels per class, a classifier, and the way to the image's size."""

    def __init__(self, inside: int, num_classes: int, scale: int) -> None:
        super().__init__()
        self.rrb = PlainRefinement(inside, 9 * num_classes, relu=False)
        self.conv = nn.Conv2d(9 * num_classes, num_classes, 1)
        self.scale = float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, W, h, w) to (B, K, scale h, scale w)."""
        return F.interpolate(self.conv(self.rrb(x)), scale_factor=self.scale, mode="bilinear", align_corners=True)


def plain_dfn_loss(output: tuple[list[Tensor], list[Tensor]], target: Tensor, borders: Tensor) -> Tensor:
    """Returns the published loss: cross-entropy of every stage and 0.1 times the focal loss of every border stage.

    Args:
        output: Of `PlainDFN`, at the image's size.
        target: Labels (B, H, W) int64, 255 where ignored.
        borders: 1, 0, or 255 where ignored, (B, H, W).
    """
    scores, edges = output
    total = sum(F.cross_entropy(score.float(), target, ignore_index=255) for score in scores)
    return cast(Tensor, total + BORDER_WEIGHT * sum(_focal(edge[:, 0].float(), borders) for edge in edges))


def _focal(scores: Tensor, borders: Tensor) -> Tensor:
    valid = borders != 255
    positive = (borders == 1).float()
    p = torch.sigmoid(scores)
    right = positive * p + (1 - positive) * (1 - p)
    weight = positive * 0.25 + (1 - positive) * 0.75
    nll = F.binary_cross_entropy_with_logits(scores, positive, reduction="none")
    return (weight * (1 - right) ** 2 * nll * valid).sum() / valid.sum().clamp(min=1)
