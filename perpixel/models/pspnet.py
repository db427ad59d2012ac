"""PSPNet, the Pyramid Scene Parsing Network (Zhao et al., CVPR 2017, arXiv:1612.01105, figure 3, sections 3.2-3.3).

Pyramid pooling gives every position the mean of its surroundings at four sizes: the map is averaged over 1x1, 2x2, 3x3
and 6x6 bins, each mean is projected, interpolated back and put beside the map, and a 3x3 convolution reads them all.

Shapes: B batch, C channels, H W image, h w feature map, K classes, W width, N width of a branch, n bins of a branch
along a side, k side of a kernel.
By default the exact function of hszhao/semseg. Differs from the public codes in that scores are returned at their own
resolution, and in how the convolution over the concatenation is computed: see `PyramidFusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import Backbone
from perpixel.errors import InvalidValue
from perpixel.layers import FCNHead, PooledBatchNorm2d, init_new_layers
from perpixel.models.backbone_maps import refuse_missing_auxiliary_map
from perpixel.models.network import Network
from perpixel.ops.bin_pooling import PoolingRule, interpolation_matrix, pool_pyramid
from perpixel.types import SegOutput, Term

__all__ = ["PSPNet", "PSPNetConfig", "PyramidBranch", "PyramidFusion", "PyramidPooling"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "pooling": ("adaptive", "fixed"),
    "order": ("features_first", "bins_first"),
}


@dataclass(frozen=True, kw_only=True)
class PSPNetConfig:
    """Bins and widths, and the forms of the public codes.

    Raises:
        InvalidValue: a width or a number of bins is not positive, a kernel even, a choice unknown, or the dropout no
            probability below 1.
    """

    bins: tuple[int, ...] = (1, 2, 3, 6)
    """Along a side, in the order of the concatenation; the Caffe release has 6, 3, 2, 1."""
    pooling: PoolingRule = "adaptive"
    """``fixed``: the Caffe release's kernels (stride the same), by the rule that `ops.bin_pooling` states."""
    order: Literal["features_first", "bins_first"] = "features_first"
    """Which come first in the concatenation, the feature map or the pooled branches."""
    bin_width: int = 512
    """Channels of a branch: those of the feature map over the number of branches, as published."""
    width: int = 512
    """Channels between the convolution over the concatenation and the classifier."""
    kernel_size: int = 3
    """Of the convolution over the concatenation."""
    classifier_kernel_size: int = 1
    norm_of_single_bin: bool = True
    """Off: the branch of one bin has a bias in place of its batch norm (segmentation_models.pytorch)."""
    dropout: float = 0.1
    """Probability of dropping a channel, or a value, before each classifier."""
    drop_channels: bool = True
    """Off: single values in place of whole channels (PyTorch-Encoding)."""
    auxiliary: bool = True
    """A head on the stage before the last; the backbone then has two stages or more."""
    auxiliary_width: int = 256
    auxiliary_weight: float = 0.4
    align_corners: bool = True
    """How branches are interpolated to the map, and scores to the image."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", tuple(self.bins))
        if not self.bins or min(self.bins) < 1:
            raise InvalidValue(f"bins of PSPNet must be >= 1, got {self.bins}")
        for name in ("bin_width", "width", "auxiliary_width"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"PSPNet {name} must be >= 1, got {getattr(self, name)}")
        for name in ("kernel_size", "classifier_kernel_size"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise InvalidValue(f"PSPNet {name} must be odd, got {getattr(self, name)}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidValue(f"PSPNet {name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.auxiliary_weight > 0:
            raise InvalidValue(
                f"auxiliary_weight must be positive, got {self.auxiliary_weight}; auxiliary=False trains without"
            )

    @classmethod
    def small(cls) -> PSPNetConfig:
        """A tiny preset for tests and tables."""
        return cls(bin_width=8, width=16, auxiliary_width=8)


class PSPNet(Network):
    """Pyramid pooling over the coarsest feature map; ``deep`` holds the auxiliary head's scores.

    The norm of a branch uses its running statistics when a batch gives it one value per channel.

    Raises:
        InvalidValue: the auxiliary head is asked for, and the backbone has one stage.
    """

    config: PSPNetConfig
    backbone: Backbone

    def __init__(self, backbone: Backbone, num_classes: int, config: PSPNetConfig | None = None) -> None:
        config = config or PSPNetConfig()
        refuse_missing_auxiliary_map(backbone, auxiliary=config.auxiliary, reader="PSPNet")
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[-1],
            align_corners=config.align_corners,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        self.pyramid = PyramidPooling(backbone.channels[-1], config)
        self.fusion = PyramidFusion(backbone.channels[-1], config)
        self.dropout = nn.Dropout2d(config.dropout) if config.drop_channels else nn.Dropout(config.dropout)
        kernel = config.classifier_kernel_size
        self.classifier = nn.Conv2d(config.width, num_classes, kernel, padding=kernel // 2)
        self.auxiliary_head = (
            FCNHead(
                backbone.channels[-2],
                config.auxiliary_width,
                num_classes,
                config.dropout,
                drop_channels=config.drop_channels,
            )
            if config.auxiliary
            else None
        )
        for part in (self.pyramid, self.fusion, self.classifier, self.auxiliary_head):
            if part is not None:
                init_new_layers(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/8, W/8), rounded up, at the published output stride."""
        features = self.backbone(images)
        x = self.fusion(features[-1], self.pyramid(features[-1]))
        logits = self.classifier(self.dropout(x))
        if self.auxiliary_head is None or not self.supervised:
            return SegOutput(logits)
        return SegOutput(logits, deep=(self.auxiliary_head(features[-2]),))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy, and 0.4 times as much of it on the auxiliary head (section 3.3 and table 2 of the paper)."""
        main = Term(name="main")
        if self.auxiliary_head is None:
            return (main,)
        return main, Term(name="auxiliary", output="deep", weight=self.config.auxiliary_weight)


class PyramidPooling(nn.Module):
    """Averages a map over each number of bins, and projects each result: the map is pooled before it is projected."""

    def __init__(self, in_channels: int, config: PSPNetConfig) -> None:
        super().__init__()
        self.bins = config.bins
        self.rule = config.pooling
        self.branches = nn.ModuleList(
            PyramidBranch(in_channels, config.bin_width, norm=bins > 1 or config.norm_of_single_bin)
            for bins in config.bins
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w) to one (B, N, n, n) per branch."""
        pooled = pool_pyramid(x, self.bins, self.rule)
        return [branch(bins) for branch, bins in zip(self.branches, pooled, strict=True)]


