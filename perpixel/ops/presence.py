"""Which classes an image holds (EncNet's SE-loss target). Shapes: B batch, H W image, K classes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["presence_targets"]


def presence_targets(target: Tensor, num_classes: int, *, ignore_index: int = 255) -> Tensor:
    """Returns (B, K) float32: 1 where a class has at least one pixel in the label map (B, H, W), else 0.

    Source: Zhang et al. 2018, arXiv:1803.08904, section 3.2. Labels outside [0, K) mark nothing, ``ignore_index`` too.
    """
    labels = target.flatten(1).long()
    outside = (labels == ignore_index) | (labels < 0) | (labels >= num_classes)
    labels = labels.masked_fill(outside, num_classes)  # a spare column takes what marks nothing
    present = torch.zeros(target.shape[0], num_classes + 1, device=target.device)
    return present.scatter_(1, labels, 1.0)[:, :num_classes]
