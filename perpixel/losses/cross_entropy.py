"""Softmax cross-entropy over the pixels that are not ignored. Shapes: B batch, K classes, H W scores and labels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.losses.pixel_nll import FullSizeNll, PixelNll, class_weight_map, class_weight_values
from perpixel.losses.reduction import Reduction, divided, reduce_total

__all__ = ["cross_entropy", "cross_entropy_from_nll"]


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
    return cross_entropy_from_nll(
        FullSizeNll(logits, target, ignore_index=ignore_index),
        target,
        ignore_index=ignore_index,
        reduction=reduction,
        class_weights=class_weights,
        normalise=normalise,
        label_smoothing=label_smoothing,
    )


def cross_entropy_from_nll(
    nll: PixelNll,
    target: Tensor,
    *,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
    class_weights: Sequence[float] | None = None,
    normalise: str = "weights",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Does what `cross_entropy` does, with log-likelihoods from scores of any size; its arguments and errors."""
    if normalise not in ("weights", "pixels"):
        raise InvalidValue(f"normalise is 'weights' or 'pixels', got {normalise!r}")
    if not 0 <= label_smoothing < 1:
        raise InvalidValue(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    values = class_weight_values(nll, class_weights)
    weight = None if values is None else class_weight_map(values, target, ignore_index)  # (B, H, W)
    mix = None
    if label_smoothing:
        num_classes = nll.logits.shape[1]
        ones = nll.logits.new_ones(num_classes, dtype=nll.dtype)
        mix = (ones if values is None else values) * (label_smoothing / num_classes)
    total = nll.total(weight, own=1 - label_smoothing, class_mix=mix)
    if weight is not None and normalise == "weights" and reduction == "mean_valid":
        return divided(total, weight.sum())
    return reduce_total(total, target != ignore_index, reduction)
