"""Cross-entropy with one weight per pixel. Shapes: B batch, K classes, H W scores, labels and weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.losses.pixel_nll import FullSizeNll, PixelNll, class_weight_map, class_weight_values
from perpixel.losses.reduction import Reduction, reduce_total

__all__ = ["pixel_weighted_cross_entropy", "pixel_weighted_cross_entropy_from_nll"]


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
    return pixel_weighted_cross_entropy_from_nll(
        FullSizeNll(logits, target, ignore_index=ignore_index),
        target,
        weights,
        ignore_index=ignore_index,
        reduction=reduction,
        class_weights=class_weights,
    )


def pixel_weighted_cross_entropy_from_nll(
    nll: PixelNll,
    target: Tensor,
    weights: Tensor,
    *,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Does what `pixel_weighted_cross_entropy` does, with log-likelihoods from scores of any size; errors likewise."""
    if weights.shape != target.shape:
        raise InvalidValue(f"weights {tuple(weights.shape)} and labels {tuple(target.shape)} differ in shape")
    values = class_weight_values(nll, class_weights)
    weight = weights.to(nll.dtype)
    if values is not None:
        weight = weight * class_weight_map(values, target, ignore_index)
    return reduce_total(nll.total(weight), target != ignore_index, reduction)
