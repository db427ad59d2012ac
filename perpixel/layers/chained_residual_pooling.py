"""Chained residual pooling (CRP): context from ever larger windows, each link added to what came before.

Lin et al., CVPR 2017, arXiv:1611.06612, section 3.2 and figure 3(d). Shapes: B batch, C channels, h w feature map.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue

__all__ = ["ChainedResidualPooling", "PoolingOrder"]

PoolingOrder: TypeAlias = Literal["pool_conv", "conv_pool"]

_WINDOW = 5


class ChainedResidualPooling(nn.Module):
    """Adds a chain of links to its input: (B, C, h, w) -> (B, C, h, w); the ReLU in front is the caller's.

    A link is a 5x5 max pool of stride 1 and a convolution without bias, or the two in the other order, on the link
    before it. With n links a cell sees 4n more cells to each side than the convolutions alone.

    Args:
        channels: C.
        num_pools: n; 2 in the paper, 4 in the published code.
        kernel_size: Of the convolutions: 3, or 1 in the light-weight form.
        order: ``pool_conv`` as in the paper; ``conv_pool`` is the improved pooling of the authors' later networks.

    Raises:
        InvalidValue: a number is not positive, the kernel is even, or the order is unknown.
    """

    def __init__(
        self, channels: int, num_pools: int, *, kernel_size: int = 3, order: PoolingOrder = "pool_conv"
    ) -> None:
        super().__init__()
        if min(channels, num_pools) < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise InvalidValue(
                "chained residual pooling takes channels and pools >= 1 and an odd kernel, got "
                f"{channels}, {num_pools} and {kernel_size}"
            )
        if order not in ("pool_conv", "conv_pool"):
            raise InvalidValue(f"pooling_order is 'pool_conv' or 'conv_pool', got {order!r}")
        self.pools_first = order == "pool_conv"
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=False) for _ in range(num_pools)
        )

    def forward(self, x: Tensor) -> Tensor:
        link = x
        for conv in self.convs:
            link = cast(Tensor, conv(_pool(link))) if self.pools_first else _pool(conv(link))
            x = x + link
        return x


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, _WINDOW, stride=1, padding=_WINDOW // 2)
