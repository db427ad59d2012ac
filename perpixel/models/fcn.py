"""FCN on a residual backbone: the plain baseline of this family (Long et al., CVPR 2015, arXiv:1411.4038).

Shapes: B batch, C channels, H W image, K classes. The form of ycszen/TorchSeg (voc.fcn32s.R101_v1c): one head on the
coarsest map, an auxiliary head on the one before it, both upsampled bilinearly with aligned corners. On a backbone of
output stride 8 it is the dilated FCN of torchvision (corners not aligned) and of PyTorch-Encoding (aligned), which drop
single values in place of whole channels, and differ in the auxiliary head's weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from perpixel.backbones import Backbone
from perpixel.errors import InvalidValue
from perpixel.layers import FCNHead, init_new_layers
from perpixel.models.backbone_maps import refuse_missing_auxiliary_map
from perpixel.models.network import Network
from perpixel.types import SegOutput, Term

__all__ = ["FCN", "FCNConfig"]


@dataclass(frozen=True, kw_only=True)
class FCNConfig:
    """Widths of the two heads.

    Raises:
        InvalidValue: a width or the auxiliary weight is not positive, or the dropout is not a probability below 1.
    """

    width: int = 512
    auxiliary_width: int = 256
    dropout: float = 0.1
    """Probability of dropping a channel, or a value, before each classifier."""
    drop_channels: bool = True
    """Off: single values in place of whole channels (torchvision, PyTorch-Encoding)."""
    auxiliary: bool = True
    auxiliary_weight: float = 0.5
    align_corners: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.auxiliary_width < 1:
            raise InvalidValue(f"FCN widths must be >= 1, got {self.width} and {self.auxiliary_width}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.auxiliary_weight > 0:
            raise InvalidValue(f"auxiliary_weight must be > 0, got {self.auxiliary_weight}; auxiliary=False has none")

    @classmethod
    def small(cls) -> FCNConfig:
        """A tiny preset for tests and tables."""
        return cls(width=16, auxiliary_width=8)


class FCN(Network):
    """Scores the coarsest feature map; ``deep`` holds the auxiliary head's scores.

    Raises:
        InvalidValue: the auxiliary head is asked for, and the backbone gives one stage.
    """

    config: FCNConfig
    backbone: Backbone

    def __init__(self, backbone: Backbone, num_classes: int, config: FCNConfig | None = None) -> None:
        config = config or FCNConfig()
        refuse_missing_auxiliary_map(backbone, auxiliary=config.auxiliary, reader="FCN")
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[-1],
            align_corners=config.align_corners,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        dropout: dict[str, Any] = {"dropout": config.dropout, "drop_channels": config.drop_channels}
        self.head = FCNHead(backbone.channels[-1], config.width, num_classes, **dropout)
        self.auxiliary_head = (
            FCNHead(backbone.channels[-2], config.auxiliary_width, num_classes, **dropout) if config.auxiliary else None
        )
        init_new_layers(self.head)
        if self.auxiliary_head is not None:
            init_new_layers(self.auxiliary_head)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/s, W/s), rounded up, s the backbone's output stride."""
        features = self.backbone(images)
        logits = self.head(features[-1])
        if self.auxiliary_head is None or not self.supervised:
            return SegOutput(logits)
        return SegOutput(logits, deep=(self.auxiliary_head(features[-2]),))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy, and half as much of it on the auxiliary head (TorchSeg)."""
        main = Term(name="main")
        if self.auxiliary_head is None:
            return (main,)
        return main, Term(name="auxiliary", output="deep", weight=self.config.auxiliary_weight)
