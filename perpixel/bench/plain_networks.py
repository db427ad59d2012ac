"""PSPNet and HRNet restated in the plainest way, under the names of the codes that their checkpoints come from.

What is concatenated is built, then convolved; scores are enlarged to the image. Blocks of residual networks are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

__all__ = ["PlainHRNet", "PlainPSPNet", "convolution", "enlarged"]


class PlainPSPNet(nn.Module):
    """PSPNet on ResNet-50 under semseg's names, without its auxiliary head."""

    def __init__(self, num_classes: int = 21) -> None:
        super().__init__()
        stem = (*convolution(3, 64, stride=2), *convolution(64, 64), *convolution(64, 128))
        self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        self.layer1 = bottlenecks(128, 64, 3)
        self.layer2 = bottlenecks(256, 128, 4, stride=2)
        self.layer3 = bottlenecks(512, 256, 6, dilation=2)
        self.layer4 = bottlenecks(1024, 512, 3, dilation=4)
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *convolution(2048, 512, 1)) for bins in (1, 2, 3, 6)
        )
        self.cls = nn.Sequential(*convolution(4096, 512), nn.Dropout2d(0.1), nn.Conv2d(512, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) to scores (B, K, H, W)."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(images)))))
        branches = cast(nn.ModuleList, self.ppm.features)
        x = self.cls(torch.cat([x, *(enlarged(branch(x), x, aligned=True) for branch in branches)], dim=1))
        return enlarged(x, images, aligned=True)


class PlainHRNet(nn.Module):
    """HRNetV2 under its authors' names: all maps are enlarged to the finest, concatenated and convolved."""

    def __init__(self, width: int = 18, num_classes: int = 21) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.conv1, self.bn1, _ = convolution(3, 64, stride=2)
        self.conv2, self.bn2, _ = convolution(64, 64, stride=2)
        self.layer1 = bottlenecks(64, 64, 4)
        self.transition1 = nn.ModuleList(
            [convolution(256, widths[0]), nn.Sequential(convolution(256, widths[1], 3, 2))]
        )
        self.transition2 = nn.ModuleDict({"2": nn.Sequential(convolution(widths[1], widths[2], 3, 2))})
        self.transition3 = nn.ModuleDict({"3": nn.Sequential(convolution(widths[2], widths[3], 3, 2))})
        self.stage2 = nn.Sequential(*(PlainExchange(widths[:2]) for _ in range(1)))
        self.stage3 = nn.Sequential(*(PlainExchange(widths[:3]) for _ in range(4)))
        self.stage4 = nn.Sequential(*(PlainExchange(widths) for _ in range(3)))
        total = sum(widths)
        mix = (nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(inplace=True))
        self.last_layer = nn.Sequential(*mix, nn.Conv2d(total, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) to scores (B, K, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = self.layer1(F.relu(self.bn2(self.conv2(x)), inplace=True))
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3([*maps, self.transition2["2"](maps[-1])])
        maps = self.stage4([*maps, self.transition3["3"](maps[-1])])
        x = torch.cat([maps[0], *(enlarged(x, maps[0], aligned=False) for x in maps[1:])], dim=1)
        return enlarged(self.last_layer(x), images, aligned=False)


class PlainExchange(nn.Module):
    """Four basic blocks on every branch, then each branch becomes the sum of all."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, w) for _ in range(4))) for w in widths)
        places = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_brought(widths, source, target) for source in places) for target in places
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps branches (B, C_i, h_i, w_i), finest first, to as many of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [F.relu(self._sum(maps, target), inplace=True) for target in range(len(maps))]

    def _sum(self, maps: list[Tensor], target: int) -> Tensor:
        layers = cast(nn.ModuleList, self.fuse_layers[target])
        total, *rest = (enlarged(layer(x), maps[target], aligned=False) for layer, x in zip(layers, maps, strict=True))
        return sum(rest, start=total)


def convolution(inside: int, out: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Returns convolution, batch norm and ReLU, the layers numbered as in the public codes."""
    conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), *([nn.ReLU(inplace=True)] if relu else []))


def bottlenecks(inside: int, width: int, count: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Returns a stage of a ResNet; every block of it is dilated, as in semseg."""
    out = Bottleneck.expansion * width
    shortcut = convolution(inside, out, 1, stride, relu=False)
    first = Bottleneck(inside, width, stride, shortcut, dilation=dilation, first_dilation=dilation)
    rest = (Bottleneck(out, width, dilation=dilation, first_dilation=dilation) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


def enlarged(x: Tensor, like: Tensor, *, aligned: bool) -> Tensor:
    """Brings a map to the size of another."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=aligned)


def _brought(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """The layers between two branches, but for the enlargement."""
    if source == target:
        return nn.Identity()
    if source > target:
        return convolution(widths[source], widths[target], 1, relu=False)
    halved = (convolution(widths[source], widths[source], 3, 2) for _ in range(target - source - 1))
    return nn.Sequential(*halved, convolution(widths[source], widths[target], 3, 2, relu=False))
