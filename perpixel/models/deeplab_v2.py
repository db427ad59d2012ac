"""DeepLab v2 (Chen et al., PAMI 2018, arXiv:1606.00915, sections 3.1, 3.2 and 4.1): parallel dilated scores, summed.

Atrous spatial pyramid pooling (ASPP, figure 4): branches that differ in dilation score the same map, and their scores
are added. On VGG16 a branch is fc6 (3x3, dilated), fc7 and the classifier; on ResNet-101 one dilated 3x3 convolution
straight to the classes. Three scales of the image (1, 0.5, 0.75) are fused by the largest score of each class.

| form | options | parameters, 21 classes |
|---|---|---|
| ResNet-101, ASPP-L (the default) | atrous_rates 6, 12, 18, 24 | 44,048,532 |
| ASPP-S | atrous_rates 2, 4, 8, 12 | the same |
| LargeFOV | atrous_rates 12 | fewer |
| one 1x1 classifier (kazuto1011's DeepLabV1_ResNet101) | atrous_rates 1, kernel_size 1, multi_scale off | 42,543,189 |
| VGG16 | backbone vgg16; any rates | 37,877,652 with four branches |

Shapes: B batch, C channels, H W image, K classes, S further scales. As in DeepLab v1 a cell of the scores lies on every
eighth pixel. The public code that the numbers are checked against (kazuto1011/deeplab-pytorch) does not align corners
where it enlarges scores; the authors' Caffe does. Both are options, for the image and for the scales inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import (
    CAFFE_RESNETS,
    VGG16,
    BackboneConfig,
    CaffeResNet,
    FullyConnected,
    VGG16Layout,
    create_caffe_resnet,
    create_vgg16,
)
from perpixel.errors import InvalidValue, nearest
from perpixel.layers import init_new_layers
from perpixel.models.deeplab_v1 import TRUNK_FIELD, deeplab_layout
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["DeepLabV2", "DeepLabV2Config", "VGGBranch", "create_deeplab_v2_trunk"]

STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class DeepLabV2Config:
    """Branches, scales, widths.

    Raises:
        InvalidValue: there is no branch, a number is not positive, the kernel is even, or a scale is not in (0, 1).
    """

    atrous_rates: tuple[int, ...] = (6, 12, 18, 24)
    """Dilation of each branch (ASPP-L)."""
    kernel_size: int = 3
    """Of each branch's dilated convolution."""
    branch_width: int = 1024
    """Channels of fc6 and fc7 in each branch; read on VGG16 alone."""
    dropout: float = 0.5
    """Probability of dropping a single value behind fc6 and fc7; read on VGG16 alone."""
    multi_scale: bool = True
    """Fuse the scores of the image with those of smaller copies."""
    scales: tuple[float, ...] = (0.5, 0.75)
    """Of the smaller copies; read when ``multi_scale`` is on."""
    align_corners: bool = True
    """How scores are brought to the image: the authors' Caffe aligns corners, its port to PyTorch does not."""
    scales_align_corners: bool = False
    """How smaller copies are made and their scores enlarged; True, the authors' Caffe, is checked by no vector."""
    norm_momentum: float = 0.001
    """Share of a batch in the running statistics of a ResNet; the published training freezes them."""
    width: int = 64
    """Channels of the trunk's first layer."""

    def __post_init__(self) -> None:
        if not self.atrous_rates or min(self.atrous_rates) < 1:
            raise InvalidValue(f"atrous_rates needs one rate >= 1 per branch, got {list(self.atrous_rates)}")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InvalidValue(f"kernel_size must be odd, to keep sizes, got {self.kernel_size}")
        for name in ("branch_width", "width"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"DeepLab v2 {name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1 or not 0 < self.norm_momentum <= 1:
            raise InvalidValue(
                f"dropout must lie in [0, 1) and norm_momentum in (0, 1], got {self.dropout} and {self.norm_momentum}"
            )
        if self.multi_scale and not (self.scales and all(0 < scale < 1 for scale in self.scales)):
            raise InvalidValue(
                f"scales are those of smaller copies, in (0, 1), got {list(self.scales)}; multi_scale=False has none"
            )

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that it stands on; its fc6 and fc7 become those of the branches."""
        fc = FullyConnected(kernel=self.kernel_size, padding=self.kernel_size // 2, width=self.branch_width)
        return deeplab_layout(self.width, fc)

    @classmethod
    def small(cls) -> DeepLabV2Config:
        """A tiny preset for tests and tables: narrow, rates for small images, statistics that follow."""
        return cls(atrous_rates=(1, 2, 4), branch_width=32, width=8, norm_momentum=0.1)


def create_deeplab_v2_trunk(backbone: BackboneConfig, config: DeepLabV2Config) -> VGG16 | CaffeResNet:
    """Builds a trunk that DeepLab v2 was published on, in its form.

    Raises:
        InvalidValue: it is another trunk, or it is asked for strides that the network sets.
        CheckpointError: its weights cannot be had, or do not fit.
    """
    known = ("vgg16", *CAFFE_RESNETS)
    if backbone.name not in known:
        near = nearest(backbone.name, known, end=".")
        raise InvalidValue(
            f"deeplab_v2 is built on {', '.join(known)}, got backbone {backbone.name!r}{near} Other trunks serve "
            "other networks"
        )
    if backbone.name == "vgg16":
        return create_vgg16(backbone, config.layout)
    return create_caffe_resnet(backbone, output_stride=STRIDE, width=config.width, norm_momentum=config.norm_momentum)


class DeepLabV2(Network):
    """ASPP at stride 8, fused over scales.

    ``logits`` holds the largest score of each class over the scales; ``deep`` the scores of the image and then of its
    smaller copies, in the order of ``scales`` (1x, 0.5x, 0.75x), at their own sizes. Without ``multi_scale`` there is
    one scale and ``deep`` is empty.
    """

    config: DeepLabV2Config
    backbone: VGG16 | CaffeResNet

    def __init__(self, backbone: VGG16 | CaffeResNet, num_classes: int, config: DeepLabV2Config | None = None) -> None:
        config = config or DeepLabV2Config()
        smallest = min(config.scales) if config.multi_scale else 1.0
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[-1],
            align_corners=config.align_corners,
            minimum_size=math.ceil(STRIDE / smallest),
        )
        self.backbone = backbone
        if isinstance(backbone, VGG16):
            field = TRUNK_FIELD
            self.branches = _vgg_branches(backbone, num_classes, config)
        else:
            field = backbone.receptive_field
            self.branches = nn.ModuleList(
                ResidualBranch(backbone.channels[-1], num_classes, rate, config) for rate in config.atrous_rates
            )
        field += STRIDE * max(config.atrous_rates) * (config.kernel_size - 1)
        self.receptive_field = math.ceil((field + 1) / smallest) if config.multi_scale else field

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/8, W/8), rounded up on 8n + 1 pixels."""
        scores = self._scores(images)
        if not self.config.multi_scale:
            return SegOutput(scores)
        smaller = [self._scores(self._shrunk(images, scale)) for scale in self.config.scales]
        aligned = self.config.scales_align_corners
        enlarged = [resize(x, scores.shape[-2:], align_corners=aligned) for x in smaller]
        fused = reduce(torch.maximum, enlarged, scores)
        return SegOutput(fused, deep=(scores, *smaller) if self.supervised else ())

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """With aligned corners the smallest 8n + 1 that hold (height, width), whose last pixel bears a cell."""
        height, width = super().valid_size(height, width)
        if not self.align_corners:
            return height, width
        return height + (1 - height) % STRIDE, width + (1 - width) % STRIDE

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy on the fused scores and on those of every scale, each at its own size (section 4.1)."""
        terms = [Term(name="main", at="logits")]
        if self.config.multi_scale:
            names = ("scale1", *(f"scale{scale:g}" for scale in self.config.scales))
            terms += [Term(name=name, output="deep", index=i, at="logits") for i, name in enumerate(names)]
        return tuple(terms)

    def _scores(self, images: Tensor) -> Tensor:
        features = self.backbone(images)[-1]
        scores: list[Tensor] = [branch(features) for branch in self.branches]
        return reduce(torch.add, scores)

    def _shrunk(self, images: Tensor, scale: float) -> Tensor:
        if self.config.scales_align_corners:
            height, width = (int((side - 1) * scale) + 1 for side in images.shape[-2:])
            return resize(images, (height, width), align_corners=True)
        # By the factor itself, not by the ratio of the rounded sizes: coordinates differ where the product is odd.
        return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


class ResidualBranch(nn.Module):
    """One dilated convolution to the classes: (B, C, h, w) -> (B, K, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, rate: int, config: DeepLabV2Config) -> None:
        super().__init__()
        self.classifier = _dilated(in_channels, num_classes, rate, config)
        _init_scores(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(x)
        return scores


class VGGBranch(nn.Module):
    """fc6 (dilated), fc7 and classifier, ReLU and dropout behind the first two: (B, C, h, w) -> (B, K, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, rate: int, config: DeepLabV2Config) -> None:
        super().__init__()
        self.fc6 = _dilated(in_channels, config.branch_width, rate, config)
        self.fc7 = nn.Conv2d(config.branch_width, config.branch_width, 1)
        self.classifier = nn.Conv2d(config.branch_width, num_classes, 1)
        self.dropout = nn.Dropout(config.dropout)
        init_new_layers(nn.ModuleList((self.fc6, self.fc7)))
        _init_scores(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(torch.relu(self.fc6(x)))
        x = self.dropout(torch.relu(self.fc7(x)))
        scores: Tensor = self.classifier(x)
        return scores


def _vgg_branches(backbone: VGG16, num_classes: int, config: DeepLabV2Config) -> nn.ModuleList:
    """Each branch begins with the trunk's fc6 and fc7 where these are trained ones (assumed; the paper is silent)."""
    branches = [VGGBranch(backbone.channels[-1], num_classes, rate, config) for rate in config.atrous_rates]
    trained = backbone.release_fully_connected()
    if trained is not None and backbone.config.weights != "none":
        for branch in branches:
            branch.fc6.load_state_dict(trained[0].state_dict())
            branch.fc7.load_state_dict(trained[1].state_dict())
    return nn.ModuleList(branches)


def _dilated(in_channels: int, out_channels: int, rate: int, config: DeepLabV2Config) -> nn.Conv2d:
    padding = rate * (config.kernel_size // 2)
    return nn.Conv2d(in_channels, out_channels, config.kernel_size, padding=padding, dilation=rate)


def _init_scores(layer: nn.Conv2d) -> None:
    """Published: N(0, 0.01), bias 0."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
