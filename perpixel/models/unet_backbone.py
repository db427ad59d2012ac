"""U-Net's decoder on a classification network (Ronneberger et al., MICCAI 2015, arXiv:1505.04597, on timm's trunks).

The exact function of the U-Net of segmentation_models.pytorch (0.6): the trunk's maps are the contracting path; each
block of the expanding one doubles the map (nearest neighbour), puts the trunk's map of that size behind it and
convolves twice; a 3x3 convolution scores the last map, at the image's size. The trunk's maps at strides 2 to 32 take
``num_stages=5`` of its configuration. A trunk whose finest map is coarser is doubled without a skipped map from there.

Shapes: B batch, C channels, H W image, K classes, w_i width of block i, coarsest first.
Differs from that library in that sizes follow the trunk's maps, so that any size works (equal for multiples of the
trunk's largest stride, the only ones that it takes), and the attention that it builds but never calls in blocks
without a skipped map is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import Backbone
from perpixel.errors import InvalidValue
from perpixel.layers.doubling_conv import Doubled, DoublingConv2d
from perpixel.layers.parts_conv import PartsConv2d
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["DecoderBlock", "SpatialChannelExcitation", "UNetBackbone", "UNetBackboneConfig"]


@dataclass(frozen=True, kw_only=True)
class UNetBackboneConfig:
    """Widths of the decoder and its published variants.

    Raises:
        InvalidValue: a number is not positive where it must be, or a choice is unknown.
    """

    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    """Channels of each block, coarsest first; one for every doubling from the coarsest map to the image."""
    norm: bool = True
    """Off: no batch norm in the decoder, and biases in its convolutions."""
    attention: Literal["none", "scse"] = "none"
    """``scse``: spatial and channel excitation of what enters and of what leaves a block (arXiv:1808.08127)."""
    attention_reduction: int = 16
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    """How maps are doubled; bilinear does not align corners."""
    center: bool = False
    """Two convolution blocks on the coarsest map, before the decoder: that library's on VGG trunks."""
    closing_width: int = 0
    """Channels of a 1x1 convolution block with ReLU6 on the coarsest map, 0 for none: MobileNet-v2's last layer (1280),
    which that library counts to its trunk."""

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise InvalidValue(f"widths are one positive number per block, coarsest first, got {list(self.widths)}")
        if self.attention not in ("none", "scse"):
            raise InvalidValue(f"attention is 'none' or 'scse', got {self.attention!r}")
        if self.interpolation not in ("nearest", "bilinear"):
            raise InvalidValue(f"interpolation is 'nearest' or 'bilinear', got {self.interpolation!r}")
        if self.attention_reduction < 1 or self.closing_width < 0:
            raise InvalidValue(
                f"attention_reduction must be >= 1 and closing_width >= 0, got {self.attention_reduction} and "
                f"{self.closing_width}"
            )

    @classmethod
    def small(cls) -> UNetBackboneConfig:
        """A tiny preset for tests and tables."""
        return cls(widths=(32, 24, 16, 12, 8))


