"""DeepLab v1 (Chen et al., ICLR 2015, arXiv:1412.7062, sections 3 and 4.3; the authors' prototxt files).

VGG16 with its last two poolings at stride 1, block 5 and fc6 dilated ("atrous"), so that scores come out at stride 8.
The published forms differ in fc6:

| form | fc6_kernel | fc6_dilation | fc_width | pool5a | pool_kernel | parameters, 21 classes |
|---|---|---|---|---|---|---|
| LargeFOV (the default) | 3 | 12 | 1024 | yes | 3 | 20,505,429 |
| 7x7 | 7 | 4 | 4096 | no | not verified | 134.3 M |
| 4x4 ("DeepLab") | 4 | 4 | 4096 | no | 2 | 65.1 M |
| 4x4, large field of view | 4 | 8 | 4096 | no | not verified | 65.1 M |

MSc (section 4.3) adds scores from the image and from the first four pools, which are then 3x3 whatever fc6 is:
21,711,550 parameters with LargeFOV. LargeFOV and MSc-LargeFOV are checked by reference values; the plain form was
written from the released config/DeepLab/test.prototxt, and no values of it were at hand.

Shapes: B batch, C channels, H W image, K classes. With 3x3 poolings a cell of the scores lies on every eighth pixel,
the first one included: 8n + 1 pixels give n + 1 cells, and scores are enlarged with aligned corners (the paper's sides
are 32n + 1). With 2x2 poolings cells are placed on the pixels -7, 1, 9 … (sides of 16n + 2 in the release): scores are
enlarged eight times and cropped by 7 pixels above and left, by 8 below and right.
Differs from the authors' code in that other sizes work too: with 3x3 poolings scores are then stretched over the image
by up to 7 pixels, with 2x2 less is cropped below and right. The plain form trains in its test form, on the scores at
the image's size; the release trains it without padding of pool4, against the labels [1::8, 1::8].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, Pool, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["TRUNK_FIELD", "DeepLabV1", "DeepLabV1Config", "SideBranch", "deeplab_layout"]

STRIDE = 8
TRUNK_FIELD = 227
"""Side in pixels of what a cell behind pool5 sees: kernels of 3 at steps 1, 2, 4, 8, and block 5 dilated by 2."""
_POOLED_STEPS = 15
"""Pixels by which a cell less in the kernels of pool1 to pool4 narrows that: their steps are 1, 2, 4 and 8."""
_SIDE_STRIDES = (8, 4, 2, 1, 1)
"""Of the side branches of the image and of pool1 to pool4, which bring them to stride 8."""
_PLAIN_CROP = 7
"""Pixels before the image's first one that the scores of the form with 2x2 poolings reach."""


