"""The decoder of SegNet and DeconvNet: every pooling undone by its own indices, then convolutions.

Shapes: B batch, C channels, h w map of a block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perpixel.ops.unpool import unpool

__all__ = ["MirroredDecoder", "PooledMap"]


class PooledMap(NamedTuple):
    """What unpooling needs to know of a pooling: the indices of its maxima, and the size of the map before it."""

    indices: Tensor
    size: torch.Size


class MirroredDecoder(nn.Module):
    """Unpools and convolves from the coarsest block to the finest; each convolution has a batch norm and a ReLU.

    Args:
        in_channels: Of the coarsest pooled map.
        blocks: Name of each block, coarsest first → its convolutions as (name, output channels). A name holds
            ``conv``; its batch norm is named with ``bn`` in that place.
        make_conv: (input channels, output channels) → a convolution that keeps the size.
        norm_eps: Of the batch norms.
        dropout: Name of a block → probability of dropping an element of what it returns.
    """

    def __init__(
        self,
        in_channels: int,
        blocks: Mapping[str, Sequence[tuple[str, int]]],
        make_conv: Callable[[int, int], nn.Module],
        *,
        norm_eps: float,
        dropout: Mapping[str, float],
    ) -> None:
        super().__init__()
        for block, convs in blocks.items():
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for name, width in convs:
                layers[name] = make_conv(in_channels, width)
                layers[name.replace("conv", "bn")] = nn.BatchNorm2d(width, eps=norm_eps)
                layers[name.replace("conv", "relu")] = nn.ReLU(inplace=True)
                in_channels = width
            if block in dropout:
                layers["dropout"] = nn.Dropout(dropout[block])
            self.add_module(block, nn.Sequential(layers))
        self.out_channels = in_channels

    def forward(self, x: Tensor, pooled: Sequence[PooledMap]) -> Tensor:
        """Maps the coarsest pooled map (B, C, h, w) to (B, C', H, W); ``pooled`` holds the blocks, coarsest first."""
        for block, (indices, size) in zip(self.children(), pooled, strict=True):
            x = block(unpool(x, indices, size))
        return x
