"""DeepLab v3+ (Chen et al., ECCV 2018, arXiv:1802.02611, section 3, figures 2 and 4).

DeepLab v3 as an encoder; a decoder enlarges its output to stride 4, puts it beside a map of that stride, reduced to 48
channels, and mixes the two. The defaults are the form of the authors' TensorFlow code on Xception; ports differ:

| | atrous_rates | separable | decoder | concatenation | refine | align_corners |
|---|---|---|---|---|---|---|
| authors | 6, 12, 18 | both, with a norm inside | 2 convolutions | high, low | no | yes |
| VainF | 6, 12, 18 (12, 24, 36 at output stride 8) | none, or both without norm | 1 | low, high | no | no |
| smp | 12, 24, 36 at output stride 16 | both, without norm | 1 | high, low | yes | yes |

Shapes: B batch, C channels, H W image, K classes.
Differs from the authors' code on Xception in the map of stride 4: theirs is taken before a ReLU, timm's behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.backbones import Trunk
from perpixel.errors import InvalidValue
from perpixel.layers import ASPP, ConvNormAct, SpatialConv, init_new_layers
from perpixel.models.backbone_maps import stage_of_stride
from perpixel.models.deeplab_v3 import ImageSides, check_choices, padded_side, set_norm_momentum
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["DeepLabV3Plus", "DeepLabV3PlusConfig"]

LOW_STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class DeepLabV3PlusConfig:
    """Rates, widths and the forms in which the ports differ.

    Raises:
        InvalidValue: a width or count is not positive, a rate below 1, the dropout no probability below 1, or a choice
            unknown.
    """

    atrous_rates: tuple[int, ...] = (6, 12, 18)
    """Dilation of each ASPP branch at output stride 16; the paper doubles them at 8."""
    width: int = 256
    separable_aspp: bool = True
    separable_decoder: bool = True
    """Depthwise separable convolutions in the decoder and in ``refine``."""
    separable_norm: bool = True
    """A batch norm and a ReLU inside a separable convolution (the authors'; ports have none)."""
    refine: bool = False
    """One more 3x3 block behind the ASPP (smp)."""
    dropout: float = 0.1
    """Probability of dropping a value that the ASPP returns."""
    low_width: int = 48
    decoder_width: int = 256
    decoder_convolutions: int = 2
    concatenation: Literal["high_low", "low_high"] = "high_low"
    """Whose channels come first in the decoder: those of the encoder or those of the map of stride 4."""
    align_corners: bool = True
    """For the encoder's output inside, and for the scores."""
    image_sides: ImageSides = "multiple_plus_one"
    """Sides to which inference pads images: ``multiple_plus_one`` (S n + 1 for output stride S, over which aligned
    corners keep cells in place), ``multiple`` (S n) or ``any``."""
    norm_momentum: float | None = None
    """Share of a batch in the running statistics of every batch norm (the authors: 3e-4); None: each layer's own."""
    backbone_norm_momentum: float | None = None
    """The same for the backbone alone (VainF: 0.01); None: as ``norm_momentum``."""

    def __post_init__(self) -> None:
        if not self.atrous_rates or min(self.atrous_rates) < 1:
            raise InvalidValue(f"atrous_rates needs one rate >= 1 per branch, got {list(self.atrous_rates)}")
        for name in ("width", "low_width", "decoder_width", "decoder_convolutions"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"DeepLab v3+ {name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.concatenation not in ("high_low", "low_high"):
            raise InvalidValue(f"concatenation is 'high_low' or 'low_high', got {self.concatenation!r}")
        check_choices(self.image_sides, self.norm_momentum, self.backbone_norm_momentum)

    @classmethod
    def small(cls) -> DeepLabV3PlusConfig:
        """A tiny preset for tests and tables: narrow, rates for small maps."""
        return cls(atrous_rates=(1, 2, 3), width=16, low_width=8, decoder_width=16, image_sides="multiple")


class DeepLabV3Plus(Network):
    """Scores the decoder's output at stride 4.

    Raises:
        InvalidValue: the backbone gives no map of stride 4, or no other.
    """

    config: DeepLabV3PlusConfig
    backbone: Trunk

    def __init__(self, backbone: Trunk, num_classes: int, config: DeepLabV3PlusConfig | None = None) -> None:
        config = config or DeepLabV3PlusConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=LOW_STRIDE,
            align_corners=config.align_corners,
            minimum_size=2 * max(backbone.strides),
        )
        self.backbone = backbone
        self.low_stage = stage_of_stride(backbone, LOW_STRIDE, reader="the decoder of DeepLab v3+")
        forms = {
            part: SpatialConv(separable=separable, norm_between=config.separable_norm)
            for part, separable in (("aspp", config.separable_aspp), ("decoder", config.separable_decoder))
        }
        self.aspp = ASPP(
            backbone.channels[-1], config.width, config.atrous_rates, conv=forms["aspp"], dropout=config.dropout
        )
        self.refine = forms["decoder"].block(config.width, config.width) if config.refine else nn.Identity()
        self.low = ConvNormAct(backbone.channels[self.low_stage], config.low_width, 1)
        widths = [config.width + config.low_width, *[config.decoder_width] * config.decoder_convolutions]
        self.decoder = nn.Sequential(*(forms["decoder"].block(*pair) for pair in pairwise(widths)))
        self.classifier = nn.Conv2d(config.decoder_width, num_classes, 1)
        for part in (self.aspp, self.refine, self.low, self.decoder, self.classifier):
            init_new_layers(part)
        set_norm_momentum(self, config.norm_momentum)
        set_norm_momentum(backbone, config.backbone_norm_momentum)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up."""
        low, high = self._maps(images)
        low = self.low(low)
        high = self.refine(self.aspp(high))
        return SegOutput(self.classifier(self.decoder(self._joined(high, low))))

    def _maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The map of stride 4 and the coarsest; those between them are let go of here."""
        features = self.backbone(images)
        return features[self.low_stage], features[-1]

    def _joined(self, high: Tensor, low: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], align_corners=self.align_corners)
        # Joined, not split as elsewhere: the enlarged map is let go of here, where two 3x3 sums would keep it.
        pair = (high, low) if self.config.concatenation == "high_low" else (low, high)
        return torch.cat(pair, dim=1)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest sides of the form that ``image_sides`` asks for and that hold (height, width)."""
        height, width = super().valid_size(height, width)
        stride, rule = self.backbone.strides[-1], self.config.image_sides
        return padded_side(height, stride, rule), padded_side(width, stride, rule)

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy at the target's size."""
        return (Term(name="main"),)
