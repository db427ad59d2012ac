"""HRNetV2 for segmentation (Sun et al., 2019, arXiv:1904.04514; Wang et al., PAMI 2020, arXiv:1908.07919, figure 4 b).

The maps of all four branches are enlarged to the finest one, concatenated, mixed by a 1x1 convolution and classified at
stride 4. The numbers are those of HRNet/HRNet-Semantic-Segmentation. One flag, ``align_corners``, governs every
enlargement there: between branches, in the head, and from the scores to the image; so it does here.

| trunk | parameters, 19 classes | GMACs at 1024x2048 |
|---|---:|---:|
| hrnet_w18 | 9,641,119 | 147.4 |
| hrnet_w32 | 29,546,515 | 361.2 |
| hrnet_w48 (the default) | 65,859,379 | 747.5 |

The GMACs are those of the authors' code. Here the 1x1 convolution runs before the enlargement, on each branch at its
own size, and the results are added: the convolution is linear and enlargement mixes cells with weights that add up to
1, so the scores are the same; the concatenation is never built, and most of that layer's work is saved.

Shapes: B batch, C channels, H W image, h w finest map, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import HRNETS, BackboneConfig, HRNet, HRNetLayout, create_hrnet
from perpixel.errors import InvalidValue
from perpixel.layers import init_new_layers
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = [
    "HRNetConfig",
    "HRNetSegmentation",
    "HRNetTrunkConfig",
    "MixedHead",
    "create_hrnet_trunk",
    "hard_examples",
    "set_norm_momentum",
]

_LAYOUT_FIELDS = tuple(field.name for field in fields(HRNetLayout))


@dataclass(frozen=True, kw_only=True)
class HRNetTrunkConfig:
    """What networks on HRNet share: the enlargement, batch norm, and a layout other than the trunk's name says.

    Raises:
        InvalidValue: the momentum is outside (0, 1], or the number of hard examples or their threshold out of range.
    """

    align_corners: bool = True
    """Of every enlargement: between branches, in the head, and to the image."""
    norm_momentum: float = 0.1
    """Share of a batch in the running statistics: 0.1 in the authors' branch HRNet-OCR, 0.01 in master and
    pytorch-v1.1."""
    ohem: bool = False
    """Cross-entropy on the hard pixels only, on the last output."""
    ohem_threshold: float = 0.9
    """Probability of the true class up to which a pixel is hard."""
    ohem_min_kept: int = 131_072
    """Pixels of a batch that count at least."""
    width: int | None = None
    """Channels of the finest branch; this and the numbers below are the trunk's own where None."""
    stem_width: int | None = None
    bottleneck_width: int | None = None
    num_bottlenecks: int | None = None
    num_modules: tuple[int, ...] | None = None
    num_blocks: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.norm_momentum <= 1:
            raise InvalidValue(f"norm_momentum must lie in (0, 1], got {self.norm_momentum}")
        if not 0 < self.ohem_threshold <= 1 or self.ohem_min_kept < 0:
            raise InvalidValue(
                f"ohem_threshold must lie in (0, 1] and ohem_min_kept be >= 0, got {self.ohem_threshold} and "
                f"{self.ohem_min_kept}"
            )
        self.layout(HRNetLayout())

    def layout(self, published: HRNetLayout) -> HRNetLayout:
        """Returns the published layout with the numbers that are stated here."""
        stated = {name: getattr(self, name) for name in _LAYOUT_FIELDS if getattr(self, name) is not None}
        return replace(published, **stated)

    @classmethod
    def small(cls) -> Self:
        """A tiny preset for tests and tables."""
        return cls(width=8, stem_width=8, bottleneck_width=4, num_bottlenecks=1, num_modules=(1, 1, 1), num_blocks=1)


@dataclass(frozen=True, kw_only=True)
class HRNetConfig(HRNetTrunkConfig):
    """The head's kernel, beside what all networks on HRNet have.

    Raises:
        InvalidValue: the kernel is even or not positive, or a number of the base is out of range.
    """

    align_corners: bool = False
    """Of every enlargement. The code says True, its settings for Cityscapes, LIP and PASCAL-Context False."""
    classifier_kernel: int = 1
    """Of the last convolution (the authors' FINAL_CONV_KERNEL)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classifier_kernel < 1 or self.classifier_kernel % 2 == 0:
            raise InvalidValue(f"classifier_kernel must be odd, to keep sizes, got {self.classifier_kernel}")


def create_hrnet_trunk(backbone: BackboneConfig, config: HRNetTrunkConfig) -> HRNet:
    """Builds an HRNet with the layout and enlargement that a network's configuration states.

    Raises:
        InvalidValue: it is another trunk, or it is asked for strides or stages that an HRNet has not.
        CheckpointError: its weights cannot be had, or do not fit.
    """
    published = HRNETS.get(backbone.name)  # create_hrnet refuses unknown names
    layout = None if published is None else config.layout(published)
    return create_hrnet(backbone, layout=layout, align_corners=config.align_corners)


def set_norm_momentum(network: nn.Module, momentum: float) -> None:
    """Gives every batch norm of a network the share of a batch in its running statistics."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum


def hard_examples(term: Term, config: HRNetTrunkConfig) -> Term:
    """Returns the term with cross-entropy on hard pixels where the configuration asks for it."""
    if not config.ohem:
        return term
    options = {"threshold": config.ohem_threshold, "min_kept": config.ohem_min_kept, "normalise": "pixels"}
    return replace(term, loss="ohem", options=options)


class HRNetSegmentation(Network):
    """One head on all four maps; ``deep`` is empty."""

    config: HRNetConfig
    backbone: HRNet

    def __init__(self, backbone: HRNet, num_classes: int, config: HRNetConfig | None = None) -> None:
        config = config or HRNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[0],
            align_corners=config.align_corners,
            minimum_size=backbone.strides[-1] + 1,
        )
        self.backbone = backbone
        self.head = MixedHead(
            backbone.channels, num_classes, config.classifier_kernel, align_corners=config.align_corners
        )
        init_new_layers(self.head)
        set_norm_momentum(self, config.norm_momentum)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/4, W/4), rounded up."""
        return SegOutput(self.head(self.backbone(images)))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy, on hard pixels if so configured; the recipes state the classes' weights."""
        return (hard_examples(Term(name="main"), self.config),)


class MixedHead(nn.Module):
    """Maps of all branches, concatenated at the finest one's size, to scores (B, K, h, w): 1x1, norm, ReLU, classifier.

    The 1x1 convolution is split over the maps and runs before each is enlarged; see the module's docstring.
    """

    def __init__(
        self, channels: Sequence[int], num_classes: int, classifier_kernel: int = 1, *, align_corners: bool
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.align_corners = align_corners
        total = sum(channels)
        self.mix = nn.Conv2d(total, total, 1)
        self.norm = nn.BatchNorm2d(total)
        self.classifier = nn.Conv2d(total, num_classes, classifier_kernel, padding=classifier_kernel // 2)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        scores: Tensor = self.classifier(torch.relu_(self.norm(self._mixed(maps))))
        return scores

    def _mixed(self, maps: Sequence[Tensor]) -> Tensor:
        weights = torch.split(self.mix.weight, self.channels, dim=1)
        total = F.conv2d(maps[0], weights[0], self.mix.bias)
        for x, weight in zip(maps[1:], weights[1:], strict=True):
            total.add_(resize(F.conv2d(x, weight), total.shape[-2:], align_corners=self.align_corners))
        return total
