"""RefineNet (Lin et al., CVPR 2017, arXiv:1611.06612, sections 3.1-3.3, figures 2 and 3): multi-path refinement.

Every stage of a ResNet that was never dilated enters a RefineNet block, together with what the coarser block made:
residual convolution units (RCU), multi-resolution fusion, chained residual pooling (CRP), RCUs again. No batch norm.

Shapes: B batch, C channels, H W image, K classes; stages at strides 4, 8, 16, 32; scores at stride 4.
By default the exact function of the public code (DrSleep/refinenet-pytorch, whose layers are those of the authors'
MatConvNet code): four blocks, four pools. The paper has two pools, 2 RCUs in front of every input, one behind every
block and 2 more before the classifier. In front of the map that comes from a coarser block there are then 1 + 2 RCUs in
a row, and 1 + 2 at the end: the 3 that the code has behind every block, so ``output_units`` 3 is both.

Differs from the authors' code in that maps are enlarged bilinearly (theirs: bicubically, with a gradient that is not
the adjoint) and images enter at their own scale (theirs: enlarged by 1.2; ``scales`` 1.2 gives that).
Not verified in a source: of the variants with one block, with two, and with two scales, the widths (here the rule of
the four-block form), and of the last the scales 1.2 and 0.6 and that each scale has a trunk of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import Trunk
from perpixel.errors import InvalidValue
from perpixel.layers.chained_residual_pooling import ChainedResidualPooling, PoolingOrder
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = [
    "MultiResolutionFusion",
    "RefineNet",
    "RefineNetBlock",
    "RefineNetConfig",
    "ResidualConvUnit",
    "TrunkPerScale",
]

DROPOUT_OVER = 512
"""Channels above which a map of the trunk goes through dropout: the last two stages of a bottleneck ResNet."""


@dataclass(frozen=True, kw_only=True)
class RefineNetConfig:
    """Blocks, scales, units and widths.

    Raises:
        InvalidValue: a number is out of range, the scales do not fall, or the pooling order is unknown.
    """

    width: int = 256
    coarse_width: int = 512
    """Of the coarsest stage's path, and of the block that has it alone."""
    cascades: int = 4
    """Blocks: one per stage as published; 2 or 1 are the paper's variants, whose blocks take 2 or all 4 stages."""
    scales: tuple[float, ...] = (1.0,)
    """Of the image, the largest first: it sets the resolution. The paper's two-scale variant: 1.2, 0.6."""
    shared_trunk: bool = False
    """With several scales: one trunk for all of them, in place of one each."""
    input_units: int = 2
    """RCUs in front of every map of the trunk."""
    output_units: int = 3
    """RCUs behind the pooling of every block."""
    num_pools: int = 4
    """Of a CRP: 4 in the published code, 2 in the paper."""
    pooling_order: PoolingOrder = "pool_conv"
    """``conv_pool`` is the authors' improved pooling: NYUD, Person-Part, Context, SUN, ADE20K."""
    dropout: float = 0.5
    """Probability of dropping a single value of the trunk's wide maps, and before the classifier."""
    align_corners: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "coarse_width", "cascades", "num_pools"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"RefineNet {name} must be >= 1, got {getattr(self, name)}")
        if min(self.input_units, self.output_units) < 0:
            raise InvalidValue(f"numbers of RCUs must be >= 0, got {self.input_units} and {self.output_units}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        falling = all(first > second for first, second in pairwise(self.scales))
        if not self.scales or self.scales[-1] <= 0 or not falling:
            raise InvalidValue(f"scales must be positive and fall, the largest first, got {list(self.scales)}")
        if self.pooling_order not in ("pool_conv", "conv_pool"):
            raise InvalidValue(f"pooling_order is 'pool_conv' or 'conv_pool', got {self.pooling_order!r}")

    @classmethod
    def small(cls) -> RefineNetConfig:
        """A tiny preset for tests and tables."""
        return cls(width=16, coarse_width=32, input_units=1, output_units=1, num_pools=2)


class RefineNet(Network):
    """A cascade of RefineNet blocks, coarsest first, over a four-stage trunk; ``deep`` is empty.

    With scales other than 1 the cells of the scores are those of the enlarged image: the exact stride is 4 divided by
    the largest scale, ``logit_stride`` that number rounded.

    Raises:
        InvalidValue: the trunk's stages cannot be shared out evenly among the blocks.
    """

    config: RefineNetConfig
    backbone: Trunk | TrunkPerScale

    def __init__(self, backbone: Trunk, num_classes: int, config: RefineNetConfig | None = None) -> None:
        config = config or RefineNetConfig()
        stages = len(backbone.channels)
        if stages % config.cascades:
            raise InvalidValue(
                f"cascades={config.cascades} cannot share out the {stages} stages of the trunk; "
                f"take a divisor of {stages} or another backbone.num_stages"
            )
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=max(1, round(backbone.strides[0] / config.scales[0])),
            align_corners=config.align_corners,
            minimum_size=math.ceil(2 * backbone.strides[-1] / min(1.0, config.scales[-1])),
        )
        one_each = len(config.scales) > 1 and not config.shared_trunk
        self.backbone = TrunkPerScale(backbone, len(config.scales)) if one_each else backbone
        self.blocks = nn.ModuleList()
        taken = stages // config.cascades
        coarser: int | None = None
        for last in range(stages - 1, -1, -taken):
            channels = backbone.channels[last - taken + 1 : last + 1]
            block = RefineNetBlock(channels, coarser, config, coarsest=coarser is None)
            self.blocks.append(block)
            coarser = block.width
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(block.width, num_classes, 3, padding=1)
        for part in (self.blocks, self.classifier):
            _init_as_published(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up."""
        pyramids = self._pyramids(images)
        x: Tensor | None = None
        last = len(pyramids[0])
        for module in self.blocks:
            block = cast("RefineNetBlock", module)
            first = last - block.num_stages
            x = block([maps[stage] for stage in range(first, last) for maps in pyramids], x)
            last = first
        logits: Tensor = self.classifier(self.dropout(x))
        return SegOutput(logits)

    def _pyramids(self, images: Tensor) -> list[tuple[Tensor, ...]]:
        """The trunk's maps, finest stage first, for every scale of the image."""
        height, width = images.shape[-2:]
        aligned = self.config.align_corners
        copies = []
        for scale in self.config.scales:
            size = (_scaled(height, scale), _scaled(width, scale))
            copies.append(images if scale == 1 else resize(images, size, align_corners=aligned))
        if isinstance(self.backbone, TrunkPerScale):
            pyramids: list[tuple[Tensor, ...]] = self.backbone(copies)
            return pyramids
        return [self.backbone(image) for image in copies]

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy."""
        return (Term(name="main"),)


class TrunkPerScale(nn.Module):
    """One trunk for every scale of the image, all with the same weights at first.

    Attributes:
        config, strides, channels, preprocessing, notes: Those of the trunk.
    """

    def __init__(self, trunk: Trunk, count: int) -> None:
        super().__init__()
        self.config = trunk.config
        self.strides = trunk.strides
        self.channels = trunk.channels
        self.preprocessing = trunk.preprocessing
        self.notes = trunk.notes
        self.trunks = nn.ModuleList([trunk, *(copy.deepcopy(trunk) for _ in range(count - 1))])

    def forward(self, copies: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Maps the image's copies, one per trunk, to a tuple of feature maps each."""
        return [trunk(image) for trunk, image in zip(self.trunks, copies, strict=True)]


class RefineNetBlock(nn.Module):
    """RefineNet-m (figure 3): adapts every map, fuses them at the largest one's size, pools, refines.

    Args:
        channels: Of the trunk's stages that enter, finest first; each comes once per scale.
        coarser: Width of the coarser block's map that enters too, or None.
        config: Units, pools and widths.
        coarsest: Whether the last of the stages is the trunk's last.

    Attributes:
        num_stages: Of the trunk, that it takes.
        width: Channels of what it returns.
    """

    def __init__(
        self, channels: Sequence[int], coarser: int | None, config: RefineNetConfig, *, coarsest: bool
    ) -> None:
        super().__init__()
        self.num_stages = len(channels)
        widths = [config.width] * len(channels)
        if coarsest:
            widths[-1] = config.coarse_width
        self.width = widths[0]
        pairs = [pair for pair in zip(channels, widths, strict=True) for _ in config.scales]
        self.inputs = nn.ModuleList(InputPath(inside, width, config) for inside, width in pairs)
        entering = [width for _, width in pairs] + ([] if coarser is None else [coarser])
        self.fusion = (
            MultiResolutionFusion(entering, self.width, align_corners=config.align_corners)
            if len(entering) > 1
            else None
        )
        self.pools = ChainedResidualPooling(self.width, config.num_pools, order=config.pooling_order)
        self.output = _units(self.width, config.output_units)

    def forward(self, maps: Sequence[Tensor], coarser: Tensor | None) -> Tensor:
        """Maps (B, C_i, h_i, w_i), the largest first, and the coarser block's map to (B, W, h_0, w_0)."""
        paths: list[Tensor] = [path(x) for path, x in zip(self.inputs, maps, strict=True)]
        if coarser is not None:
            paths.append(coarser)
        x = paths[0] if self.fusion is None else self.fusion(paths)
        refined: Tensor = self.output(self.pools(torch.relu(x)))
        return refined


class InputPath(nn.Module):
    """Dropout on wide maps, 3x3 convolution to the width, RCUs: (B, C, h, w) -> (B, W, h, w)."""

    def __init__(self, in_channels: int, width: int, config: RefineNetConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout if in_channels > DROPOUT_OVER else 0.0)
        self.project = _conv3x3(in_channels, width, bias=False)
        self.units = _units(width, config.input_units)

    def forward(self, x: Tensor) -> Tensor:
        adapted: Tensor = self.units(self.project(self.dropout(x)))
        return adapted


class ResidualConvUnit(nn.Module):
    """RCU (figure 3b): x + second(relu(first(relu(x)))), (B, C, h, w) -> (B, C, h, w); ``first`` has the bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv3x3(channels, channels, bias=True)
        self.second = _conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first(torch.relu(x)), inplace=True)
        return x + cast(Tensor, self.second(inner))


class MultiResolutionFusion(nn.Module):
    """Convolves every map to one width, enlarges it to the first one's size, and adds them all (figure 3c).

    Maps (B, C_i, h_i, w_i) become one (B, W, h_0, w_0); convolutions run before the enlargement.
    """

    def __init__(self, in_channels: Sequence[int], width: int, *, align_corners: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv3x3(inside, width, bias=False) for inside in in_channels)
        self.align_corners = align_corners

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        total: Tensor = self.convs[0](maps[0])
        for conv, x in zip(self.convs[1:], maps[1:], strict=True):
            total = total + resize(conv(x), size, align_corners=self.align_corners)
        return total


def _conv3x3(in_channels: int, out_channels: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


def _units(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualConvUnit(channels) for _ in range(count)))


def _scaled(side: int, scale: float) -> int:
    """Side of a scaled image, rounded; whole numbers only, so that exported graphs keep it for any side."""
    share = Fraction(scale).limit_denominator(100)
    return (side * share.numerator + share.denominator // 2) // share.denominator


def _init_as_published(part: nn.Module) -> None:
    """N(0, 0.01), biases 0, as the authors' code draws its new layers."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
