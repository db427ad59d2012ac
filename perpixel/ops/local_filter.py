"""Filtering by a window of its own at every pixel, made from an image: the smoothing of DPN's layer b12.

A window of 50 x 50 at each of 512 x 512 pixels is 655 million weights; they are computed and used band by band of rows,
and computed again in the backward pass. Shapes: B batch, C channels of the values, G of the guide, H W map, n window.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from perpixel.errors import InvalidValue

__all__ = ["LocalWeights", "block_min", "local_filter"]

LocalWeights = Literal["similarity", "distance"]


def local_filter(
    values: Tensor,
    guide: Tensor,
    precisions: Tensor,
    *,
    window: int,
    kind: LocalWeights = "similarity",
    recompute: bool = False,
    budget: int = 2**26,
) -> Tensor:
    """Replaces each pixel by the weighted mean of the window around it, the same weights for all channels.

    With d(j, z) = a |g_j - g_z|² + b |x_j - x_z|² for pixel j and neighbour z, places x in pixels, the weight of z is
    exp(-d) over the sum of exp(-d) in the window (``similarity``) or d over the number of neighbours (``distance``).
    Neighbours outside the map do not count.

    Args:
        values: What is filtered (B, C, H, W).
        guide: Where the likeness of pixels is read (B, G, H, W).
        precisions: (2,): a, per squared unit of the guide, and b, per squared pixel.
        window: n >= 1; an even window reaches n/2 pixels up and left, n/2 - 1 down and right.
        kind: Which weights.
        recompute: Keep nothing for the backward pass but the arguments, and compute the weights again there.
        budget: Values held at once in the unfolded window, at least one row of them.

    Returns:
        (B, C, H, W).

    Raises:
        InvalidValue: the window is not positive, the kind unknown or the maps differ in size.
    """
    if window < 1:
        raise InvalidValue(f"window must be >= 1 pixel, got {window}")
    if kind not in ("similarity", "distance"):
        raise InvalidValue(f"kind is 'similarity' or 'distance', got {kind!r}")
    if values.shape[-2:] != guide.shape[-2:]:
        raise InvalidValue(f"values are {tuple(values.shape[-2:])} and the guide is {tuple(guide.shape[-2:])} pixels")
    batch, channels, height, width = values.shape
    before, after = window // 2, (window - 1) // 2
    edges = (before, after, before, after)
    wide_values, wide_guide = F.pad(values, edges), F.pad(guide, edges)
    inside = F.pad(torch.ones_like(values[:1, 0]), edges)[:, None]  # (1, 1, H + n - 1, W + n - 1)
    wide = torch.cat([wide_values, wide_guide, inside.expand(batch, -1, -1, -1)], dim=1)
    rows = max(1, budget // (batch * wide.shape[1] * width * window * window))
    bands = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = wide[:, :, top : bottom + window - 1]
        arguments = (band, guide[:, :, top:bottom], precisions, channels, window, kind)
        bands.append(checkpoint(_band, *arguments, use_reentrant=False) if recompute else _band(*arguments))
    return torch.cat(bands, dim=2)


def block_min(x: Tensor, block: int) -> Tensor:
    """Takes the least of every ``block`` channels in a row: (B, C · block, H, W) -> (B, C, H, W); DPN's layer b14."""
    return x.reshape(x.shape[0], -1, block, *x.shape[2:]).amin(dim=2)


def _band(band: Tensor, centre: Tensor, precisions: Tensor, channels: int, window: int, kind: LocalWeights) -> Tensor:
    """Filters the rows of a band: (B, C + G + 1, r + n - 1, W + n - 1), centre (B, G, r, W) -> (B, C, r, W)."""
    near = band.unfold(2, window, 1).unfold(3, window, 1).flatten(4)  # (B, C + G + 1, r, W, n²)
    values, guide, inside = near[:, :channels], near[:, channels:-1], near[:, -1]
    unlike = (guide - centre[..., None]).square().sum(dim=1)  # (B, r, W, n²)
    steps = torch.arange(window, dtype=centre.dtype, device=centre.device) - window // 2
    away = (steps[:, None].square() + steps.square()).flatten()  # (n²,)
    distance = precisions[0] * unlike + precisions[1] * away
    weights = torch.exp(-distance) * inside if kind == "similarity" else distance * inside
    total = weights.sum(dim=-1) if kind == "similarity" else inside.sum(dim=-1)
    return (values * weights[:, None]).sum(dim=-1) / total[:, None]
