"""Atrous spatial pyramid pooling with image pooling (Chen et al. 2017, arXiv:1706.05587, section 3.3, figure 5).

Shapes: B batch, C channels, W width, N branches, h w feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.layers.conv import ConvNormAct
from perpixel.layers.separable import SeparableConvNormAct

__all__ = ["ASPP", "SpatialConv"]


@dataclass(frozen=True, kw_only=True)
class SpatialConv:
    """Which convolution looks around: plain or separable, the latter with or without a norm and a ReLU inside."""

    separable: bool = False
    norm_between: bool = False

    def block(self, in_channels: int, out_channels: int, *, dilation: int = 1) -> nn.Module:
        """Returns a 3x3 block with batch norm and ReLU: (B, C, h, w) -> (B, C', h, w)."""
        if self.separable:
            return SeparableConvNormAct(in_channels, out_channels, dilation=dilation, norm_between=self.norm_between)
        return ConvNormAct(in_channels, out_channels, 3, dilation=dilation)


class ASPP(nn.Module):
    """Looks at a map with several dilations and as a whole, and mixes what they saw: (B, C, h, w) -> (B, W, h, w).

    The branches are a 1x1 convolution, one 3x3 convolution per rate, and the mean of the map with a 1x1 convolution;
    each has a batch norm and a ReLU. Their concatenation [1x1, rates in order, pooled] goes through a 1x1 block. That
    1x1 convolution is computed branch by branch and summed, which is the same function: the concatenation (B, N W, h,
    w) is never built, and the pooled branch stays one cell. Its batch norm is a `PooledBatchNorm2d`.

    Args:
        in_channels: C.
        width: W.
        rates: Dilation of each 3x3 branch.
        conv: Form of the 3x3 branches.
        dropout: Probability of dropping a value of the result while training.
        drop_channels: Drop whole channels in place of single values.

    Raises:
        InvalidValue: there is no rate or one below 1, a width is not positive, or the dropout is not in [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        rates: Sequence[int],
        *,
        conv: SpatialConv | None = None,
        dropout: float = 0.0,
        drop_channels: bool = False,
    ) -> None:
        super().__init__()
        if not rates or min(rates) < 1:
            raise InvalidValue(f"ASPP needs one rate >= 1 per dilated branch, got {list(rates)}")
        if min(in_channels, width) < 1 or not 0 <= dropout < 1:
            raise InvalidValue(
                f"ASPP needs channels and a width >= 1 and a dropout in [0, 1), got {in_channels}, {width}, {dropout}"
            )
        conv = conv or SpatialConv()
        self.branches = nn.ModuleList(
            [
                ConvNormAct(in_channels, width, 1),
                *(conv.block(in_channels, width, dilation=rate) for rate in rates),
            ]
        )
        self.pooled = ConvNormAct(in_channels, width, 1, pooled=True)
        self.project = ConvNormAct((len(rates) + 2) * width, width, 1)
        self.dropout = nn.Dropout2d(dropout) if drop_channels else nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = self.project.conv.weight.chunk(len(self.branches) + 1, dim=1)
        total = F.conv2d(self.pooled(x.mean(dim=(2, 3), keepdim=True)), last)  # (B, W, 1, 1)
        for branch, part in zip(self.branches, parts, strict=True):
            total = F.conv2d(branch(x), part).add_(total)
        out: Tensor = self.dropout(self.project.act(self.project.norm(total)))
        return out
