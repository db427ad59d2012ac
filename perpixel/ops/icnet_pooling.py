"""The pyramid pooling of ICNet: averages over windows whose rule is an option, without parameters.

The authors pool a map of 33x65 cells (an image of 1025x2049 pixels) by four pairs of kernel and stride, written out for
that size: (33, 65) / (33, 65), (17, 33) / (16, 32), (13, 25) / (10, 20) and (8, 15) / (5, 10), to 1, 2, 3 and 6 bins.

Shapes: B batch, C channels, h w feature map, s cells along a side, n bins, m windows along a side.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from perpixel.ops.bin_pooling import pool_pyramid

__all__ = ["BINS", "ICNetPooling", "pool_icnet"]

ICNetPooling = Literal["published", "floor", "adaptive", "ptsemseg"]
BINS = (1, 2, 3, 6)
# Stride by number of bins on a side of 33 cells, that is per 32 steps from the first cell to the last.
_PUBLISHED_STRIDES = {1: 32, 2: 16, 3: 10, 6: 5}
_STEPS = 32
_PUBLISHED_SIDES = (33, 65)


def pool_icnet(x: Tensor, rule: ICNetPooling) -> list[Tensor]:
    """Averages (B, C, h, w) over 1, 2, 3 and 6 bins a side, (B, C, m_h, m_w) each.

    ``published``: stride (s - 1) p // 32, at least 1, with p = 16, 10, 5 the published one of a side of 33; the kernel
    is what n windows at that stride leave, s - (n - 1) stride, so that they reach from the first cell to the last. At
    33 and 65 cells these are the published kernels and strides. Where s < n, windows repeat the last cell.

    ``floor``: kernel = stride = s // n, at least 1, without what is left at the end; m can exceed n (7 cells for 6
    bins). This is how meetshah1995/pytorch-semseg trains.

    ``ptsemseg``: that code base as a whole, which evaluates with the published numbers where they are meant for and
    has none elsewhere: ``published`` on sides of 33 and 65 cells, ``floor`` on all others.

    ``adaptive``: PyTorch's adaptive average pooling.
    """
    if rule == "adaptive":
        return pool_pyramid(x, BINS, "adaptive")
    pooled = []
    for bins in BINS:
        (rows, height), (columns, width) = (_windows(size, bins, rule, x) for size in x.shape[-2:])
        # Expanded to a batch: the reshape of a plain product would ask an exported graph for facts about its sizes.
        strips = x @ columns.T.expand(*x.shape[:2], -1, -1)  # (B, C, h, m_w)
        pooled.append(rows.expand(*x.shape[:2], -1, -1) @ strips / (height * width))
    return pooled


def _windows(size: int, bins: int, rule: ICNetPooling, like: Tensor) -> tuple[Tensor, Tensor]:
    """(m, size), 1 where a window of one side holds a cell and else 0, and how many cells each window holds."""
    cells = torch.arange(size, device=like.device)
    side = cells[-1] + 1  # a tensor, so that one exported graph serves every size
    stride = ((side - 1) * _PUBLISHED_STRIDES[bins] // _STEPS).clamp(min=1)
    kernel = (side - (bins - 1) * stride).clamp(min=1)
    count: int | torch.SymInt = bins
    if rule != "published":
        whole = (side // bins).clamp(min=1)
        meant = (side == _PUBLISHED_SIDES[0]) | (side == _PUBLISHED_SIDES[1])
        published = meant if rule == "ptsemseg" else torch.zeros_like(meant)
        stride, kernel = torch.where(published, stride, whole), torch.where(published, kernel, whole)
        count = size // torch.sym_max(size // bins, 1)
    starts = (torch.arange(count, device=like.device) * stride).clamp(max=side - 1)[:, None]
    holds = (cells >= starts) & (cells < starts + kernel)
    return holds.to(like.dtype), kernel.to(like.dtype)
