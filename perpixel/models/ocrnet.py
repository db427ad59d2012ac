"""OCRNet, object-contextual representations on HRNet (Yuan et al., ECCV 2020, arXiv:1909.11065).

A coarse segmentation says softly where each class lies (soft object regions); the features of each region are gathered
into one vector, and every pixel is described anew by its own features and by the regions that resemble it (figure 3):

    f_k  = sum over pixels i of softmax_i(m_ki) x_i                                         a region
    y_i  = rho(sum over regions k of softmax_k(phi(x_i) . psi(f_k) / sqrt(D)) delta(f_k))   a pixel's context
    z_i  = g([y_i, x_i])                                                                    the pixel, augmented

with m the scores of the auxiliary head (section 3.2). Softmax over *positions* gathers, softmax over *regions*
distributes. Gradients of the last output reach the auxiliary head through the regions. The numbers are those of
HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR; that the paper, too, divides by sqrt(D) is not verified.

| trunk | parameters, 19 classes | GMACs at 1024x2048 |
|---|---:|---:|
| hrnet_w18 | 12,080,818 | 426 |
| hrnet_w32 | 32,953,894 | 767 |
| hrnet_w48 (the default) | 70,372,678 | 1298 |

The GMACs are those of the authors' code. Here, with the same result, the convolution of rho runs on the K regions
before they are distributed, and that of g on its two inputs apart, so that their concatenation is not built.

Shapes: B batch, C channels, D width of the comparison, H W image, h w finest map, K classes and regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from perpixel.backbones import HRNet
from perpixel.errors import InvalidValue
from perpixel.layers import ConvNormAct, init_new_layers
from perpixel.models.hrnet import HRNetTrunkConfig, MixedHead, hard_examples, set_norm_momentum
from perpixel.models.network import Network
from perpixel.ops import conv_of_concat, resize
from perpixel.types import SegOutput, Term

__all__ = ["OCRNet", "OCRNetConfig", "ObjectContext", "gather_regions"]


@dataclass(frozen=True, kw_only=True)
class OCRNetConfig(HRNetTrunkConfig):
    """Widths of the head, and the weight of the auxiliary loss.

    Raises:
        InvalidValue: a width or the weight is not positive, the dropout is not a probability below 1, or a number of
            the base is out of range.
    """

    pixel_width: int = 512
    """Channels of the pixels' features, before and after their context is added."""
    key_width: int = 256
    """D, in which pixels and regions are compared."""
    dropout: float = 0.05
    """Probability of dropping a whole channel of the augmented features."""
    auxiliary_weight: float = 0.4
    """Of the loss on the soft object regions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_width < 1 or self.key_width < 1:
            raise InvalidValue(f"OCRNet widths must be >= 1, got {self.pixel_width} and {self.key_width}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.auxiliary_weight > 0:
            raise InvalidValue(f"auxiliary_weight must be over 0, got {self.auxiliary_weight}")

    @classmethod
    def small(cls) -> Self:
        """A tiny preset for tests and tables."""
        return replace(super().small(), pixel_width=16, key_width=8)


class OCRNet(Network):
    """Scores of the augmented features; ``deep`` holds the scores of the soft object regions."""

    config: OCRNetConfig
    backbone: HRNet

    def __init__(self, backbone: HRNet, num_classes: int, config: OCRNetConfig | None = None) -> None:
        config = config or OCRNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[0],
            align_corners=config.align_corners,
            minimum_size=backbone.strides[-1] + 1,
        )
        self.backbone = backbone
        self.auxiliary_head = MixedHead(backbone.channels, num_classes, align_corners=config.align_corners)
        self.pixels = ConvNormAct(sum(backbone.channels), config.pixel_width, 3, bias=True)
        self.context = ObjectContext(config.pixel_width, config.key_width, config.dropout)
        self.classifier = nn.Conv2d(config.pixel_width, num_classes, 1)
        for part in (self.auxiliary_head, self.pixels, self.context, self.classifier):
            init_new_layers(part)
        set_norm_momentum(self, config.norm_momentum)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up."""
        maps = self.backbone(images)
        regions = self.auxiliary_head(maps)
        pixels = self.pixels(self._concatenated(maps))
        logits = self.classifier(self.context(pixels, gather_regions(pixels, regions)))
        return SegOutput(logits, deep=(regions,) if self.supervised else ())

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy on both outputs, 0.4 of it on the regions; hard pixels, if at all, on the last alone."""
        regions = Term(name="regions", output="deep", weight=self.config.auxiliary_weight)
        return hard_examples(Term(name="main"), self.config), regions

    def _concatenated(self, maps: Sequence[Tensor]) -> Tensor:
        # A 3x3 convolution does not commute with the enlargement; split over the maps it would hold more, not less.
        size = maps[0].shape[-2:]
        return torch.cat([resize(x, size, align_corners=self.config.align_corners) for x in maps], dim=1)


def gather_regions(pixels: Tensor, scores: Tensor) -> Tensor:
    """Returns the features (B, C, K, 1) of each soft region: the mean of pixels (B, C, h, w), weighted.

    The weights are the softmax of a class's scores (B, K, h, w) over all positions (section 3.2).
    """
    shares = scores.flatten(2).softmax(dim=2)  # (B, K, h w)
    return torch.bmm(pixels.flatten(2), shares.transpose(1, 2))[..., None]


class ObjectContext(nn.Module):
    """Pixels (B, C, h, w) and regions (B, C, K, 1) to augmented pixels (B, C, h, w), section 3.2.

    Regions of a batch of one with one class are single values per channel: their norms follow `PooledBatchNorm2d`.
    """

    def __init__(self, channels: int, key_width: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Sequential(ConvNormAct(channels, key_width, 1), ConvNormAct(key_width, key_width, 1))
        self.key = nn.Sequential(
            ConvNormAct(channels, key_width, 1, pooled=True), ConvNormAct(key_width, key_width, 1, pooled=True)
        )
        self.value = ConvNormAct(channels, key_width, 1, pooled=True)
        self.up = ConvNormAct(key_width, channels, 1)
        self.fuse = ConvNormAct(2 * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        context = self.up.act(self.up.norm(self._distributed(pixels, regions)))
        joined = conv_of_concat((context, pixels), self.fuse.conv.weight)
        augmented: Tensor = self.dropout(self.fuse.act(self.fuse.norm(joined)))
        return augmented

    def _distributed(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """The convolution of ``up`` on every pixel's mixture of values; mixing is linear, so it runs on the values."""
        query = self.query(pixels).flatten(2).transpose(1, 2)  # (B, h w, D)
        key = self.key(regions).flatten(2)  # (B, D, K)
        resemblance = torch.bmm(query, key).mul(key.shape[1] ** -0.5).softmax(dim=2)  # (B, h w, K)
        values = self.up.conv(self.value(regions)).flatten(2)  # (B, C, K)
        return torch.bmm(values, resemblance.transpose(1, 2)).view_as(pixels)
