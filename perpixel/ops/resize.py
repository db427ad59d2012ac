"""Resizing of scores and of labels: the only two ways in which perpixel changes a map's size.

Shapes: B batch, C channels, H W source size, h w target size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize", "resize_labels"]


def resize(x: Tensor, size: tuple[int, int] | torch.Size, *, align_corners: bool) -> Tensor:
    """Resizes (B, C, H, W) to (B, C, h, w) bilinearly, without antialiasing; the same tensor when the size is right."""
    # A graph exported for any size must not depend on which sizes agree: it always resizes, at worst to no effect.
    if not torch.compiler.is_exporting() and x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


def resize_labels(target: Tensor, size: tuple[int, int] | torch.Size, *, align_corners: bool) -> Tensor:
    """Picks for each cell of a (B, h, w) grid the label of the nearest pixel of (B, H, W); never makes a new label.

    With ``align_corners`` false cells and pixels are areas (PyTorch's ``nearest-exact``); with true the corner pixels
    of both grids coincide, so that 8n+1 pixels brought to n+1 cells are ``target[:, ::8, ::8]`` (DeepLab v1).
    """
    if target.shape[-2:] == tuple(size):
        return target
    rows = _nearest_indices(target.shape[-2], size[0], align_corners, target.device)
    columns = _nearest_indices(target.shape[-1], size[1], align_corners, target.device)
    return target[..., rows[:, None], columns]


def _nearest_indices(source: int, wanted: int, align_corners: bool, device: torch.device) -> Tensor:
    # Whole-number arithmetic: floating point moves exact ties by a pixel.
    cells = torch.arange(wanted, device=device)
    if not align_corners:
        return ((2 * cells + 1) * source).div(2 * wanted, rounding_mode="floor")
    if wanted == 1:
        return torch.zeros(1, dtype=torch.long, device=device)
    return (2 * cells * (source - 1) + wanted - 1).div(2 * (wanted - 1), rounding_mode="floor")
