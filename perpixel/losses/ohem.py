"""Cross-entropy on the hard pixels only. Shapes: B batch, K classes, H W scores and labels, N pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.losses.pixel_nll import FullSizeNll, PixelNll, class_weight_map, class_weight_values
from perpixel.losses.reduction import divided, reduce_pixels

__all__ = ["ohem_cross_entropy", "ohem_cross_entropy_from_nll"]


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    ignore_index: int = 255,
    reduction: str = "mean_valid",
    class_weights: Sequence[float] | None = None,
    normalise: str = "weights",
) -> Tensor:
    """Mean cross-entropy over pixels whose true class has a probability of at most a threshold.

    The threshold is raised to the ``min_kept``-th smallest such probability of the batch, so that at least that many
    pixels count; with fewer valid pixels than that all of them do (ycszen/TorchSeg, ProbOhemCrossEntropy2d).

    Args:
        logits: Class scores (B, K, H, W).
        target: Labels (B, H, W) in [0, K) or ``ignore_index``.
        threshold: Probability in (0, 1].
        min_kept: Pixels of the whole batch, >= 0.
        ignore_index: Label left out.
        reduction: ``mean_valid`` (over the kept pixels) or ``sum``.
        class_weights: One factor per class on the kept pixels' losses; which pixels are kept does not depend on them.
        normalise: What a weighted ``mean_valid`` divides by: ``weights`` of the kept pixels (TorchSeg) or their number,
            ``pixels`` (HRNet-Semantic-Segmentation).

    Raises:
        InvalidValue: an argument is out of range.
    """
    return ohem_cross_entropy_from_nll(
        FullSizeNll(logits, target, ignore_index=ignore_index),
        target,
        threshold=threshold,
        min_kept=min_kept,
        ignore_index=ignore_index,
        reduction=reduction,
        class_weights=class_weights,
        normalise=normalise,
    )


def ohem_cross_entropy_from_nll(
    nll: PixelNll,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    ignore_index: int = 255,
    reduction: str = "mean_valid",
    class_weights: Sequence[float] | None = None,
    normalise: str = "weights",
) -> Tensor:
    """Does what `ohem_cross_entropy` does, with log-likelihoods from scores of any size; its arguments and errors."""
    if not 0 < threshold <= 1 or min_kept < 0:
        raise InvalidValue(f"threshold must lie in (0, 1] and min_kept be >= 0, got {threshold} and {min_kept}")
    if reduction not in ("mean_valid", "sum"):
        raise InvalidValue(f"the reduction of OHEM is 'mean_valid' or 'sum', got {reduction!r}")
    if normalise not in ("weights", "pixels"):
        raise InvalidValue(f"normalise is 'weights' or 'pixels', got {normalise!r}")
    values = class_weight_values(nll, class_weights)
    losses = nll.values()  # (B, H, W)
    kept = _hard_pixels(losses.detach(), target != ignore_index, threshold, min_kept)
    weight = kept if values is None else class_weight_map(values, target, ignore_index) * kept
    if reduction == "sum" or values is None or normalise == "pixels":
        return reduce_pixels(losses * weight, kept, "sum" if reduction == "sum" else "mean_valid")
    return divided((losses * weight).sum(), weight.sum())


def _hard_pixels(losses: Tensor, valid: Tensor, threshold: float, min_kept: int) -> Tensor:
    """Tells which pixels count: (B, H, W)."""
    probability = torch.exp(-losses).masked_fill(~valid, 1.0)
    k = min(max(min_kept, 1), probability.numel())
    kth = probability.flatten().kthvalue(k).values if min_kept > 0 else probability.new_zeros(())
    mined = probability <= torch.clamp(kth, min=threshold)
    # Too few valid pixels: no mining. An or instead of an if, so that the host never waits for the device.
    return valid & (mined | (valid.sum() < min_kept))
