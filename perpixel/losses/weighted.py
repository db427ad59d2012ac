"""Cross-entropy with one weight per pixel. Shapes: B batch, K classes, H W scores, labels and weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.losses.reduction import Reduction, reduce_pixels

__all__ = ["pixel_weighted_cross_entropy"]


def pixel_weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Returns the weighted sum of -w(x) log p(x), by default divided by the number of valid pixels.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, equation 1, whose sum is ``reduction="sum"``. The divisor counts
    pixels and not weights, so that a map with heavier pixels pulls more.

    Args:
        logits: Class scores (B, K, H, W).
        target: Labels (B, H, W) in [0, K) or ``ignore_index``.
        weights: w (B, H, W), >= 0; `perpixel.ops.distance_weights` makes U-Net's.
        ignore_index: Label left out of the sum and the count.
        reduction: ``mean_valid``, ``mean_all`` or ``sum``.
        class_weights: One more factor per class; None is 1.

    Returns:
        Scalar in nats per pixel; zero, still attached to ``logits``, when every pixel is ignored.

    Raises:
        InvalidValue: weights and labels differ in shape, or there is not one class weight per class.
    """
    if weights.shape != target.shape:
        raise InvalidValue(f"weights {tuple(weights.shape)} and labels {tuple(target.shape)} differ in shape")
    if class_weights is not None and len(class_weights) != logits.shape[1]:
        raise InvalidValue(f"{len(class_weights)} class weights for {logits.shape[1]} classes; give one per class")
    factor = None if class_weights is None else torch.as_tensor(class_weights, dtype=logits.dtype, device=logits.device)
    target = target.long()
    losses = F.cross_entropy(logits, target, weight=factor, ignore_index=ignore_index, reduction="none")  # (B, H, W)
    return reduce_pixels(losses * weights.to(losses.dtype), target != ignore_index, reduction)
