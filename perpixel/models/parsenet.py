"""ParseNet: the image's mean feature beside every local one (Liu, Rabinovich, Berg, 2015, arXiv:1506.04579, section 3).

A reduced VGG16 as in DeepLab LargeFOV gives local features of 1024 channels at stride 8. Their mean over the image is
the global context. Both are L2-normalised with a learned scale per channel, for features of different layers differ in
size by orders of magnitude, and both are scored: side by side by one classifier (early fusion), or each by its own and
added (late fusion).

Shapes: B batch, C channels, H W image, K classes, h w feature map at stride 8 (8n + 1 pixels give n + 1 cells).
There is no reference vector. Shapes and parameters, derived by hand from the specification (3 channels, K = 21):

============== ========================== ============== ==========
layer          maps to                    weights        parameters
============== ========================== ============== ==========
conv1_1…5_3    (B, 512, h, w)             VGG16's        14,714,688
fc6, 3x3, r 12 (B, 1024, h, w)            9·512·1024     4,719,616
fc7, 1x1       (B, 1024, h, w)            1024·1024      1,049,600
two L2 norms   (B, 1024, h, w), (…, 1, 1) scales         2,048
early: 1x1     (B, K, h, w)               2048·K         43,029
late: two 1x1  (B, K, h, w), (…, 1, 1)    2·1024·K       43,050
============== ========================== ============== ==========

That makes 20,528,981 parameters for early and 20,529,002 for late fusion. With one linear classifier the two compute
the same family of functions: the early classifier's columns are the two late ones, its bias their sum.
Recalled, not verified in a source, hence options: the scale's initial value of 10, that the context is pooled from fc7,
LargeFOV's average pooling behind pool5, aligned corners and the loss at stride 8 (DeepLab's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, Pool, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.layers.l2_norm import L2Norm
from perpixel.models.network import Network
from perpixel.types import SegOutput, Term

__all__ = ["FUSIONS", "GlobalContextHead", "ParseNet", "ParseNetConfig"]

FUSIONS = ("early", "late")
_SOURCES = ("pool3", "pool4", "pool5", "fc6", "fc7")
_CLASSIFIER_STD = 0.01


@dataclass(frozen=True, kw_only=True)
class ParseNetConfig:
    """How the context is made and fused, and the widths of the trunk.

    Raises:
        InvalidValue: a choice is unknown, a number not positive, or the dropout no probability below 1.
    """

    fusion: Literal["early", "late"] = "early"
    normalize: bool = True
    """Off: features are fused as they are, which the paper shows to lose what context gives."""
    scale: float = 10.0
    """Initial value of the learned scales; recalled, not verified."""
    context_from: Literal["pool3", "pool4", "pool5", "fc6", "fc7"] = "fc7"
    """Layer whose mean over the image is the context; recalled, not verified."""
    average_pooling: bool = True
    """A 3x3 average behind pool5, as in LargeFOV; not verified for ParseNet."""
    align_corners: bool = True
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 1024
    rate: int = 12
    """Dilation of fc6, which pads by as much."""
    dropout: float = 0.5
    """Probability of dropping one value behind fc6 and fc7."""

    def __post_init__(self) -> None:
        for name, allowed in (("fusion", FUSIONS), ("context_from", _SOURCES)):
            if getattr(self, name) not in allowed:
                raise InvalidValue(f"{name} of ParseNet is one of {allowed}, got {getattr(self, name)!r}")
        for name in ("width", "fc_width", "rate"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"ParseNet {name} must be >= 1, got {getattr(self, name)}")
        if not self.scale > 0:
            raise InvalidValue(f"ParseNet scale must be over 0, got {self.scale}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that this network stands on."""
        halving = Pool(kernel=3, stride=2, padding=1)
        keeping = Pool(kernel=3, stride=1, padding=1)
        return VGG16Layout(
            width=self.width,
            pools=(halving, halving, halving, keeping, keeping),
            dilations=(1, 1, 1, 1, 2),
            fully_connected=FullyConnected(kernel=3, dilation=self.rate, padding=self.rate, width=self.fc_width),
        )

    @classmethod
    def small(cls) -> ParseNetConfig:
        """A tiny preset for tests and tables."""
        return cls(width=8, fc_width=32, rate=2, dropout=0.1)


class ParseNet(Network):
    """Reduced VGG16 with global context.

    Raises:
        InvalidValue: the trunk has no fc6 and fc7.
    """

    config: ParseNetConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: ParseNetConfig | None = None) -> None:
        config = config or ParseNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=trunk.strides[-1],
            align_corners=config.align_corners,
        )
        if trunk.layout.fully_connected is None:
            raise InvalidValue("ParseNet reads fc7, and this vgg16 has none: build it with the config's layout")
        self.backbone = trunk
        self.average5 = nn.AvgPool2d(3, 1, padding=1) if config.average_pooling else nn.Identity()
        self.drop6 = nn.Dropout(config.dropout)
        self.drop7 = nn.Dropout(config.dropout)
        local = trunk.layout.fully_connected.width
        pooled = trunk.channels[int(config.context_from[-1]) - 1] if config.context_from.startswith("pool") else local
        self.head = GlobalContextHead(local, pooled, num_classes, config)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, h, w)."""
        maps = self.backbone(images)
        fc6 = self.drop6(self.backbone.fc6(self.average5(maps[-1])).relu())
        fc7 = self.drop7(self.backbone.fc7(fc6).relu())
        named = {"pool3": maps[2], "pool4": maps[3], "pool5": maps[4], "fc6": fc6, "fc7": fc7}
        return SegOutput(self.head(fc7, named[self.config.context_from]))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest 8n + 1 that hold (height, width): the first and last cell lie on corner pixels."""
        height, width = super().valid_size(height, width)
        return height + (1 - height) % self.logit_stride, width + (1 - width) % self.logit_stride

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy at stride 8, as the DeepLab that it stands on is trained (not verified for ParseNet)."""
        return (Term(name="main", at="logits"),)


class GlobalContextHead(nn.Module):
    """Scores local features together with the mean of others over the image (section 3.2 and figure 2).

    Args:
        local_channels: C of the features that are scored where they stand.
        context_channels: C' of the features that are averaged.
        num_classes: K.
        config: Fusion, normalisation and scale.
    """

    def __init__(self, local_channels: int, context_channels: int, num_classes: int, config: ParseNetConfig) -> None:
        super().__init__()
        self.local_norm = L2Norm(local_channels, config.scale) if config.normalize else nn.Identity()
        self.context_norm = L2Norm(context_channels, config.scale) if config.normalize else nn.Identity()
        early = config.fusion == "early"
        self.classifier = nn.Conv2d(local_channels + (context_channels if early else 0), num_classes, 1)
        self.late = None if early else nn.Sequential()
        if self.late is not None:
            self.late.add_module("classifier", nn.Conv2d(context_channels, num_classes, 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=_CLASSIFIER_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, local: Tensor, source: Tensor) -> Tensor:
        """Maps (B, C, h, w) and (B, C', h', w') to scores (B, K, h, w)."""
        local = self.local_norm(local)
        context: Tensor = self.context_norm(source.mean(dim=(2, 3), keepdim=True))  # (B, C', 1, 1)
        if self.late is not None:
            late: Tensor = self.classifier(local) + self.late(context)
            return late
        everywhere = context.expand(-1, -1, *local.shape[-2:])
        early: Tensor = self.classifier(torch.cat([local, everywhere], dim=1))
        return early
