"""DPN, the Deep Parsing Network (Liu, Li, Luo, Loy & Tang, ICCV 2015, arXiv:1509.02634).

One step of mean field for a Markov random field, as layers on top of VGG16. b1 to b11 give the probability of each
class at each pixel (unary). b12 averages it over a large window, weighted by likeness of colour and nearness (the
triple penalty: a pixel, another, and the other's neighbours). b13 is a convolution with several filters per class: what
labels stand around which (label contexts), as penalties; b14 keeps the least penalty of each class's filters; b15
takes it from the logarithm of the unary.

Shapes: B batch, C channels, H W image, h w the grid of b12 to b15, K classes, M contexts per class.
Derived by hand (K = 21, M = 5, widths of VGG16):

============ ========================= =============================== ===========
layer        maps to                   weights                         parameters
============ ========================= =============================== ===========
b1 to b8     (B, 512, H/8, W/8)        VGG16's; conv5 dilated by 2     14,714,688
b9           4096, fc6 dilated by 4    49·512·4096 + 4096              102,764,544
b10          4096, fc7                 4096² + 4096                    16,781,312
b11          (B, K, h, w)              4096·21 + 21                    86,037
b12          window 50 x 50            one for colour, one for place   2
b13          (B, K·M, h, w), 9 x 9     81·21·105 + 105                 178,710
b14, b15     (B, K, h, w)              none                            0
============ ========================= =============================== ===========

That makes 134,525,293. The 5 x 5 and 25 x 25 filters of the paper's table are VGG16's, with zeros between.
Read in reviews: layers, windows, contexts, one step, the stages. Not verified, hence options: whether b11 is a softmax
or a sigmoid, and the weights of b12. The paper initialises them "by the Euclidean distance" and learns the measure's
parameters; ``similarity`` (assumed) is the normalised exponential of minus that distance, a smoothing; ``distance`` is
the distance itself. Its energy multiplies b12 by the pixel's own probability, its layer does not: ``own_probability``.
Also assumed: first values of b12 and b13, and what is scored when b12 is trained alone (docs/dpn.md).
The paper takes images of 512 x 512 pixels; here any size works. There is no reference vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, Pool, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.ops.host_values import from_host
from perpixel.ops.local_filter import block_min, local_filter
from perpixel.types import SegOutput, Term

__all__ = ["DPN", "DPNConfig", "LabelContexts", "TriplePenalty"]

PARTS = ("unary", "triple", "contexts")
_LEAST = 1e-6
"""Probabilities below it are taken for it before their logarithm."""


@dataclass(frozen=True, kw_only=True)
class DPNConfig:
    """How far the network goes, the windows, and the known readings.

    Raises:
        InvalidValue: a choice is unknown or a number out of range.
    """

    part: Literal["unary", "triple", "contexts"] = "contexts"
    """Up to b11, up to b12, or all: the stages of the incremental training."""
    window: int = 50
    """Side of b12's window, cells of the grid."""
    context_size: int = 9
    """Side of b13's filters, cells of the grid; odd."""
    contexts: int = 5
    """M."""
    stride: int = 1
    """Image pixels per cell of the grid of b12 to b15; published 1. Larger ones make b12 affordable on a CPU."""
    probabilities: Literal["softmax", "sigmoid"] = "softmax"
    """Of b11."""
    weights: Literal["similarity", "distance"] = "similarity"
    """Of b12."""
    own_probability: bool = False
    """Multiply b12 by b11."""
    color_deviation: float = 0.1
    """First value of b12's reach in colour, as a share of the full range."""
    place_deviation: float = 0.25
    """First value of b12's reach in place, as a share of its window."""
    dropout: float = 0.5
    """Behind fc6 and fc7, single values."""
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 4096

    def __post_init__(self) -> None:
        for name, allowed in (
            ("part", PARTS),
            ("probabilities", ("softmax", "sigmoid")),
            ("weights", ("similarity", "distance")),
        ):
            if getattr(self, name) not in allowed:
                raise InvalidValue(f"DPN {name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("window", "context_size", "contexts", "stride", "width", "fc_width"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"DPN {name} must be >= 1, got {getattr(self, name)}")
        if self.context_size % 2 == 0:
            raise InvalidValue(f"context_size must be odd, got {self.context_size}")
        if not (self.color_deviation > 0 and self.place_deviation > 0):
            raise InvalidValue(
                f"deviations must be positive, got color {self.color_deviation} and place {self.place_deviation}"
            )
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")

    @classmethod
    def small(cls) -> DPNConfig:
        """A tiny preset for tests and tables."""
        return cls(window=5, context_size=3, contexts=2, stride=4, dropout=0.0, width=8, fc_width=32)

    @property
    def layout(self) -> VGG16Layout:
        """VGG16 at stride 8: the last two pools are left out and what follows them is dilated instead."""
        return VGG16Layout(
            width=self.width,
            pools=(Pool(), Pool(), Pool(), None, None),
            dilations=(1, 1, 1, 1, 2),
            fully_connected=FullyConnected(dilation=4, padding=12, width=self.fc_width),
        )


class DPN(Network):
    """Logits are ln b11 - b14, of which softmax makes b15; ``deep`` holds b11's scores before their activation.

    Both are (B, K, h, w). With ``part="unary"`` the logits are b11's scores and ``deep`` is empty.
    """

    config: DPNConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: DPNConfig | None = None) -> None:
        config = config or DPNConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=config.stride,
            align_corners=False,
            minimum_size=8,
        )
        self.backbone = trunk
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(config.fc_width, num_classes, 1)
        self.triple = TriplePenalty(config) if config.part != "unary" else None
        self.contexts = LabelContexts(num_classes, config) if config.part == "contexts" else None

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, h, w), h and w being H and W over the grid's stride, rounded up."""
        trunk = self.backbone
        x = self.dropout(torch.relu(trunk.fc6(trunk(images)[-1])))
        x = self.classifier(self.dropout(torch.relu(trunk.fc7(x))))
        grid = (-(-images.shape[-2] // self.config.stride), -(-images.shape[-1] // self.config.stride))
        scores = resize(x, grid, align_corners=self.align_corners)
        if self.triple is None:
            return SegOutput(scores)
        softmax = self.config.probabilities == "softmax"
        probabilities = scores.softmax(dim=1) if softmax else scores.sigmoid()
        logarithm = scores.log_softmax(dim=1) if softmax else nn.functional.logsigmoid(scores)
        smooth = self.triple(probabilities, self._colors(images, grid))
        if self.config.own_probability:
            smooth = smooth * probabilities
        if self.contexts is not None:
            logits = logarithm - self.contexts(smooth)
        elif self.config.weights == "similarity":
            logits = smooth.clamp(min=_LEAST).log()
        else:
            logits = logarithm - smooth
        return SegOutput(logits, deep=(scores,) if self.supervised else ())

    def default_terms(self) -> tuple[Term, ...]:
        """Softmax loss on what the part at hand gives (b11, b12 or b15), as its stage of the training has it."""
        return (Term(name="main"),)

    def _colors(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The image on the grid, colours up to a constant in shares of the full range: (B, C, h, w)."""
        std = from_host(self.preprocessing.std, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        std = std / self.preprocessing.value_range
        if self.config.stride == 1:
            return images * std
        return nn.functional.adaptive_avg_pool2d(images * std, grid)


class TriplePenalty(nn.Module):
    """b12: a filter of its own for every pixel, one for all classes, from a distance with two learned precisions."""

    def __init__(self, config: DPNConfig) -> None:
        super().__init__()
        self.window = config.window
        self.weights = config.weights
        place = config.place_deviation * config.window
        first = [-math.log(2 * config.color_deviation**2), -math.log(2 * place**2)]
        self.log_precisions = nn.Parameter(torch.tensor(first))

    def forward(self, probabilities: Tensor, colors: Tensor) -> Tensor:
        """Maps (B, K, h, w) and the image (B, C, h, w) to (B, K, h, w)."""
        return local_filter(
            probabilities,
            colors.to(probabilities.dtype),
            self.log_precisions.exp().to(probabilities.dtype),
            window=self.window,
            kind=self.weights,
            recompute=self.training,
        )


class LabelContexts(nn.Module):
    """b13 and b14: M penalties per class from the labels around, of which the least counts."""

    def __init__(self, num_classes: int, config: DPNConfig) -> None:
        super().__init__()
        self.block = config.contexts
        size = config.context_size
        self.conv = nn.Conv2d(num_classes, num_classes * config.contexts, size, padding=size // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, K, h, w) to penalties (B, K, h, w)."""
        return block_min(self.conv(x), self.block)