@dataclass(frozen=True, kw_only=True)
class DeepLabV1Config:
    """fc6's form, the side branches, widths.

    Raises:
        InvalidValue: a number is not positive, fc6 cannot keep sizes, there are no such poolings, or the dropout is
            not a probability below 1.
    """

    fc6_kernel: int = 3
    fc6_dilation: int = 12
    """The paper's input stride, or rate."""
    fc_width: int = 1024
    """Channels of fc6 and fc7."""
    pool5a: bool = True
    """A 3x3 average behind pool5, as LargeFOV has it."""
    pool_kernel: Literal[3, 2] = 3
    """Of pool1 to pool4; pool5 has 3. 2 is the plain 4x4 form's; the 7x7 form's is not verified."""
    msc: bool = False
    """Scores from the image and the first four pools are added (multi-scale)."""
    msc_width: int = 128
    """Hidden channels of those side branches."""
    dropout: float = 0.5
    """Probability of dropping a single value, behind fc6, fc7 and the hidden layers of the side branches."""
    width: int = 64
    """Channels of VGG16's first block."""

    def __post_init__(self) -> None:
        for name in ("fc6_kernel", "fc6_dilation", "fc_width", "msc_width", "width"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"DeepLab v1 {name} must be >= 1, got {getattr(self, name)}")
        if self.fc6_dilation * (self.fc6_kernel - 1) % 2:
            raise InvalidValue(
                f"fc6 of kernel {self.fc6_kernel} and dilation {self.fc6_dilation} spans an even number of cells and "
                "cannot keep sizes; take an odd kernel or an even dilation"
            )
        if self.pool_kernel not in (3, 2):
            raise InvalidValue(f"pool_kernel of DeepLab v1 is one of 3, 2, got {self.pool_kernel!r}")
        if self.msc and self.pool_kernel != 3:
            raise InvalidValue(f"MSc aligns its side branches by 3x3 poolings, got pool_kernel={self.pool_kernel}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that it stands on."""
        reach = self.fc6_dilation * (self.fc6_kernel - 1)
        fc6 = FullyConnected(
            kernel=self.fc6_kernel, dilation=self.fc6_dilation, padding=reach // 2, width=self.fc_width
        )
        return deeplab_layout(self.width, fc6, self.pool_kernel)

    @classmethod
    def small(cls) -> DeepLabV1Config:
        """A tiny preset for tests and tables: narrow, and fc6 sees as much of a small image as it does of a large."""
        return cls(width=8, fc_width=64, fc6_dilation=2)


def deeplab_layout(width: int, fully_connected: FullyConnected | None, pool_kernel: int = 3) -> VGG16Layout:
    """Returns VGG16 as DeepLab has it: poolings with padding 1, three of them at stride 2, block 5 dilated by 2."""
    # Padded by a cell, 2x2 at stride 2 gives the same sizes rounded down as Caffe's; exported so, it takes any size.
    halving = Pool(kernel=pool_kernel, stride=2, padding=1, ceil=pool_kernel == 3)
    return VGG16Layout(
        width=width,
        pools=(halving, halving, halving, replace(halving, stride=1), Pool(kernel=3, stride=1, padding=1)),
        dilations=(1, 1, 1, 1, 2),
        fully_connected=fully_connected,
    )


class DeepLabV1(Network):
    """Scores at stride 8; with MSc at stride 8 in training and at the image's own size in evaluation, as published.

    With 2x2 poolings scores have the image's size in both: their cells lie on no corner of it.

    In training the side branches of MSc run at strides that bring them to stride 8. At test time they run at stride 1,
    each score map is enlarged to the image with aligned corners, and the sum is taken there: the same function on
    every eighth pixel.
    """

    config: DeepLabV1Config
    backbone: VGG16

    def __init__(self, backbone: VGG16, num_classes: int, config: DeepLabV1Config | None = None) -> None:
        config = config or DeepLabV1Config()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=1 if config.msc or config.pool_kernel == 2 else STRIDE,
            align_corners=True,
        )
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(config.fc_width, num_classes, 1)
        inputs = (backbone.config.in_channels, *backbone.channels[:-1])
        self.branches = (
            nn.ModuleList(
                SideBranch(channels, num_classes, stride, config)
                for channels, stride in zip(inputs, _SIDE_STRIDES, strict=True)
            )
            if config.msc
            else None
        )
        reach = config.fc6_dilation * (config.fc6_kernel - 1)
        field = TRUNK_FIELD - (3 - config.pool_kernel) * _POOLED_STEPS
        self.receptive_field = field + STRIDE * (reach + 2 * config.pool5a)
        self._init()

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/8, W/8), rounded up on 8n + 1.

        (B, K, H, W) with MSc in evaluation, and with 2x2 poolings.
        """
        maps = self.backbone(images)
        x = F.avg_pool2d(maps[-1], 3, 1, 1) if self.config.pool5a else maps[-1]
        for layer in (self.backbone.fc6, self.backbone.fc7):
            x = self.dropout(torch.relu(layer(x)))
        scores = self.classifier(x)
        if self.config.pool_kernel == 2:
            return SegOutput(_enlarged_and_cropped(scores, images))
        if self.branches is None:
            return SegOutput(scores)
        size = scores.shape[-2:] if self.training else images.shape[-2:]
        total = resize(scores, size, align_corners=True)
        for branch, source in zip(self.branches, (images, *maps[:-1]), strict=True):
            side = cast(SideBranch, branch)(source, strided=self.training)
            total = total + resize(side, size, align_corners=True)
        return SegOutput(total)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest 8n + 1 that hold (height, width): sizes whose last pixel bears a cell.

        8n + 2 with 2x2 poolings, whose cells lie on every eighth pixel from the second one on.
        """
        height, width = super().valid_size(height, width)
        rest = 2 if self.config.pool_kernel == 2 else 1
        return height + (rest - height) % STRIDE, width + (rest - width) % STRIDE

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy at stride 8, against every eighth label (section 3.1); with 2x2 poolings against all."""
        return (Term(name="main", at="logits"),)

    def _init(self) -> None:
        """Published: the scores from N(0, 0.01), the hidden layers of MSc from N(0, 0.001), pool4's 1x1 from 0.005."""
        deviations = {self.classifier: 0.01}
        for index, module in enumerate(self.branches or ()):
            branch = cast(SideBranch, module)
            last = index == len(_SIDE_STRIDES) - 1
            deviations |= {branch.conv: 0.001, branch.fc: 0.005 if last else 0.001, branch.classifier: 0.01}
        for layer, deviation in deviations.items():
            nn.init.normal_(layer.weight, std=deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class SideBranch(nn.Module):
    """MSc's scores of one map: 3x3 convolution, ReLU, dropout, 1x1, ReLU, dropout, 1x1: (B, C, h, w) -> (B, K, h', w').

    The stride of its first convolution holds in training alone (``strided``); without it h' = h and w' = w.
    """

    def __init__(self, in_channels: int, num_classes: int, stride: int, config: DeepLabV1Config) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, config.msc_width, 3, padding=1)
        self.fc = nn.Conv2d(config.msc_width, config.msc_width, 1)
        self.classifier = nn.Conv2d(config.msc_width, num_classes, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, *, strided: bool) -> Tensor:
        stride = self.stride if strided else 1
        x = F.conv2d(x, self.conv.weight, self.conv.bias, stride=stride, padding=1)
        x = self.dropout(torch.relu(x))
        x = self.dropout(torch.relu(self.fc(x)))
        scores: Tensor = self.classifier(x)
        return scores


def _enlarged_and_cropped(scores: Tensor, images: Tensor) -> Tensor:
    """Brings (B, K, m, n) to the image: enlarges to 8m - 7 with aligned corners, crops (config/DeepLab/test.prototxt).

    On 8k + 2 pixels there are m = k + 3 cells, 15 pixels more than the image has: 7 before it and 8 behind it.
    """
    cells, (height, width) = scores.shape[-2:], images.shape[-2:]
    enlarged = resize(scores, ((cells[0] - 1) * STRIDE + 1, (cells[1] - 1) * STRIDE + 1), align_corners=True)
    return enlarged[..., _PLAIN_CROP : _PLAIN_CROP + height, _PLAIN_CROP : _PLAIN_CROP + width]
