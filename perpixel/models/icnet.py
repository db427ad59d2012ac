"""ICNet, the Image Cascade Network (Zhao et al., ECCV 2018, arXiv:1704.08545, figures 2 and 3, sections 4.1-4.3).

A cheap look at the whole image in full resolution, a deeper one at half of it and the deepest at a quarter, fused from
the coarsest to the finest. The two deeper branches share their first layers.

| form | options | parameters, 19 classes |
|---|---|---|
| the published network (default) | width 32: half of a ResNet-50 | 6,707,321 |
| the one it was pruned from | width 64 | 26,749,113 |
| liminn/ICNet-pytorch | a timm ResNet as backbone, other options as its importer has them | 26,249,376 on ResNet-50 |

Shapes: B batch, C channels, H W image, K classes, W width.
The function of the authors' Caffe network (hszhao/ICNet, icnet_cityscapes_bnnomerge.prototxt) at 32n + 1 pixels; at
other sizes every map takes the size of the one that it meets. Classifiers and the projection of the pooled maps stand
before the enlargements behind which the published network has them: these commute with 1x1 convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import Backbone, BackboneConfig, ICNetTrunk, TwoScaleTrunk, create_icnet_trunk
from perpixel.errors import InvalidValue
from perpixel.layers import ConvNorm, init_new_layers
from perpixel.models.channel_groups import ChannelGroup
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.ops.icnet_pooling import ICNetPooling, pool_icnet
from perpixel.types import SegOutput, Term

__all__ = ["CascadeFeatureFusion", "DetailBranch", "ICNet", "ICNetConfig", "icnet_trunk"]


@dataclass(frozen=True, kw_only=True)
class ICNetConfig:
    """Width, and where the authors' network and its ports differ.

    Raises:
        InvalidValue: a number is not positive, or a choice is unknown.
    """

    width: int = 32
    """Channels of the first layer; all others are multiples of it. 32 is the published, pruned network, 64 the full."""
    stride_on_1x1: bool = True
    """Where the third stage strides: in its first 1x1 convolution (the authors) or in the 3x3 (pytorch-semseg)."""
    pooling: ICNetPooling = "published"
    """The windows of the pyramid pooling: `ops.icnet_pooling.pool_icnet`."""
    context_projection: bool = True
    """A 1x1 convolution to 8W channels behind the pyramid pooling."""
    guidance: Literal["enlarged", "dilated"] = "enlarged"
    """What a fusion's auxiliary classifier reads: its enlarged coarse input, or what the dilated convolution makes."""
    classifier_bias: bool = True
    merged_norms: bool = False
    """Biases in place of batch norms: the release in which these were folded into the convolutions. For use as it is:
    it cannot train from random weights."""
    loss_weights: tuple[float, float, float] = (0.16, 0.4, 1.0)
    """Of the scores at 1/16, 1/8 and 1/4 (cascade label guidance)."""
    norm_momentum: float = 0.05
    """Share of a batch in the running statistics; the authors' 0.05, PyTorch's ports 0.1."""
    align_corners: bool = True

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InvalidValue(f"ICNet width must be >= 1, got {self.width}")
        if self.pooling not in get_args(ICNetPooling):
            raise InvalidValue(f"pooling is one of {', '.join(get_args(ICNetPooling))}, got {self.pooling!r}")
        if self.guidance not in ("enlarged", "dilated"):
            raise InvalidValue(f"guidance is 'enlarged' or 'dilated', got {self.guidance!r}")
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))
        if len(self.loss_weights) != 3 or min(self.loss_weights) <= 0:
            raise InvalidValue(f"loss_weights are three positive numbers (1/16, 1/8, 1/4), got {self.loss_weights}")
        if not 0 < self.norm_momentum <= 1:
            raise InvalidValue(f"norm_momentum must lie in (0, 1], got {self.norm_momentum}")

    @classmethod
    def small(cls) -> ICNetConfig:
        """A tiny preset for tests and tables."""
        return cls(width=8)


def icnet_trunk(backbone: BackboneConfig, config: ICNetConfig) -> ICNetTrunk | TwoScaleTrunk:
    """Builds the trunk that the two configurations describe; raises as `create_icnet_trunk`."""
    return create_icnet_trunk(
        backbone,
        width=config.width,
        stride_on_1x1=config.stride_on_1x1,
        merged=config.merged_norms,
        norm_momentum=config.norm_momentum,
    )


