"""Average pooling to a few bins, and the way back: sums over rows and columns, written as two small matrices.

The matrices are made of arithmetic on the map's size, so that a graph exported for any height and width stays right;
every kernel and window of a pooling operator would be fixed at the size that was traced.

Shapes: B batch, C channels, h w feature map, n bins along a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["PoolingRule", "interpolation_matrix", "pool_pyramid", "pool_to_bins"]

PoolingRule = Literal["adaptive", "fixed"]


class _Windows(NamedTuple):
    """Windows along one side of a map."""

    holds: Tensor
    """(n, size): 1 where the window holds the cell, else 0; exact in any floating type."""
    counts: Tensor
    """(n,): how many cells each window holds."""


def pool_to_bins(x: Tensor, bins: int) -> Tensor:
    """Averages (B, C, h, w) over n x n bins that cover it: exactly adaptive average pooling, (B, C, n, n).

    Bin i of a side of s cells reaches from floor(i s / n) up to but not including ceil((i + 1) s / n). Bins overlap by
    a cell where n does not divide s, and repeat cells where s < n.

    Raises:
        InvalidValue: ``bins`` is not positive.
    """
    return pool_pyramid(x, (bins,), "adaptive")[0]


def pool_pyramid(x: Tensor, bins: Sequence[int], rule: PoolingRule) -> list[Tensor]:
    """Averages (B, C, h, w) over each number of bins, (B, C, n, n) each; the map is read once.

    The rules, for n bins along a side of s cells:

    ``adaptive``: `pool_to_bins`.

    ``fixed``: kernel = stride = k = ceil(s / n) from the first cell on, as Caffe's networks have it; a window that
    hangs over the edge averages the cells that it holds (Caffe's rounding up, without padding). At the sizes that a
    network was published for, which n divides, k is its published kernel. A side under n (n - 1) cells may be too
    short for n such windows; those for which nothing is left hold the last cell.

    Raises:
        InvalidValue: a number of bins is not positive, or there is none.
    """
    if not bins or min(bins) < 1:
        raise InvalidValue(f"bins must be >= 1, got {tuple(bins)}")
    height, width = x.shape[-2:]
    rows = [_windows(height, n, rule, x) for n in bins]
    columns = [_windows(width, n, rule, x) for n in bins]
    # Expanded to a batch: the reshape of a plain product would ask an exported graph for facts about its sizes.
    windows = torch.cat([c.holds for c in columns]).T.expand(*x.shape[:2], -1, -1)
    strips = torch.matmul(x, windows) / torch.cat([c.counts for c in columns])
    split = torch.split(strips, list(bins), dim=-1)  # of (B, C, h, n) each
    return [torch.matmul(r.holds, strip) / r.counts[:, None] for r, strip in zip(rows, split, strict=True)]


def interpolation_matrix(source: int, size: int, *, align_corners: bool, like: Tensor) -> Tensor:
    """Returns the (size, source) matrix of linear interpolation along one side, `ops.resize`'s to rounding.

    Kept in at least float32: half precision would move the samples.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    cells = torch.arange(size, device=like.device).to(dtype)
    if align_corners:
        steps = cells[-1].clamp(min=1)  # a single sample lies at the first value
        at = cells * ((source - 1) / steps)
    else:
        at = ((cells + 0.5) * (source / (cells[-1] + 1)) - 0.5).clamp(min=0)
    at = at[:, None].clamp(max=source - 1)
    return (1 - (at - torch.arange(source, device=like.device)).abs()).clamp(min=0)


def _windows(size: int, bins: int, rule: PoolingRule, like: Tensor) -> _Windows:
    index, cells = torch.arange(bins, device=like.device), torch.arange(size, device=like.device)
    side = cells[-1] + 1  # a tensor, so that one exported graph serves every size
    if rule == "adaptive":
        starts = (index * side).div(bins, rounding_mode="floor")
        stops = ((index + 1) * side + bins - 1).div(bins, rounding_mode="floor")
    else:
        kernel = (side + bins - 1).div(bins, rounding_mode="floor")
        starts = torch.minimum(index * kernel, side - 1)
        stops = torch.minimum(starts + kernel, side)
    holds = (cells >= starts[:, None]) & (cells < stops[:, None])
    return _Windows(holds=holds.to(like.dtype), counts=(stops - starts).to(like.dtype))
