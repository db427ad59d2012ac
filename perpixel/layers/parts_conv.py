"""A convolution that takes the parts of its input, so that their concatenation is never made.

Shapes: B batch, C_i channels of a part, C' channels out, h w feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from perpixel.ops.concat_conv import conv_of_concat

__all__ = ["PartsConv2d"]


class PartsConv2d(nn.Conv2d):
    """A plain convolution, or that of maps (B, C_i, h, w) as if they were joined along the channels: (B, C', h, w).

    Of stride 1, one group and zeros around the map where it takes parts.
    """

    def forward(self, input: Tensor | Sequence[Tensor]) -> Tensor:  # noqa: A002 - the name that nn.Module's callers use
        if isinstance(input, Tensor):
            return super().forward(input)
        padding, dilation = int(self.padding[0]), self.dilation[0]
        return conv_of_concat(input, self.weight, self.bias, padding=padding, dilation=dilation)
