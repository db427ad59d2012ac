"""Border targets made from label maps on the device (DFN, section 3.3: the Border Network's supervision).

Shapes: B batch, H W image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["border_targets"]


def border_targets(
    target: Tensor, *, radius: int = 3, ignore_index: int = 255, ignored_is_border: bool = False
) -> Tensor:
    """Marks the pixels within ``radius`` of a change of class.

    A pixel is a transition when its label differs from that of the pixel to its right or below it (as TorchSeg's
    Canny column, which lies on the left or upper side); transitions are dilated by a square of 2 radius + 1 pixels.
    Differs from TorchSeg's targets (OpenCV's Canny on class ids, 7x7 dilation) by a few pixels at corners, and, unless
    ``ignored_is_border``, in that it makes no border out of the edge of an ignored region and ignores ignored pixels.

    Args:
        target: Labels (B, H, W), any integer type.
        radius: Half-width of the dilation in pixels, >= 0; TorchSeg's 7x7 rectangle is 3.
        ignore_index: Label of ignored pixels.
        ignored_is_border: Treat ignored pixels as class 0 and score them, as TorchSeg does.

    Returns:
        (B, H, W) of the type of ``target``: 1 at borders, 0 elsewhere, ``ignore_index`` where the label is ignored.

    Raises:
        InvalidValue: ``radius`` is negative.
    """
    if radius < 0:
        raise InvalidValue(f"radius must be >= 0 pixels, got {radius}")
    ignored = target == ignore_index
    labels = target.masked_fill(ignored, 0) if ignored_is_border else target
    edge = torch.zeros(target.shape, dtype=torch.bool, device=target.device)
    edge[:, :, :-1] |= _differ(labels[:, :, :-1], labels[:, :, 1:], ignore_index)
    edge[:, :-1, :] |= _differ(labels[:, :-1, :], labels[:, 1:, :], ignore_index)
    side = 2 * radius + 1
    band = F.max_pool2d(edge[:, None].float(), (side, 1), stride=1, padding=(radius, 0))
    band = F.max_pool2d(band, (1, side), stride=1, padding=(0, radius))[:, 0]  # (B, H, W)
    borders = band.to(target.dtype)
    return borders if ignored_is_border else borders.masked_fill(ignored, ignore_index)


def _differ(a: Tensor, b: Tensor, ignore_index: int) -> Tensor:
    return (a != b) & (a != ignore_index) & (b != ignore_index)
