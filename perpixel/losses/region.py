"""Losses on whole regions: Dice, and the Lovász extension of the Jaccard loss.

A pixel's share of them depends on all other pixels of its class, so that rare classes count as much as frequent ones.
Shapes: B batch, K classes, H W scores and labels, N valid pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["ClassAverage", "DiceClasses", "dice_loss", "lovasz_softmax_loss"]

ClassAverage = Literal["present", "all"]
DiceClasses = Literal["present", "all", "pooled"]


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    smooth: float = 1.0,
    classes: DiceClasses = "present",
    reduction: str = "mean_valid",
) -> Tensor:
    """Mean over classes of 1 - (2 |P T| + s) / (|P| + |T| + s), with sums over all valid pixels of the batch.

    Source: Milletari et al. 2016, arXiv:1606.04797, section 3, with plain instead of squared sums in the divisor.
    ``pooled`` is the form of milesial/Pytorch-UNet (smooth 1e-6): one fraction whose sums run over the classes too.

    Args:
        logits: Class scores (B, K, H, W).
        target: Labels (B, H, W) in [0, K) or ``ignore_index``.
        ignore_index: Label left out of every sum.
        smooth: s >= 0, in pixels.
        classes: Averaged over: ``present`` in the batch's labels, or ``all``; ``pooled`` sums before it divides.
        reduction: ``mean_valid`` only.

    Returns:
        Scalar in [0, 1]; zero, still attached to ``logits``, when every pixel is ignored.

    Raises:
        InvalidValue: an argument is out of range.
    """
    _check(classes, reduction, ("present", "all", "pooled"))
    if smooth < 0:
        raise InvalidValue(f"smooth must be >= 0, got {smooth}")
    valid = (target != ignore_index)[:, None]  # (B, 1, H, W)
    labels = target.long().masked_fill(~valid[:, 0], 0)[:, None]
    probs = logits.softmax(dim=1) * valid
    predicted = probs.sum(dim=(0, 2, 3))  # (K,)
    zeros = torch.zeros_like(predicted)
    hit = zeros.scatter_add(0, labels.flatten(), probs.gather(1, labels).flatten())
    true = zeros.scatter_add(0, labels.flatten(), valid.to(probs.dtype).flatten())
    if classes == "pooled":
        hit, predicted, true = (part.sum(dim=0, keepdim=True) for part in (hit, predicted, true))
    divisor = predicted + true + smooth
    losses = 1 - (2 * hit + smooth) / divisor.clamp(min=torch.finfo(probs.dtype).tiny)
    return _class_mean(losses, true > 0, "all" if classes == "all" else "present")


def lovasz_softmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    classes: ClassAverage = "present",
    reduction: str = "mean_valid",
) -> Tensor:
    """Mean over classes of the Lovász extension of 1 - IoU, over all valid pixels of the batch together.

    Each class sorts the valid pixels by error; ``at="logits"`` in a `Term` keeps that affordable.

    Source: Berman et al. 2018, arXiv:1705.08790, equations 8, 9 and 11, algorithm 1.

    Args:
        logits: Class scores (B, K, H, W).
        target: Labels (B, H, W) in [0, K) or ``ignore_index``.
        ignore_index: Label left out.
        classes: Averaged over: ``present`` in the batch's labels, or ``all``.
        reduction: ``mean_valid`` only.

    Returns:
        Scalar in [0, 1]; zero, still attached to ``logits``, when every pixel is ignored.

    Raises:
        InvalidValue: an argument is out of range.
    """
    _check(classes, reduction, ("present", "all"))
    valid = target != ignore_index  # (B, H, W)
    num_classes = logits.shape[1]
    labels = target.long().masked_fill(~valid, num_classes).flatten()
    probs = logits.softmax(dim=1).movedim(1, 0).flatten(1)  # (K, B H W)
    truth = labels == torch.arange(num_classes, device=logits.device)[:, None]
    # An ignored pixel has no error and sorts last, where it changes neither intersection nor union.
    errors = (truth.to(probs.dtype) - probs).abs() * valid.flatten()
    ordered, order = errors.sort(dim=1, descending=True)
    hits = truth.gather(1, order).to(probs.dtype)
    true = hits.sum(dim=1, keepdim=True)
    missed = hits.cumsum(dim=1)
    false = (valid.flatten()[order].to(probs.dtype) - hits).cumsum(dim=1)
    jaccard = 1 - (true - missed) / (true + false).clamp(min=1)  # (K, B H W): loss once the first n pixels are wrong
    steps = torch.diff(jaccard, dim=1, prepend=jaccard.new_zeros(num_classes, 1))
    return _class_mean((ordered * steps).sum(dim=1), true[:, 0] > 0, classes)


def _class_mean(losses: Tensor, present: Tensor, classes: ClassAverage) -> Tensor:
    if classes == "all":
        return losses.mean()
    return (losses * present).sum() / present.sum().clamp(min=1)


def _check(classes: str, reduction: str, allowed: tuple[str, ...]) -> None:
    if classes not in allowed:
        raise InvalidValue(f"classes is {' or '.join(map(repr, allowed))}, got {classes!r}")
    if reduction != "mean_valid":
        raise InvalidValue(f"a loss on regions has the reduction 'mean_valid', got {reduction!r}")
