"""A convolution of a doubled map and a skipped one, that makes neither the doubled map nor their concatenation.

Shapes: B batch, C C_s channels of the coarse and the skipped map, C' channels out, h w coarse map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.layers.parts_conv import PartsConv2d
from perpixel.ops.doubled_conv import conv_of_doubled, doubled_weight, plain_conv_of_doubled

__all__ = ["Doubled", "DoublingConv2d"]


class Doubled(NamedTuple):
    """What stands for the concatenation of a map doubled by nearest neighbour and a map of that size."""

    coarse: Tensor
    """(B, C, h, w)."""
    skipped: Tensor | None
    """(B, C_s, 2h, 2w), or nothing."""


class DoublingConv2d(PartsConv2d):
    """A 3x3 convolution that also takes a `Doubled`: (B, C, h, w), (B, C_s, 2h, 2w) -> (B, C', 2h, 2w).

    On the CPU that is `ops.doubled_conv`, in about half the time, and training keeps the coarse map alone. Elsewhere,
    where this is not measured, and in exported graphs the map is doubled and convolved as published.

    Args:
        coarse_channels: C.
        skipped_channels: C_s.
        out_channels: C'.
        bias: Whether there is one.
    """

    kept_weight: Tensor | None
    """The weight (C, C', 4, 4) of `ops.doubled_weight`, where `keep_doubled_weight` has made it once for all."""

    def __init__(self, coarse_channels: int, skipped_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__(coarse_channels + skipped_channels, out_channels, 3, padding=1, bias=bias)
        self.coarse_channels, self.skipped_channels = coarse_channels, skipped_channels
        self.register_buffer("kept_weight", None, persistent=False)

    def forward(self, input: Tensor | Sequence[Tensor] | Doubled) -> Tensor:  # noqa: A002 - as in nn.Module
        if not isinstance(input, Doubled):
            return super().forward(input)
        coarse, skipped = input
        weight, columns = self._split_weight()
        if coarse.device.type != "cpu" or torch.compiler.is_exporting():
            total = plain_conv_of_doubled(coarse, weight, self.bias)
        else:
            total = conv_of_doubled(coarse, weight if self.kept_weight is None else self.kept_weight, self.bias)
        if skipped is not None:
            total.add_(F.conv2d(skipped, columns, padding=1))
        return total

    def keep_doubled_weight(self) -> None:
        """Makes the deconvolution's weight once for all; the layer cannot be trained or given other weights then."""
        with torch.no_grad():
            self.kept_weight = doubled_weight(self._split_weight()[0])

    def _split_weight(self) -> tuple[Tensor, Tensor]:
        """The weight's columns for the coarse map and for the skipped one."""
        coarse, skipped = self.weight.split_with_sizes((self.coarse_channels, self.skipped_channels), dim=1)
        return coarse, skipped
