"""The 3x3 convolution of a map doubled by nearest neighbour, without the doubled map.

Each cell of the coarse map stands four times in the doubled one, so that every output sees 2x2 coarse cells only, with
sums of the weight's nine values: a deconvolution by 4x4 of stride 2, with 4/9 of the multiplications.

Shapes: B batch, C channels in, C' channels out, h w coarse map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.host_values import from_host

__all__ = ["conv_of_doubled", "doubled_weight", "plain_conv_of_doubled"]

_SUMS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Which of a line's three weights each of the deconvolution's four is the sum of."""


def conv_of_doubled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Doubles maps (B, C, h, w) by nearest neighbour and convolves them with zeros around: (B, C', 2h, 2w).

    Args:
        x: Coarse maps.
        weight: (C', C, 3, 3), or what `doubled_weight` made of it: (C, C', 4, 4).
        bias: (C',), or None.

    Raises:
        InvalidValue: the weight is of another size.
    """
    if weight.shape[-2:] == (3, 3):
        weight = doubled_weight(weight)
    elif weight.shape[-2:] != (4, 4):
        raise InvalidValue(f"a doubled map is convolved by 3 x 3 weights, got {tuple(weight.shape)}")
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


def doubled_weight(weight: Tensor) -> Tensor:
    """Returns the deconvolution's weight (C, C', 4, 4) for a convolution's (C', C, 3, 3)."""
    line = from_host(_SUMS, dtype=weight.dtype, device=weight.device)
    sums = torch.kron(line, line)  # (16, 9)
    taps = weight.permute(1, 2, 3, 0).flatten(1, 2)  # (C, 9, C')
    channels, _, out_channels = taps.shape
    return torch.matmul(sums, taps).view(channels, 4, 4, out_channels).permute(0, 3, 1, 2)


def plain_conv_of_doubled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Does what `conv_of_doubled` does by way of the doubled map; its plain twin, for 3x3 weights."""
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
