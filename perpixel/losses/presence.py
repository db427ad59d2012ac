"""EncNet's SE-loss: which classes does the image hold? Shapes: B batch, K classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perpixel.losses.reduction import reduce_total

__all__ = ["presence_loss"]


def presence_loss(scores: Tensor, present: Tensor, *, reduction: str = "mean_valid") -> Tensor:
    """Binary cross-entropy of scores (B, K) against presence (B, K) in {0, 1}; a mean over both unless ``sum``.

    Source: Zhang et al. 2018, arXiv:1803.08904, section 3.2.
    """
    total = F.binary_cross_entropy_with_logits(scores, present.to(scores.dtype), reduction="sum")
    return reduce_total(total, present, "sum" if reduction == "sum" else "mean_all")
