"""Softmax cross-entropy over the pixels that are not ignored. Shapes: B batch, K classes, H W scores and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.losses.reduction import Reduction, reduce_pixels

__all__ = ["cross_entropy"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
    class_weights: Sequence[float] | None = None,
    normalise: str = "weights",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy -w_y log p_y, averaged over the valid pixels.

    Args:
        logits: Class scores (B, K, H, W).
        target: Labels (B, H, W) in [0, K) or ``ignore_index``.
        ignore_index: Label left out of the sum and the count.
        reduction: ``mean_valid``, ``mean_all`` (ignored pixels count as zero) or ``sum``.
        class_weights: One factor w_k per class; None weighs all alike.
        normalise: What a weighted ``mean_valid`` divides by: ``weights`` (sum of w_y: PyTorch) or ``pixels`` (number of
            valid pixels: Caffe, and so SegNet; Badrinarayanan et al. 2017, section 3.1).
        label_smoothing: Share in [0, 1) of the target that is spread over all classes.

    Returns:
        Scalar in nats per pixel; zero, still attached to ``logits``, when every pixel is ignored.

    Raises:
        InvalidValue: the weights are not one per class, ``normalise`` is unknown, or the smoothing out of range.
    """
    if normalise not in ("weights", "pixels"):
        raise InvalidValue(f"normalise is 'weights' or 'pixels', got {normalise!r}")
    if not 0 <= label_smoothing < 1:
        raise InvalidValue(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    if class_weights is not None and len(class_weights) != logits.shape[1]:
        raise InvalidValue(f"{len(class_weights)} class weights for {logits.shape[1]} classes; give one per class")
    weight = None if class_weights is None else torch.as_tensor(class_weights, dtype=logits.dtype, device=logits.device)
    target = target.long()
    losses = F.cross_entropy(
        logits, target, weight=weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )  # (B, H, W)
    valid = target != ignore_index
    if weight is not None and normalise == "weights" and reduction == "mean_valid":
        pixel_weight = weight[target.masked_fill(~valid, 0)] * valid
        return losses.sum() / pixel_weight.sum().clamp(min=torch.finfo(losses.dtype).tiny)
    return reduce_pixels(losses, valid, reduction)
