"""DFN, the Discriminative Feature Network (Yu et al., CVPR 2018, arXiv:1804.09337, figures 2-4, sections 3.1-3.4).

A Smooth Network brings context down from the coarsest stage by channel attention, against inconsistency inside a class;
a Border Network, supervised with class borders, works up from the finest, against confusion between classes.

Shapes: B batch, C channels, H W image, K classes, W width; backbone stages i = 0..3 at strides 4, 8, 16, 32.
By default the exact function of the public code (ycszen/TorchSeg, voc.dfn.R101_v1c). Differs from it in that sizes
follow the backbone's maps (equal for multiples of 32, and any other size works too), scores are returned at their own
resolution, and the refinement block that TorchSeg builds for the finest border stage but never calls is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from perpixel.backbones import Backbone
from perpixel.errors import InvalidValue
from perpixel.layers import ConvNormAct, init_new_layers
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["DFN", "BorderStage", "ChannelAttentionBlock", "DFNConfig", "Head", "RefinementResidualBlock", "SmoothStage"]


@dataclass(frozen=True, kw_only=True)
class DFNConfig:
    """Widths, the switches of the paper's ablation (its tables 2 and 3), and the known alternative forms.

    Raises:
        InvalidValue: a width is not positive, the attention's hidden layer would be empty, or the order is unknown.
    """

    width: int = 512
    border_width: int = 21
    head_expansion: int = 9
    """Hidden channels of a head per class that it scores."""
    refinement_blocks: bool = True
    """Off: a 1x1 convolution stands in for each RRB."""
    global_pooling: bool = True
    channel_attention: bool = True
    """Off: neighbouring stages are added."""
    deep_supervision: bool = True
    border_network: bool = True
    border_loss_weight: float = 0.1
    """The paper's lambda."""
    align_corners: bool = True
    """The public code's. It stretches each stage over the next one by up to a cell; False keeps cells in place."""
    attention_reduction: int = 1
    attention_order: Literal["low_high", "high_low"] = "low_high"
    """Which stage's channels come first in the attention's input; a second public implementation has high_low."""
    biased: bool = False
    """That implementation's RRB: biases in all convolutions and a ReLU behind the heads' RRBs too."""

    def __post_init__(self) -> None:
        for name in ("width", "border_width", "head_expansion", "attention_reduction"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"DFN {name} must be >= 1, got {getattr(self, name)}")
        if self.attention_reduction > self.width:
            raise InvalidValue(f"attention_reduction={self.attention_reduction} leaves nothing of width={self.width}")
        if self.attention_order not in ("low_high", "high_low"):
            raise InvalidValue(f"attention_order is 'low_high' or 'high_low', got {self.attention_order!r}")
        if not self.border_loss_weight > 0:
            raise InvalidValue(
                f"border_loss_weight must be positive, got {self.border_loss_weight}; "
                "border_network=False trains without borders"
            )

    @classmethod
    def small(cls) -> DFNConfig:
        """A tiny preset for tests and tables."""
        return cls(width=16, border_width=4, head_expansion=2)


