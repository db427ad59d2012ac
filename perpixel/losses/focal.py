"""Focal losses: the textbook ones, and TorchSeg's under its own name. Shapes: B batch, K classes, H W scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.losses.pixel_nll import FullSizeNll, PixelNll
from perpixel.losses.reduction import Reduction, reduce_pixels, reduce_total

__all__ = ["focal_loss", "focal_loss_from_nll", "sigmoid_focal_loss", "torchseg_focal_loss"]


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
) -> Tensor:
    """Binary focal loss -a (1 - p)^gamma log p, with p the probability of the true side and a its weight.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5; DFN's loss on borders (arXiv:1804.09337, equation 3).

    Args:
        logits: Scores (B, 1, H, W) of the positive side.
        target: 0, 1 or ``ignore_index``, (B, H, W).
        alpha: Weight in [0, 1] of positives; negatives weigh 1 - alpha.
        gamma: Focusing exponent >= 0.
        ignore_index: Label left out of the sum and the count.
        reduction: ``mean_valid``, ``mean_all`` or ``sum``.

    Raises:
        InvalidValue: ``alpha`` or ``gamma`` is out of range.
    """
    _check(alpha, gamma)
    scores = logits[:, 0]
    valid = target != ignore_index
    positive = (target == 1).to(scores.dtype)
    nll = F.binary_cross_entropy_with_logits(scores, positive, reduction="none")
    wrong = torch.sigmoid(torch.where(target == 1, -scores, scores))  # 1 - p, without cancellation
    weight = alpha * positive + (1 - alpha) * (1 - positive)
    losses = weight * wrong**gamma * nll
    return reduce_pixels(losses.masked_fill(~valid, 0), valid, reduction)


def torchseg_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    ignore_index: int = 255,
    reduction: Reduction = "mean_all",
) -> Tensor:
    """TorchSeg's SigmoidFocalLoss as it is coded, which is not a focal loss; kept to compare with its checkpoints.

    A probability stands where the logit was meant, so the loss is never positive and its gradient drives every score
    up, whatever the label (ycszen/TorchSeg, issue 16). Nobody should train with it. Arguments as in
    `sigmoid_focal_loss`.

    Raises:
        InvalidValue: ``alpha`` or ``gamma`` is out of range.
    """
    _check(alpha, gamma)
    p = torch.sigmoid(logits[:, 0])
    valid = target != ignore_index
    positive = target.masked_fill(~valid, 0).to(p.dtype)
    gain = alpha * (1 - p) ** gamma * (p - p * positive) + (1 - alpha) * p**gamma * F.softplus(-p)
    return reduce_pixels((-gain).masked_fill(~valid, 0), valid, reduction)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
) -> Tensor:
    """Multi-class focal loss -(1 - p_y)^gamma log p_y with softmax probabilities; gamma 0 is cross-entropy.

    Args:
        logits: Class scores (B, K, H, W).
        target: Labels (B, H, W) in [0, K) or ``ignore_index``.
        gamma: Focusing exponent >= 0.
        ignore_index: Label left out of the sum and the count.
        reduction: ``mean_valid``, ``mean_all`` or ``sum``.

    Raises:
        InvalidValue: ``gamma`` is negative.
    """
    nll = FullSizeNll(logits, target, ignore_index=ignore_index)
    return focal_loss_from_nll(nll, target, gamma=gamma, ignore_index=ignore_index, reduction=reduction)


def focal_loss_from_nll(
    nll: PixelNll,
    target: Tensor,
    *,
    gamma: float = 2.0,
    ignore_index: int = 255,
    reduction: Reduction = "mean_valid",
) -> Tensor:
    """Does what `focal_loss` does, with log-likelihoods from scores of any size; its arguments and errors."""
    _check(0.5, gamma)
    return reduce_total(nll.total(focus=gamma), target != ignore_index, reduction)


def _check(alpha: float, gamma: float) -> None:
    if not 0 <= alpha <= 1:
        raise InvalidValue(f"alpha must lie in [0, 1], got {alpha}")
    if gamma < 0:
        raise InvalidValue(f"gamma must be >= 0, got {gamma}")
