"""Resizing of scores and of labels: the only ways in which perpixel changes a map's size.

On CUDA PyTorch adds up the gradients of bilinear resizing and of adaptive pooling in an order of chance. Where it is
told to be deterministic they are two small matrix products here: both work along columns and along rows, so that their
transposes do too. Shapes: B batch, C channels, H W source size, h w target size.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["average_to", "deterministic_resize", "resize", "resize_labels"]

_Rule = Literal["bilinear", "aligned", "average"]


def resize(x: Tensor, size: tuple[int, int] | torch.Size, *, align_corners: bool) -> Tensor:
    """Resizes (B, C, H, W) to (B, C, h, w) bilinearly, without antialiasing; the same tensor when the size is right."""
    # A graph exported for any size must not depend on which sizes agree: it always resizes, at worst to no effect.
    if not torch.compiler.is_exporting() and x.shape[-2:] == tuple(size):
        return x
    return _resized(x, (size[0], size[1]), "aligned" if align_corners else "bilinear")


def average_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Averages (B, C, H, W) over h x w windows that cover it, as adaptive average pooling does: (B, C, h, w)."""
    return _resized(x, size, "average")


def deterministic_resize(x: Tensor, size: tuple[int, int], rule: _Rule) -> Tensor:
    """Resizes (B, C, H, W) to (B, C, h, w) with a gradient that no order of additions changes, on any device.

    Args:
        x: Half precision has its gradient computed in float32.
        size: (h, w).
        rule: ``bilinear``, the same with ``aligned`` corners, or ``average`` for adaptive average pooling.
    """
    resized: Tensor = _WithMatrices.apply(x, size, rule)
    return resized


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


def _resized(x: Tensor, size: tuple[int, int], rule: _Rule) -> Tensor:
    if x.is_cuda and x.requires_grad and torch.are_deterministic_algorithms_enabled():
        return deterministic_resize(x, size, rule)
    return _forward(x, size, rule)


def _forward(x: Tensor, size: tuple[int, int], rule: _Rule) -> Tensor:
    if rule == "average":
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=rule == "aligned")


class _WithMatrices(torch.autograd.Function):
    """The forward of PyTorch, and as its backward the transposed matrices of the two directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int], rule: _Rule) -> Tensor:
        ctx.source, ctx.rule = (x.shape[-2], x.shape[-1]), rule
        return _forward(x, size, rule)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        height, width = ctx.source
        wide = grad.double() if grad.dtype == torch.float64 else grad.float()
        rows = _shares(height, grad.shape[-2], ctx.rule, wide)
        columns = _shares(width, grad.shape[-1], ctx.rule, wide)
        return (rows.mT @ (wide @ columns)).to(grad.dtype), None, None


def _shares(source: int, wanted: int, rule: _Rule, like: Tensor) -> Tensor:
    """What each of ``wanted`` places takes from each of ``source``: (wanted, source), what the forward itself gives."""
    single = torch.eye(source, dtype=like.dtype, device=like.device)[None, None]
    return _forward(single, (wanted, source), rule)[0, 0]