class PyramidBranch(nn.Module):
    """1x1 convolution, batch norm and ReLU of a pooled map: (B, C, n, n) -> (B, N, n, n)."""

    def __init__(self, in_channels: int, width: int, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 1, bias=not norm)
        self.norm = PooledBatchNorm2d(width) if norm else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class PyramidFusion(nn.Module):
    """Convolution over the map and its interpolated branches, batch norm and ReLU, without the concatenation.

    A convolution is a sum over its input channels, and interpolation is linear in its input. So each branch is
    multiplied with its share of the kernel while it is still a few bins large, tap by tap, and what each tap gave is
    interpolated to where the tap reads; the zeros around the map are rows of zeros in the interpolation. No map of
    C + N len(bins) channels and no interpolated branch is made, and the branches' share of the convolution, half of it
    in the published network, costs next to nothing. Equal to the plain form up to rounding.
    """

    def __init__(self, in_channels: int, config: PSPNetConfig) -> None:
        super().__init__()
        branches = config.bin_width * len(config.bins)
        kernel = config.kernel_size
        self.conv = nn.Conv2d(in_channels + branches, config.width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(config.width)
        self.act = nn.ReLU(inplace=True)
        self.align_corners = config.align_corners
        first = [in_channels] if config.order == "features_first" else []
        last = [] if first else [in_channels]
        self.shares = [*first, *[config.bin_width] * len(config.bins), *last]
        self.position = 0 if first else len(config.bins)

    def forward(self, x: Tensor, branches: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, h, w) and one (B, N, n, n) per branch to (B, W, h, w)."""
        kernels = list(torch.split(self.conv.weight, self.shares, dim=1))
        own = kernels.pop(self.position)
        total = F.conv2d(x, own, padding=self.conv.padding) + self._of_branches(x, branches, kernels)
        out: Tensor = self.act(self.norm(total))
        return out

    def _of_branches(self, x: Tensor, branches: Sequence[Tensor], kernels: Sequence[Tensor]) -> Tensor:
        """The branches' share of the convolution, (B, W, h, w)."""
        height, width = x.shape[-2:]
        strips, rows = [], []
        for bins, kernel in zip(branches, kernels, strict=True):
            taps = torch.einsum("bcij,ocyx->boiyjx", bins, kernel).flatten(4, 5).flatten(2, 3)  # (B, W, nk, nk)
            columns = self._reach(bins.shape[-1], width, taps)
            strips.append(torch.matmul(taps, columns.T))  # (B, W, nk, w)
            rows.append(self._reach(bins.shape[-2], height, taps))
        return torch.matmul(torch.cat(rows, dim=1), torch.cat(strips, dim=2))

    def _reach(self, source: int, size: int, like: Tensor) -> Tensor:
        """(size, source * k): how much of each of ``source`` values each tap of the kernel reads at each place."""
        kernel, padding = self.conv.kernel_size[0], self.conv.kernel_size[0] // 2
        matrix = interpolation_matrix(source, size, align_corners=self.align_corners, like=like).to(like.dtype)
        return F.pad(matrix, (0, 0, padding, padding)).unfold(0, kernel, 1).flatten(1)
