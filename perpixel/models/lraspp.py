"""LR-ASPP, the lite segmentation head of MobileNet-v3 (Howard et al., ICCV 2019, arXiv:1905.02244, section 6.4).

The coarsest map, projected, is weighted channel by channel with what it looks like as a whole, and scored; a map of
stride 8 is scored by itself, and the two are added. By default the function of torchvision's lraspp_mobilenet_v3_large.
The scores of the coarse map are enlarged, in place of its channels: a 1x1 convolution and bilinear interpolation
commute, and there are fewer classes than channels.

Shapes: B batch, C channels, H W image, K classes, W width, h w coarsest map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import Trunk
from perpixel.errors import InvalidValue
from perpixel.layers import ConvNormAct, init_new_layers
from perpixel.models.backbone_maps import stage_of_stride
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["LRASPP", "LRASPPConfig"]

LOW_STRIDE = 8
WINDOW, WINDOW_STRIDE = (49, 49), (16, 20)


@dataclass(frozen=True, kw_only=True)
class LRASPPConfig:
    """Width and the two known forms of the pooling.

    Raises:
        InvalidValue: the width is not positive, or the pooling unknown.
    """

    width: int = 128
    pooling: Literal["global", "window"] = "global"
    """What the channels are weighted by: the mean of the whole map (torchvision), or means of windows of 49x49 cells,
    16 and 20 cells apart and enlarged again (the paper; recalled, not read in a source, and checked by no vector)."""
    align_corners: bool = False

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InvalidValue(f"LR-ASPP width must be >= 1, got {self.width}")
        if self.pooling not in ("global", "window"):
            raise InvalidValue(f"pooling is 'global' or 'window', got {self.pooling!r}")

    @classmethod
    def small(cls) -> LRASPPConfig:
        """A tiny preset for tests and tables."""
        return cls(width=16)


class LRASPP(Network):
    """Scores at stride 8.

    Raises:
        InvalidValue: the backbone gives no map of stride 8, or no other.
    """

    config: LRASPPConfig
    backbone: Trunk

    def __init__(self, backbone: Trunk, num_classes: int, config: LRASPPConfig | None = None) -> None:
        config = config or LRASPPConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=LOW_STRIDE,
            align_corners=config.align_corners,
            minimum_size=2 * max(backbone.strides),
        )
        self.backbone = backbone
        self.low_stage = stage_of_stride(backbone, LOW_STRIDE, reader="LR-ASPP")
        self.project = ConvNormAct(backbone.channels[-1], config.width, 1)
        self.weights = nn.Conv2d(backbone.channels[-1], config.width, 1, bias=False)
        self.low_classifier = nn.Conv2d(backbone.channels[self.low_stage], num_classes, 1)
        self.high_classifier = nn.Conv2d(config.width, num_classes, 1)
        for part in (self.project, self.weights, self.low_classifier, self.high_classifier):
            init_new_layers(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/8, W/8), rounded up."""
        features = self.backbone(images)
        low, high = features[self.low_stage], features[-1]
        weighted = self.project(high) * self._attention(high)
        scores = resize(self.high_classifier(weighted), low.shape[-2:], align_corners=self.align_corners)
        return SegOutput(self.low_classifier(low) + scores)

    def _attention(self, high: Tensor) -> Tensor:
        """Weights in (0, 1): (B, C, h, w) -> (B, W, 1, 1), or (B, W, h, w) from windows."""
        if self.config.pooling == "global":
            return torch.sigmoid(self.weights(high.mean(dim=(2, 3), keepdim=True)))
        size = high.shape[-2:]
        window = (min(WINDOW[0], size[0]), min(WINDOW[1], size[1]))
        pooled = F.avg_pool2d(high, window, WINDOW_STRIDE)
        return resize(torch.sigmoid(self.weights(pooled)), size, align_corners=self.align_corners)

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy at the target's size."""
        return (Term(name="main"),)
