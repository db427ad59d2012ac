"""Cross-entropy on the hard pixels only. Shapes: B batch, K classes, H W scores and labels, N pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["ohem_cross_entropy"]


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
    if not 0 < threshold <= 1 or min_kept < 0:
        raise InvalidValue(f"threshold must lie in (0, 1] and min_kept be >= 0, got {threshold} and {min_kept}")
    if reduction not in ("mean_valid", "sum"):
        raise InvalidValue(f"the reduction of OHEM is 'mean_valid' or 'sum', got {reduction!r}")
    if normalise not in ("weights", "pixels"):
        raise InvalidValue(f"normalise is 'weights' or 'pixels', got {normalise!r}")
    if class_weights is not None and len(class_weights) != logits.shape[1]:
        raise InvalidValue(f"{len(class_weights)} class weights for {logits.shape[1]} classes; give one per class")
    target = target.long()
    nll = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none").flatten()  # (N,)
    valid = (target != ignore_index).flatten()
    probability = torch.exp(-nll.detach()).masked_fill(~valid, 1.0)
    k = min(max(min_kept, 1), probability.numel())
    kth = probability.kthvalue(k).values if min_kept > 0 else probability.new_zeros(())
    mined = probability <= torch.clamp(kth, min=threshold)
    # Too few valid pixels: no mining. A where instead of an if, so that the host never waits for the device.
    kept = valid & (mined | (valid.sum() < min_kept))
    if class_weights is None:
        total = (nll * kept).sum()
        return total if reduction == "sum" else total / kept.sum().clamp(min=1)
    weight = torch.as_tensor(class_weights, dtype=nll.dtype, device=nll.device)
    weight = weight[target.flatten().masked_fill(~valid, 0)] * kept  # (N,)
    total = (nll * weight).sum()
    if reduction == "sum":
        return total
    if normalise == "pixels":
        return total / kept.sum().clamp(min=1)
    return total / weight.sum().clamp(min=torch.finfo(nll.dtype).tiny)