class DFN(Network):
    """Smooth Network and Border Network over a four-stage backbone.

    ``deep`` holds the three coarser smooth stages, coarse to fine (the finest is ``logits``); ``border`` the border
    stages, finest backbone stage first, all at the finest stage's size. The norm of the global context branch uses its
    running statistics when a batch has one image.
    """

    config: DFNConfig
    backbone: Backbone

    def __init__(self, backbone: Backbone, num_classes: int, config: DFNConfig | None = None) -> None:
        config = config or DFNConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[0],
            align_corners=config.align_corners,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        coarse_first = backbone.channels[::-1]
        last = len(coarse_first) - 1
        self.global_context = (
            ConvNormAct(coarse_first[0], config.width, 1, pooled=True) if config.global_pooling else None
        )
        self.smooth = nn.ModuleList(
            SmoothStage(
                channels,
                num_classes if config.deep_supervision or i == last else None,
                config,
                fuses=i > 0 or config.global_pooling,
            )
            for i, channels in enumerate(coarse_first)
        )
        self.border = (
            nn.ModuleList(BorderStage(channels, config, fuses=i > 0) for i, channels in enumerate(backbone.channels))
            if config.border_network
            else None
        )
        for part in (self.global_context, self.smooth, self.border):
            if part is not None:
                init_new_layers(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up, and the supervised outputs."""
        features = self.backbone(images)
        scores = self._smooth(features)
        if not self.supervised:
            return SegOutput(scores[-1])
        return SegOutput(scores[-1], deep=tuple(scores[:-1]), border=self._border(features))

    def _smooth(self, features: tuple[Tensor, ...]) -> list[Tensor]:
        """Class scores of the stages that have a head in use, coarse to fine."""
        high: Tensor | None = None
        if self.global_context is not None:
            pooled = features[-1].mean(dim=(2, 3), keepdim=True)
            high = self.global_context(pooled).expand(-1, -1, *features[-1].shape[-2:])
        scores = []
        for i, (module, low) in enumerate(zip(self.smooth, reversed(features), strict=True)):
            stage = cast("SmoothStage", module)
            if high is not None:
                high = resize(high, low.shape[-2:], align_corners=self.align_corners)
            high = stage(low, high)
            finest = i == len(self.smooth) - 1
            if stage.head is not None and (finest or self.supervised):
                scores.append(stage.head(high))
        return scores

    def _border(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.border is None:
            return ()
        scores = []
        total: Tensor | None = None
        for module, feature in zip(self.border, features, strict=True):
            stage = cast("BorderStage", module)
            total = stage(feature, total, self.align_corners)
            scores.append(stage.head(total))
        return tuple(scores)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Without aligned corners, sizes over which every stage doubles exactly, as it does in training crops.

        With aligned corners the network is used as published, at any size.
        """
        height, width = super().valid_size(height, width)
        if self.align_corners:
            return height, width
        stride: int = self.backbone.strides[-1]
        return -(-height // stride) * stride, -(-width // stride) * stride

    def default_terms(self) -> tuple[Term, ...]:
        """The paper's loss (section 3.4): softmax loss on every smooth stage, lambda times focal loss on every border.

        The focal loss is the textbook one with TorchSeg's alpha 0.25 and gamma 2; TorchSeg's own is named
        ``torchseg_focal`` in perpixel.losses.
        """
        terms = [Term(name="main")]
        if self.config.deep_supervision:
            terms += [Term(name=f"deep{i}", output="deep", index=i) for i in range(len(self.smooth) - 1)]
        if self.border is not None:
            weight = self.config.border_loss_weight
            terms += [
                Term(name=f"border{i}", output="border", index=i, loss="border_focal", weight=weight)
                for i in range(len(self.border))
            ]
        return tuple(terms)


class SmoothStage(nn.Module):
    """One stage of the Smooth Network: RRB, fusion with the coarser stage by channel attention, RRB, head."""

    def __init__(self, in_channels: int, num_classes: int | None, config: DFNConfig, *, fuses: bool) -> None:
        super().__init__()
        width = config.width
        self.refine_in = _refinement(in_channels, width, config)
        self.attention = ChannelAttentionBlock(width, config) if config.channel_attention and fuses else None
        self.refine_out = _refinement(width, width, config) if config.refinement_blocks else nn.Identity()
        self.head = None if num_classes is None else Head(width, num_classes, config)

    def forward(self, low: Tensor, high: Tensor | None) -> Tensor:
        """Maps the backbone's map (B, C, h, w) and the coarser stage (B, W, h, w) to (B, W, h, w)."""
        x: Tensor = self.refine_in(low)
        if high is not None:
            x = self.attention(x, high) if self.attention is not None else x + high
        out: Tensor = self.refine_out(x)
        return out


class BorderStage(nn.Module):
    """One stage of the Border Network: RRB, sum with the finer stages at the finest size, RRB, head."""

    def __init__(self, in_channels: int, config: DFNConfig, *, fuses: bool) -> None:
        super().__init__()
        width = config.border_width
        self.refine_in = _refinement(in_channels, width, config)
        self.refine_sum = _refinement(width, width, config) if fuses else None
        self.head = Head(width, 1, config)

    def forward(self, feature: Tensor, finer: Tensor | None, align_corners: bool) -> Tensor:
        """Maps the backbone's map (B, C, h, w) and the sum so far (B, W, h0, w0) to the new sum (B, W, h0, w0)."""
        x: Tensor = self.refine_in(feature)
        if finer is None or self.refine_sum is None:
            return x
        out: Tensor = self.refine_sum(finer + resize(x, finer.shape[-2:], align_corners=align_corners))
        return out


class RefinementResidualBlock(nn.Module):
    """RRB (figure 3a): 1x1 convolution to the width, then a residual of conv-BN-ReLU-conv; exactly one batch norm."""

    def __init__(self, in_channels: int, out_channels: int, *, relu: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.residual = ConvNormAct(out_channels, out_channels, 3, bias=bias)
        self.refine = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, W, h, w)."""
        x = self.project(x)
        x = x + self.refine(self.residual(x))
        return torch.relu(x) if self.relu else x


class ChannelAttentionBlock(nn.Module):
    """CAB (figure 3b): both stages, pooled, choose how much of each channel of the finer is kept: low * a + high."""

    def __init__(self, width: int, config: DFNConfig) -> None:
        super().__init__()
        self.low_first = config.attention_order == "low_high"
        hidden = width // config.attention_reduction
        self.weights = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Maps two maps (B, W, h, w) to one."""
        pair = (low, high) if self.low_first else (high, low)
        pooled = torch.cat([x.mean(dim=(2, 3)) for x in pair], dim=1)  # (B, 2W)
        attention = torch.sigmoid(self.weights(pooled))[:, :, None, None]
        return low * attention + high


class Head(nn.Module):
    """RRB without ReLU, then a 1x1 classifier with bias: (B, W, h, w) -> (B, K, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, config: DFNConfig) -> None:
        super().__init__()
        hidden = config.head_expansion * num_classes
        self.refine = RefinementResidualBlock(in_channels, hidden, relu=config.biased, bias=config.biased)
        self.classifier = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.refine(x))
        return scores


def _refinement(in_channels: int, out_channels: int, config: DFNConfig) -> nn.Module:
    if config.refinement_blocks:
        return RefinementResidualBlock(in_channels, out_channels, bias=config.biased)
    return nn.Conv2d(in_channels, out_channels, 1, bias=config.biased)
