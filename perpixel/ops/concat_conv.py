"""The convolution of a concatenation, without the concatenation.

Shapes: B batch, C_i channels of a part, C' channels out, h w feature map, k kernel size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["conv_of_concat"]


def conv_of_concat(
    parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None, *, padding: int = 0, dilation: int = 1
) -> Tensor:
    """Convolves maps (B, C_i, h, w) as if they were joined along the channels: (B, C', h', w').

    A convolution is a sum over its input's channels, so each part meets its own columns of the weight
    (C', sum of C_i, k, k), and the joined map, which training would keep as well, is never made.

    Raises:
        InvalidValue: the parts' channels do not add up to the weight's.
    """
    channels = [part.shape[1] for part in parts]
    if not parts or sum(channels) != weight.shape[1]:
        raise InvalidValue(f"parts of {channels} channels for a weight that takes {weight.shape[1]}")
    first, *others = weight.split_with_sizes(channels, dim=1)
    total = F.conv2d(parts[0], first, bias, padding=padding, dilation=dilation)
    for part, columns in zip(parts[1:], others, strict=True):
        total.add_(F.conv2d(part, columns, padding=padding, dilation=dilation))
    return total
