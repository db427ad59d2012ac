"""Masks of every class, grown and shrunk by a disk: the targets of LRR's boundary losses.

Source: Ghiasi & Fowlkes, ECCV 2016, arXiv:1605.02264, and their code (golnazghiasi/LRR), where ignored pixels count as
background. Shapes: B batch, K classes, H W label map, h w grid of the result.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.resize import resize_labels

__all__ = ["dilated_masks", "eroded_masks"]


def dilated_masks(
    target: Tensor,
    num_classes: int,
    *,
    radius: int,
    size: tuple[int, int] | None = None,
    align_corners: bool = False,
    ignore_index: int = 255,
    ignored_as: int = 0,
) -> Tensor:
    """Marks, per class, the pixels within ``radius`` of a pixel of that class.

    The disk holds the offsets with dy² + dx² <= radius²; the authors' (MATLAB's ``strel``) is an octagon-like
    approximation of it. Only the cells of the asked grid are computed.

    Args:
        target: Labels (B, H, W), any integer type.
        num_classes: K.
        radius: Of the disk in pixels of ``target``, >= 0.
        size: (h, w) of the result, cells picked as `resize_labels` picks them; None keeps (H, W).
        align_corners: Policy of that picking.
        ignore_index: Label of ignored pixels.
        ignored_as: Class that ignored pixels are counted to; the authors' is 0, the background.

    Returns:
        (B, K, h, w) float32 of 0 and 1.

    Raises:
        InvalidValue: ``radius`` is negative.
    """
    return _moved(target, num_classes, radius, size, align_corners, (ignore_index, ignored_as), shrink=False)


def eroded_masks(
    target: Tensor,
    num_classes: int,
    *,
    radius: int,
    size: tuple[int, int] | None = None,
    align_corners: bool = False,
    ignore_index: int = 255,
    ignored_as: int = 0,
) -> Tensor:
    """Marks, per class, the pixels with no other class within ``radius``; the map's own edge takes nothing away.

    Arguments, result and errors are those of `dilated_masks`.
    """
    return _moved(target, num_classes, radius, size, align_corners, (ignore_index, ignored_as), shrink=True)


def _moved(
    target: Tensor,
    num_classes: int,
    radius: int,
    size: tuple[int, int] | None,
    align_corners: bool,
    ignored: tuple[int, int],
    *,
    shrink: bool,
) -> Tensor:
    if radius < 0:
        raise InvalidValue(f"radius must be >= 0 pixels, got {radius}")
    height, width = target.shape[-2:]
    h, w = (height, width) if size is None else size
    labels = target.long().masked_fill(target == ignored[0], ignored[1])
    pixels_y = torch.arange(height, device=target.device).view(1, height, 1)
    pixels_x = torch.arange(width, device=target.device).view(1, 1, width)
    rows = resize_labels(pixels_y, (h, 1), align_corners=align_corners).flatten()
    columns = resize_labels(pixels_x, (1, w), align_corners=align_corners).flatten()
    masks = []
    for index in range(num_classes):  # class by class: the running sums of all at once would take K times the memory
        own = labels == index
        reached = _disk_reaches(own != shrink, radius, rows, columns)
        masks.append(reached != shrink)
    return torch.stack(masks, dim=1).float()


def _disk_reaches(mask: Tensor, radius: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Whether a disk around (row, column) holds a true pixel of (B, H, W): (B, h, w).

    Each row of the disk is an interval, and running sums tell at once whether an interval is empty.
    """
    height, width = mask.shape[-2:]
    sums = torch.nn.functional.pad(mask.to(torch.int32).cumsum(-1, dtype=torch.int32), (1, 0))  # (B, H, W + 1)
    reached = mask.new_zeros((mask.shape[0], len(rows), len(columns)))
    for dy in range(-radius, radius + 1):
        half = isqrt(radius * radius - dy * dy)
        source = rows + dy
        inside = (source >= 0) & (source < height)
        line = sums[:, source.clamp(0, height - 1)]  # (B, h, W + 1)
        count = line[..., (columns + half + 1).clamp(max=width)] - line[..., (columns - half).clamp(min=0)]
        reached |= (count > 0) & inside[:, None]
    return reached