class ICNet(Network):
    """Three branches, fused twice; ``deep`` holds the scores at 1/16 and at 1/8 of the image."""

    config: ICNetConfig
    backbone: ICNetTrunk | TwoScaleTrunk

    def __init__(
        self, backbone: ICNetTrunk | TwoScaleTrunk | Backbone, num_classes: int, config: ICNetConfig | None = None
    ) -> None:
        config = config or ICNetConfig()
        trunk = TwoScaleTrunk(backbone) if isinstance(backbone, Backbone) else backbone
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=4,
            align_corners=config.align_corners,
            minimum_size=trunk.minimum_size,
        )
        self.backbone = trunk
        finer, coarser = trunk.channels
        width = 4 * config.width
        self.context = _conv_norm(coarser, 2 * width, 1, config) if config.context_projection else None
        low = 2 * width if config.context_projection else coarser
        self.fuse24 = CascadeFeatureFusion(low, finer, width, num_classes, config)
        self.detail = DetailBranch(trunk.config.in_channels, config)
        self.fuse12 = CascadeFeatureFusion(width, 2 * config.width, width, num_classes, config)
        self.classifier = nn.Conv2d(width, num_classes, 1, bias=config.classifier_bias)
        for part in (self.context, self.fuse24, self.detail, self.fuse12, self.classifier):
            if part is not None:
                init_new_layers(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up."""
        finer, coarser = self.backbone(images)
        sub24, scores16 = self.fuse24(self._with_context(coarser), finer, supervised=self.supervised)
        detail, size = self.detail(images)
        sub12, scores8 = self.fuse12(sub24, detail, supervised=self.supervised)
        logits = resize(self.classifier(sub12), size, align_corners=self.align_corners)
        return SegOutput(logits, deep=(*scores16, *scores8))

    def _with_context(self, x: Tensor) -> Tensor:
        """Adds the map's averages over 1, 2, 3 and 6 bins to itself, enlarged, and projects the sum."""
        pooled = pool_icnet(x, self.config.pooling)
        size = x.shape[-2:]
        if self.context is None:
            for cells in pooled:
                x = x + resize(cells, size, align_corners=self.align_corners)
            return x
        # The projection is linear: each summand is projected where it is smallest, the bias is added once.
        conv = self.context.conv
        x = conv(x)
        for cells in pooled:
            x = x + resize(F.conv2d(cells, conv.weight), size, align_corners=self.align_corners)
        return torch.relu(self.context.norm(x))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """With aligned corners the sizes at which all branches meet exactly: 32n + 1, for two-pass trunks 32n."""
        height, width = super().valid_size(height, width)
        return self.backbone.valid_size(height, width) if self.align_corners else (height, width)

    def default_terms(self) -> tuple[Term, ...]:
        """Cascade label guidance (section 4.3): cross-entropy at 1/4, 1/8 and 1/16, each at its own resolution."""
        sub4, sub24, sub124 = self.config.loss_weights
        return (
            Term(name="main", weight=sub124, at="logits"),
            Term(name="sub24", output="deep", index=1, weight=sub24, at="logits"),
            Term(name="sub4", output="deep", index=0, weight=sub4, at="logits"),
        )

    def narrowed(self, keep: float) -> ICNetConfig:
        """Returns the configuration with a share of the width.

        Raises:
            InvalidValue: ``keep`` is not in (0, 1), or leaves no whole number of channels.
        """
        wanted = self.config.width * keep
        if not 0 < keep < 1 or abs(wanted - round(wanted)) > 1e-6 or round(wanted) < 1:
            raise InvalidValue(
                f"keep={keep:g} of width {self.config.width} leaves {wanted:g} channels; keep a share in (0, 1) that "
                "leaves a whole number, such as 0.5"
            )
        return replace(self.config, width=round(wanted))

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Returns what belongs together in the authors' network.

        Raises:
            InvalidValue: the backbone is one of timm's, whose widths are fixed.
        """
        if not isinstance(self.backbone, ICNetTrunk):
            raise InvalidValue(
                f"the backbone {self.backbone.config.name!r} is made in one width and cannot be pruned; the ICNet with "
                f"its own trunk (backbone icnet_resnet50) can"
            )
        return (*_trunk_groups(self.backbone, self._readers(3), self._readers(5)), *self._head_groups())

    def _readers(self, stage: int) -> tuple[str, ...]:
        """Convolutions outside the trunk that read what a stage makes."""
        if stage == 3:
            return ("fuse24.high.conv",)
        return ("context.conv",) if self.context is not None else self.fuse24.readers("fuse24")

    def _head_groups(self) -> tuple[ChannelGroup, ...]:
        groups = [
            _group("detail.conv1", "detail.conv2.conv"),
            _group("detail.conv2", "detail.conv3.conv"),
            _group("detail.conv3", "fuse12.high.conv"),
        ]
        if self.context is not None:
            groups.append(_group("context", *self.fuse24.readers("fuse24")))
        for name, read_by in (("fuse24", self.fuse12.readers("fuse12")), ("fuse12", ("classifier",))):
            made_by = (f"{name}.low", f"{name}.high")
            own = (f"{name}.classifier",) if self.config.guidance == "dilated" else ()
            scored_by = tuple(f"{part}.conv" for part in made_by)
            groups.append(ChannelGroup(made_by=made_by, read_by=(*read_by, *own), scored_by=scored_by))
        return tuple(groups)


class CascadeFeatureFusion(nn.Module):
    """CFF (figure 3): the coarse map enlarged, through a dilated 3x3; the fine one through a 1x1; their sum, ReLU."""

    def __init__(
        self, low_channels: int, high_channels: int, width: int, num_classes: int, config: ICNetConfig
    ) -> None:
        super().__init__()
        self.align_corners = config.align_corners
        self.reads_input = config.guidance == "enlarged"
        self.low = _conv_norm(low_channels, width, 3, config, dilation=2)
        self.high = _conv_norm(high_channels, width, 1, config)
        scored = low_channels if self.reads_input else width
        self.classifier = nn.Conv2d(scored, num_classes, 1, bias=config.classifier_bias)

    def forward(self, low: Tensor, high: Tensor, *, supervised: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Maps (B, C, h, w) and (B, C', h', w') to (B, W, h', w'), and to scores (B, K, h', w') when supervised."""
        size = high.shape[-2:]
        dilated = self.low(resize(low, size, align_corners=self.align_corners))
        fused = F.relu(dilated + self.high(high), inplace=True)
        if not supervised:
            return fused, ()
        scores = self.classifier(low if self.reads_input else dilated)
        return fused, (resize(scores, size, align_corners=self.align_corners),)

    def readers(self, name: str) -> tuple[str, ...]:
        """Returns the convolutions that read the coarse map, given the name of this module."""
        return (f"{name}.low.conv", f"{name}.classifier") if self.reads_input else (f"{name}.low.conv",)


class DetailBranch(nn.Module):
    """Three 3x3 convolutions of stride 2 on the whole image (the paper's bottom branch)."""

    def __init__(self, in_channels: int, config: ICNetConfig) -> None:
        super().__init__()
        width = config.width
        self.conv1 = _conv_norm(in_channels, width, 3, config, stride=2)
        self.conv2 = _conv_norm(width, width, 3, config, stride=2)
        self.conv3 = _conv_norm(width, 2 * width, 3, config, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, torch.Size]:
        """Maps images (B, C, H, W) to (B, 2W, H/8, W/8), and returns the size of the map at 1/4 too."""
        x = F.relu(self.conv1(images), inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        size = x.shape[-2:]
        return F.relu(self.conv3(x), inplace=True), size


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int, config: ICNetConfig, **options: Any) -> ConvNorm:
    return ConvNorm(
        in_channels,
        out_channels,
        kernel_size,
        momentum=config.norm_momentum,
        merged=config.merged_norms,
        **options,
    )


def _group(maker: str, *readers: str) -> ChannelGroup:
    return ChannelGroup(made_by=(maker,), read_by=readers, scored_by=(f"{maker}.conv",))


def _trunk_groups(trunk: ICNetTrunk, readers3: tuple[str, ...], readers5: tuple[str, ...]) -> tuple[ChannelGroup, ...]:
    """The stem's layers, the two hidden maps of every block, and the sum that runs through each stage.

    What the shortcut makes is in every sum of its stage, so its kernels decide (Li et al., arXiv:1608.08710,
    section 3.3).
    """
    names = {stage: [f"backbone.conv{stage}.{i}" for i in range(trunk.num_blocks(stage))] for stage in (2, 3, 4, 5)}
    first = {stage: (f"{blocks[0]}.reduce.conv", f"{blocks[0]}.shortcut.conv") for stage, blocks in names.items()}
    groups = [
        _group("backbone.conv1_1", "backbone.conv1_2.conv"),
        _group("backbone.conv1_2", "backbone.conv1_3.conv"),
        _group("backbone.conv1_3", *first[2]),
    ]
    outside: dict[int, tuple[str, ...]] = {3: readers3, 5: readers5}
    for stage, blocks in names.items():
        for block in blocks:
            groups.append(_group(f"{block}.reduce", f"{block}.conv3x3.conv"))
            groups.append(_group(f"{block}.conv3x3", f"{block}.increase.conv"))
        groups.append(
            ChannelGroup(
                made_by=(f"{blocks[0]}.shortcut", *(f"{block}.increase" for block in blocks)),
                read_by=(
                    *(f"{block}.reduce.conv" for block in blocks[1:]),
                    *first.get(stage + 1, ()),
                    *outside.get(stage, ()),
                ),
                scored_by=(f"{blocks[0]}.shortcut.conv",),
            )
        )
    return tuple(groups)
