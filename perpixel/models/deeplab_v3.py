"""DeepLab v3 (Chen et al. 2017, arXiv:1706.05587, sections 3.1-3.3, figures 3 and 5).

A residual network whose last stages are dilated in place of strided (output stride 16 or 8), with its own dilation per
block of the last stage (multi-grid: `BackboneConfig.multi_grid`), then atrous spatial pyramid pooling with image
pooling, then one classifier. The defaults are the form of the authors' TensorFlow code; ports differ, and so do the
options that their importers choose:

| | atrous_rates | refine | dropout | auxiliary head | align_corners |
|---|---|---|---|---|---|
| authors (16) | 6, 12, 18 (twice as much at output stride 8) | no | 0.1 | none | yes |
| torchvision (8; MobileNet-v3: 16) | 12, 24, 36 | yes | 0.5 | yes | no |
| VainF (16 or 8) | 6, 12, 18 or 12, 24, 36 | yes | 0.1 | none | no |
| PyTorch-Encoding (8) | 12, 24, 36 | yes | 0.5 (channels), then 0.1 | yes | yes |

Shapes: B batch, C channels, H W image, K classes, S the output stride.
Image pooling takes the mean of the whole map. The authors' code pools over a window of the size of its training crops
(513 pixels), which is the same for images no larger than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from perpixel.backbones import Trunk
from perpixel.errors import InvalidValue
from perpixel.layers import ASPP, FCNHead, SpatialConv, init_new_layers
from perpixel.models.network import Network
from perpixel.types import SegOutput, Term

__all__ = ["DeepLabV3", "DeepLabV3Config", "ImageSides", "check_choices", "padded_side", "set_norm_momentum"]

ImageSides = Literal["any", "multiple", "multiple_plus_one"]
_IMAGE_SIDES = ("any", "multiple", "multiple_plus_one")


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Config:
    """Rates, widths and the forms in which the ports differ.

    Raises:
        InvalidValue: a width or the auxiliary weight is not positive, a rate below 1, the auxiliary stage not negative,
            a dropout no probability below 1, or a choice unknown.
    """

    atrous_rates: tuple[int, ...] = (6, 12, 18)
    """Dilation of each ASPP branch at output stride 16; the paper doubles them at 8."""
    width: int = 256
    separable: bool = False
    """Depthwise separable convolutions in the ASPP and behind it."""
    separable_norm: bool = True
    """A batch norm and a ReLU inside a separable convolution (the authors'; ports have none)."""
    refine: bool = False
    """One more 3x3 block between the ASPP and the classifier."""
    dropout: float = 0.1
    """Probability of dropping a value that the ASPP returns."""
    drop_channels: bool = False
    """Drop whole channels in place of single values there."""
    refine_dropout: float = 0.0
    """Probability of dropping a value that ``refine`` returns."""
    auxiliary: bool = False
    auxiliary_width: int = 256
    auxiliary_stage: int = -2
    """Which map of the backbone the auxiliary head reads, counted from the end."""
    auxiliary_weight: float = 0.5
    align_corners: bool = True
    image_sides: ImageSides = "multiple_plus_one"
    """Sides to which inference pads images: ``multiple_plus_one`` (S n + 1, over which aligned corners keep cells in
    place), ``multiple`` (S n) or ``any``."""
    norm_momentum: float | None = None
    """Share of a batch in the running statistics of every batch norm (the authors: 3e-4); None: each layer's own."""
    backbone_norm_momentum: float | None = None
    """The same for the backbone alone (VainF: 0.01); None: as ``norm_momentum``."""

    def __post_init__(self) -> None:
        if not self.atrous_rates or min(self.atrous_rates) < 1:
            raise InvalidValue(f"atrous_rates needs one rate >= 1 per branch, got {list(self.atrous_rates)}")
        if self.width < 1 or self.auxiliary_width < 1:
            raise InvalidValue(f"DeepLab v3 widths must be >= 1, got {self.width} and {self.auxiliary_width}")
        if not (0 <= self.dropout < 1 and 0 <= self.refine_dropout < 1):
            raise InvalidValue(f"dropouts must lie in [0, 1), got {self.dropout} and {self.refine_dropout}")
        if not self.auxiliary_weight > 0:
            raise InvalidValue(f"auxiliary_weight must be > 0, got {self.auxiliary_weight}; auxiliary=False has none")
        if self.auxiliary_stage >= 0:
            raise InvalidValue(f"auxiliary_stage counts maps from the end, -1 the last, got {self.auxiliary_stage}")
        check_choices(self.image_sides, self.norm_momentum, self.backbone_norm_momentum)

    @classmethod
    def small(cls) -> DeepLabV3Config:
        """A tiny preset for tests and tables: narrow, rates for small maps."""
        return cls(
            atrous_rates=(1, 2, 3), width=16, refine=True, auxiliary=True, auxiliary_width=8, image_sides="multiple"
        )


def check_choices(image_sides: str, *momenta: float | None) -> None:
    """Refuses what neither v3 nor v3+ knows.

    Raises:
        InvalidValue: the rule for sides is unknown, or a momentum is not in (0, 1].
    """
    if image_sides not in _IMAGE_SIDES:
        raise InvalidValue(f"image_sides is one of {', '.join(_IMAGE_SIDES)}, got {image_sides!r}")
    for momentum in momenta:
        if momentum is not None and not 0 < momentum <= 1:
            raise InvalidValue(f"momenta of batch norms lie in (0, 1], got {momentum}; None leaves each layer its own")


class DeepLabV3(Network):
    """Scores the ASPP's output at the output stride; ``deep`` holds the auxiliary head's scores, if there is one.

    Raises:
        InvalidValue: the backbone gives no map that ``auxiliary_stage`` names.
    """

    config: DeepLabV3Config
    backbone: Trunk

    def __init__(self, backbone: Trunk, num_classes: int, config: DeepLabV3Config | None = None) -> None:
        config = config or DeepLabV3Config()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[-1],
            align_corners=config.align_corners,
            minimum_size=2 * max(backbone.strides),
        )
        self.backbone = backbone
        conv = SpatialConv(separable=config.separable, norm_between=config.separable_norm)
        self.aspp = ASPP(
            backbone.channels[-1],
            config.width,
            config.atrous_rates,
            conv=conv,
            dropout=config.dropout,
            drop_channels=config.drop_channels,
        )
        self.refine = conv.block(config.width, config.width) if config.refine else nn.Identity()
        self.dropout = nn.Dropout(config.refine_dropout)
        self.classifier = nn.Conv2d(config.width, num_classes, 1)
        self.auxiliary_head = _auxiliary_head(backbone, num_classes, config) if config.auxiliary else None
        for name, part in self.named_children():
            if name != "backbone":
                init_new_layers(part)
        set_norm_momentum(self, config.norm_momentum)
        set_norm_momentum(backbone, config.backbone_norm_momentum)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/S, W/S), rounded up."""
        features = self.backbone(images)
        logits = self.classifier(self.dropout(self.refine(self.aspp(features[-1]))))
        if self.auxiliary_head is None or not self.supervised:
            return SegOutput(logits)
        return SegOutput(logits, deep=(self.auxiliary_head(features[self.config.auxiliary_stage]),))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """The smallest sides of the form that ``image_sides`` asks for and that hold (height, width)."""
        height, width = super().valid_size(height, width)
        stride, rule = self.backbone.strides[-1], self.config.image_sides
        return padded_side(height, stride, rule), padded_side(width, stride, rule)

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy at the target's size (section 4.1), and its share on the auxiliary head where there is one."""
        main = Term(name="main")
        if self.auxiliary_head is None:
            return (main,)
        return main, Term(name="auxiliary", output="deep", weight=self.config.auxiliary_weight)


def padded_side(side: int, stride: int, rule: ImageSides) -> int:
    """Returns the smallest side >= ``side`` that the rule allows, in pixels."""
    if rule == "any":
        return side
    return side + ((rule == "multiple_plus_one") - side) % stride


def set_norm_momentum(module: nn.Module, momentum: float | None) -> None:
    """Sets the share of a batch in the running statistics of every batch norm inside; None leaves them as they are."""
    if momentum is None:
        return
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum


def _auxiliary_head(backbone: Trunk, num_classes: int, config: DeepLabV3Config) -> FCNHead:
    stages = len(backbone.channels)
    if config.auxiliary_stage < -stages:
        raise InvalidValue(
            f"auxiliary_stage counts the backbone's {stages} maps from the end, -1 to {-stages}, got "
            f"{config.auxiliary_stage}; backbone.num_stages gives more maps, auxiliary=False needs none"
        )
    channels = backbone.channels[config.auxiliary_stage]
    return FCNHead(channels, config.auxiliary_width, num_classes, dropout=0.1, drop_channels=False)
