"""Light-Weight RefineNet (Nekrasov et al., BMVC 2018, arXiv:1810.03272): RefineNet whose decoder is of 1x1 kernels.

RefineNet without residual convolution units, every 3x3 convolution but the classifier's being 1x1. What is left is
chained residual pooling at every level, from the coarsest to the finest.

Shapes: B batch, C channels, H W image, K classes; levels at strides 4, 8, 16, 32; scores at stride 4.
The exact function of the public code (DrSleep/light-weight-refinenet), in its two forms:

| form | trunk | options | parameters, 21 classes |
|---|---|---|---|
| ResNet (the default) | resnet50, 101, 152 | none | 27,357,525 with ResNet-50 |
| MobileNet-v2 | drsleep_mobilenet_v2 | `RefineNetLWConfig.mobilenet_v2()` | 3,284,565 |

Maps of the trunk that share a stride meet in one level and are added there: MobileNet-v2's pairs at strides 16 and 32.
The code's initial weights were not read in a source; here new layers are drawn as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import BackboneConfig, Trunk, create_trunk
from perpixel.backbones.mobilenet_v2 import (
    DRSLEEP_MOBILENET_V2,
    MobileNetV2Layout,
    create_mobilenet_v2,
)
from perpixel.errors import InvalidValue
from perpixel.layers import init_new_layers
from perpixel.layers.chained_residual_pooling import ChainedResidualPooling, PoolingOrder
from perpixel.models.network import Network
from perpixel.models.refinenet import DROPOUT_OVER
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["LightLevel", "RefineNetLW", "RefineNetLWConfig", "create_refinenet_lw_trunk"]

_PUBLISHED = MobileNetV2Layout()


@dataclass(frozen=True, kw_only=True)
class RefineNetLWConfig:
    """Widths, pools, and what tells the MobileNet-v2 form from the ResNet form.

    Raises:
        InvalidValue: a number is out of range, the pooling order is unknown, or the MobileNet's table is none.
    """

    width: int = 256
    coarse_width: int = 512
    """Of the coarsest level; 256 with MobileNet-v2."""
    adapt: bool = True
    """A second 1x1 convolution on the maps of all levels but the coarsest; off with MobileNet-v2."""
    relu6: bool = False
    """ReLU6 in place of ReLU before the pooling, as MobileNet-v2 itself has."""
    num_pools: int = 4
    pooling_order: PoolingOrder = "pool_conv"
    dropout: float = 0.5
    """Probability of dropping a single value of maps with more than 512 channels; MobileNet-v2 has none so wide."""
    align_corners: bool = True
    mobilenet_stem: int = _PUBLISHED.stem
    """Channels of MobileNet-v2's first layer; read on that trunk alone."""
    mobilenet_stages: tuple[tuple[int, int, int, int], ...] = _PUBLISHED.stages
    """Its stages as (expansion, channels, blocks, stride); read on that trunk alone."""

    def __post_init__(self) -> None:
        for name in ("width", "coarse_width", "num_pools"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"RefineNet-LW {name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.pooling_order not in ("pool_conv", "conv_pool"):
            raise InvalidValue(f"pooling_order is 'pool_conv' or 'conv_pool', got {self.pooling_order!r}")
        object.__setattr__(self, "mobilenet_stages", self.layout.stages)

    @property
    def layout(self) -> MobileNetV2Layout:
        """MobileNet-v2's, where it is the trunk."""
        return MobileNetV2Layout(stem=self.mobilenet_stem, stages=self.mobilenet_stages)

    @classmethod
    def mobilenet_v2(cls) -> RefineNetLWConfig:
        """The published form on MobileNet-v2."""
        return cls(coarse_width=256, adapt=False, relu6=True)

    @classmethod
    def small(cls) -> RefineNetLWConfig:
        """A tiny preset for tests and tables."""
        return cls(width=32, coarse_width=48, num_pools=2)


def create_refinenet_lw_trunk(backbone: BackboneConfig, config: RefineNetLWConfig) -> Trunk:
    """Builds DrSleep's MobileNet-v2 by the configuration's table, or any other trunk.

    Raises:
        InvalidValue: the trunk is unknown, or cannot be built as asked.
        CheckpointError: its weights cannot be had, or do not fit.
    """
    if backbone.name == DRSLEEP_MOBILENET_V2:
        return create_mobilenet_v2(backbone, config.layout)
    return create_trunk(backbone)


class RefineNetLW(Network):
    """Levels of chained residual pooling, coarsest first, over a trunk; ``deep`` is empty."""

    config: RefineNetLWConfig
    backbone: Trunk

    def __init__(self, backbone: Trunk, num_classes: int, config: RefineNetLWConfig | None = None) -> None:
        config = config or RefineNetLWConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[0],
            align_corners=config.align_corners,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        by_stride = groupby(zip(backbone.strides, backbone.channels, strict=True), key=lambda pair: pair[0])
        entering = [[channels for _, channels in group] for _, group in by_stride][::-1]
        self.levels = nn.ModuleList()
        coarser: int | None = None
        for channels in entering:
            self.levels.append(LightLevel(channels, coarser, config))
            coarser = config.coarse_width if coarser is None else config.width
        self.classifier = nn.Conv2d(coarser or config.width, num_classes, 3, padding=1)
        init_new_layers(self.levels)
        init_new_layers(self.classifier)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up."""
        maps = self.backbone(images)
        x: Tensor | None = None
        last = len(maps)
        for module in self.levels:
            level = cast("LightLevel", module)
            first = last - len(level.laterals)
            x = level(maps[first:last], x)
            last = first
        logits: Tensor = self.classifier(x)
        return SegOutput(logits)

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy."""
        return (Term(name="main"),)


class LightLevel(nn.Module):
    """Adds the trunk's maps of one stride and the coarser level's, each through 1x1 convolutions, and pools them.

    Args:
        channels: Of the trunk's maps.
        coarser: Width of the coarser level, or None.
        config: Widths, pools and form.
    """

    def __init__(self, channels: Sequence[int], coarser: int | None, config: RefineNetLWConfig) -> None:
        super().__init__()
        width = config.coarse_width if coarser is None else config.width
        adapt = config.adapt and coarser is not None
        self.laterals = nn.ModuleList(Lateral(inside, width, config, adapt=adapt) for inside in channels)
        self.coarser = None if coarser is None else nn.Conv2d(coarser, width, 1, bias=False)
        self.pools = ChainedResidualPooling(width, config.num_pools, kernel_size=1, order=config.pooling_order)
        self.relu6 = config.relu6
        self.align_corners = config.align_corners

    def forward(self, maps: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """Maps (B, C_i, h, w) and the coarser level's map to (B, W, h, w)."""
        x: Tensor = self.laterals[0](maps[0])
        for lateral, other in zip(self.laterals[1:], maps[1:], strict=True):
            x = x + lateral(other)
        if coarser is not None and self.coarser is not None:
            x = x + resize(self.coarser(coarser), x.shape[-2:], align_corners=self.align_corners)
        pooled: Tensor = self.pools(F.relu6(x) if self.relu6 else torch.relu(x))
        return pooled


class Lateral(nn.Module):
    """Dropout on wide maps, one or two 1x1 convolutions: (B, C, h, w) -> (B, W, h, w)."""

    def __init__(self, in_channels: int, width: int, config: RefineNetLWConfig, *, adapt: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout if in_channels > DROPOUT_OVER else 0.0)
        self.project = nn.Conv2d(in_channels, width, 1, bias=False)
        self.adapt = nn.Conv2d(width, width, 1, bias=False) if adapt else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.dropout(x))
        return x if self.adapt is None else cast(Tensor, self.adapt(x))
