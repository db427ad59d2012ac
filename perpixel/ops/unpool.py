"""Max unpooling: what pooling took the maximum of goes back to where it stood, zeros everywhere else.

Shapes: B batch, C channels, h w pooled map, H W map before pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["unpool"]


def unpool(pooled: Tensor, indices: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Brings pooled values (B, C, h, w) back to the positions of their maxima in a map (B, C, H, W) of zeros.

    The size is explicit because pooling rounds: 45 rows and 46 rows both pool to 23. Windows must not overlap. Where
    PyTorch is told to be deterministic, which forbids its own unpooling on GPUs, a scatter does the same. Source:
    Badrinarayanan et al. 2017, arXiv:1511.00561, section 3; the operation is Zeiler et al.'s (ICCV 2011).

    Args:
        pooled: Values, those of the pooling or what became of them since.
        indices: Flat index of each maximum, row * W + column, in [0, H * W), int64, of the shape of ``pooled``.
        size: (H, W).

    Raises:
        InvalidValue: values and indices are of different shapes, or the map is smaller than its pooled form.
    """
    if pooled.shape != indices.shape:
        raise InvalidValue(
            f"unpooling takes one index per value, got values {tuple(pooled.shape)} and indices {tuple(indices.shape)}"
        )
    height, width = size
    if height < pooled.shape[-2] or width < pooled.shape[-1]:
        raise InvalidValue(f"unpooling of a {tuple(pooled.shape[-2:])} map cannot end at the smaller {tuple(size)}")
    if torch.are_deterministic_algorithms_enabled():
        return _scattered(pooled, indices, height, width)
    unpooled: Tensor = torch.ops.aten.max_unpool2d(pooled, indices, (height, width))  # F.max_unpool2d checks the size
    return unpooled


def _scattered(pooled: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    """The plain form: several times slower on a CPU, and always planar."""
    flat = pooled.new_zeros((*pooled.shape[:2], height * width))
    flat = flat.scatter(2, indices.flatten(2), pooled.flatten(2))
    return flat.reshape(*pooled.shape[:2], height, width)