class UNetBackbone(Network):
    """The trunk's maps, joined from the coarsest to the image's size; ``deep`` is empty.

    24,439,269 parameters on ResNet-34 with 21 classes.
    """

    config: UNetBackboneConfig
    backbone: Backbone

    def __init__(self, backbone: Backbone, num_classes: int, config: UNetBackboneConfig | None = None) -> None:
        config = config or UNetBackboneConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=1,
            align_corners=False,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        skipped = [*backbone.channels[-2::-1], *[0] * (backbone.strides[0].bit_length() - 1)]
        if len(config.widths) != len(skipped):
            raise InvalidValue(
                f"unet_backbone needs {len(skipped)} widths for the backbone's strides {list(backbone.strides)}, one "
                f"per step from the coarsest map to the image, got {list(config.widths)}"
            )
        coarsest = config.closing_width or backbone.channels[-1]
        self.closing = _closing(backbone.channels[-1], coarsest) if config.closing_width else None
        self.center = (
            nn.Sequential(
                *(
                    _conv_block(nn.Conv2d(coarsest, coarsest, 3, padding=1, bias=not config.norm), config)
                    for _ in range(2)
                )
            )
            if config.center
            else None
        )
        self.blocks = nn.ModuleList(
            DecoderBlock(below, skip, width, config)
            for below, skip, width in zip((coarsest, *config.widths), skipped, config.widths, strict=False)
        )
        self.classifier = nn.Conv2d(config.widths[-1], num_classes, 3, padding=1)
        _init_decoder(self)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        maps = list(self.backbone(images))
        height, width = images.shape[-2:]
        x = maps.pop()
        for layers in (self.closing, self.center):
            if layers is not None:
                x = layers(x)
        stride = self.backbone.strides[0]
        for block in self.blocks:
            if maps:
                skipped = maps.pop()
                x = block(x, skipped, skipped.shape[-2:])  # (B, w_i, h_i, w_i)
                continue
            stride //= 2
            x = block(x, None, (-(-height // stride), -(-width // stride)))
        logits: Tensor = self.classifier(x)
        return SegOutput(logits)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Multiples of the trunk's largest stride, over which every map doubles exactly."""
        height, width = super().valid_size(height, width)
        stride: int = self.backbone.strides[-1]
        return -(-height // stride) * stride, -(-width // stride) * stride

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy; that library trains nothing itself and states no loss."""
        return (Term(name="main"),)


class DecoderBlock(nn.Module):
    """Enlarges a map, joins the skipped one and convolves twice: (B, C, h, w), (B, C', h', w') -> (B, w_i, h', w').

    The first convolution reads [enlarged, skipped]. Without attention it is computed in two parts, one for each, and
    their concatenation is never made; nor is the enlarged map where it is the coarse one doubled by nearest neighbour.
    """

    def __init__(self, below: int, skipped: int, width: int, config: UNetBackboneConfig) -> None:
        super().__init__()
        excites = config.attention == "scse"
        reduction = config.attention_reduction
        self.interpolation = config.interpolation
        self.excite_in = SpatialChannelExcitation(below + skipped, reduction) if excites and skipped else None
        doubles = self.interpolation == "nearest" and self.excite_in is None
        bias = not config.norm
        self.first = _conv_block(
            DoublingConv2d(below, skipped, width, bias=bias)
            if doubles
            else PartsConv2d(below + skipped, width, 3, padding=1, bias=bias),
            config,
        )
        self.second = _conv_block(nn.Conv2d(width, width, 3, padding=1, bias=bias), config)
        self.excite_out = SpatialChannelExcitation(width, reduction) if excites else None

    def forward(self, x: Tensor, skipped: Tensor | None, size: tuple[int, int] | torch.Size) -> Tensor:
        """``size`` is the skipped map's, or that of the map to make where there is none."""
        x = self._first(x, skipped, (size[0], size[1]))  # nothing else holds the enlarged map, the largest of all
        out: Tensor = self.second(x)
        return out if self.excite_out is None else cast(Tensor, self.excite_out(out))

    def _first(self, x: Tensor, skipped: Tensor | None, size: tuple[int, int]) -> Tensor:
        if isinstance(self.first[0], DoublingConv2d) and size == (2 * x.shape[-2], 2 * x.shape[-1]):
            return cast(Tensor, self.first(Doubled(x, skipped)))
        if self.interpolation == "nearest":
            x = F.interpolate(x, size=size, mode="nearest")
        else:
            x = resize(x, size, align_corners=False)
        if skipped is None:
            return cast(Tensor, self.first(x))
        if self.excite_in is not None:
            return cast(Tensor, self.first(self.excite_in(torch.cat((x, skipped), dim=1))))
        return cast(Tensor, self.first((x, skipped)))


class SpatialChannelExcitation(nn.Module):
    """scSE (Roy et al., 2018, arXiv:1808.08127): x * channel weights + x * pixel weights: (B, C, h, w) -> the same.

    Raises:
        InvalidValue: the reduction leaves the hidden layer nothing.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        if channels < reduction:
            raise InvalidValue(f"attention_reduction={reduction} leaves nothing of {channels} channels")
        hidden = channels // reduction
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
        )
        self.pixel = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        by_channel = torch.sigmoid(self.channel(x.mean(dim=(2, 3), keepdim=True)))  # (B, C, 1, 1)
        by_pixel = torch.sigmoid(self.pixel(x))  # (B, 1, h, w)
        return x * by_channel + x * by_pixel


def _conv_block(conv: nn.Conv2d, config: UNetBackboneConfig) -> nn.Sequential:
    norm = [nn.BatchNorm2d(conv.out_channels)] if config.norm else []
    return nn.Sequential(conv, *norm, nn.ReLU(inplace=True))


def _closing(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU6(inplace=True)
    )


def _init_decoder(network: UNetBackbone) -> None:
    """That library's: Kaiming uniform (fan-in, ReLU) in the decoder, Xavier uniform in the classifier, no biases."""
    for part in (network.closing, network.center, network.blocks):
        for layer in part.modules() if part is not None else ():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, mode="fan_in", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    nn.init.xavier_uniform_(network.classifier.weight)
    if network.classifier.bias is not None:
        nn.init.zeros_(network.classifier.bias)
