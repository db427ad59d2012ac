"""The three ways of turning a map of losses into one number."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["Reduction", "reduce_pixels"]

Reduction = Literal["mean_valid", "mean_all", "sum"]


def reduce_pixels(losses: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    """Sums ``losses`` and divides by the number of ``valid`` entries, of all entries, or not at all.

    Ignored entries must already be zero. Nothing valid gives zero, still attached to the graph.

    Raises:
        InvalidValue: ``reduction`` is unknown.
    """
    if reduction == "mean_valid":
        return losses.sum() / valid.sum().clamp(min=1)
    if reduction == "mean_all":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    raise InvalidValue(f"reduction is 'mean_valid', 'mean_all' or 'sum', got {reduction!r}")
