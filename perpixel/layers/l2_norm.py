"""L2 normalisation of each position's feature vector, with a learned scale per channel (ParseNet, arXiv:1506.04579).

Shapes: B batch, C channels, h w feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue

__all__ = ["L2Norm"]

_EPS = 1e-10


class L2Norm(nn.Module):
    """Divides each position's vector by its length and multiplies channel c by s_c: (B, C, h, w) -> (B, C, h, w).

    y_c = s_c x_c / sqrt(sum over channels of x² + 1e-10) (ParseNet section 3.3; the constant is of the authors' layer).
    A vector of zeros stays one. Half precision is computed in float32: squares over 65504 would be infinite.

    Args:
        channels: C.
        scale: s at the start, the same for every channel.

    Raises:
        InvalidValue: there is no channel, or the scale is not positive.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        if channels < 1 or not scale > 0:
            raise InvalidValue(f"L2Norm needs channels >= 1 and a scale over 0, got {channels} and {scale}")
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.element_size() < 4 else x
        length = wide.square().sum(dim=1, keepdim=True).add(_EPS).sqrt()
        return (wide / length).to(x.dtype) * self.weight[:, None, None]
