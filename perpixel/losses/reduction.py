"""The ways of turning a map of losses into one number, and divisors that several processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["Reduction", "divided", "reduce_pixels", "reduce_total", "shared_divisors"]

Reduction = Literal["mean_valid", "mean_all", "sum"]


class _Sharing(NamedTuple):
    share: Callable[[Tensor], Tensor]
    processes: int


_SHARING: ContextVar[_Sharing | None] = ContextVar("perpixel_shared_divisors", default=None)


@contextmanager
def shared_divisors(share: Callable[[Tensor], Tensor], *, processes: int = 1) -> Iterator[None]:
    """Makes the divisors of losses those of all processes together while it lasts.

    With ``share`` = sum over the processes, divided by their number, the average over the processes of the losses and
    of their gradients is what one process would get for the whole batch, however unevenly pixels, ignored ones and
    weights are spread. It covers every loss that is a sum over pixels, edges or classes of an image: cross-entropy in
    all forms, focal, sigmoid focal, logistic, presence. It cannot cover what is no such sum: Dice and Lovász (fractions
    and ranks over the batch) and the choice of pixels by ``min_kept`` in OHEM stay those of each process's own part.

    Args:
        share: Takes a process's divisor, a scalar tensor in the loss's dtype, and returns the one to divide by. Every
            process calls it equally often and in the same order.
        processes: How many losses are averaged in the end; the reduction ``sum`` multiplies by it.
    """
    token = _SHARING.set(_Sharing(share, processes))
    try:
        yield
    finally:
        _SHARING.reset(token)


def divided(total: Tensor, divisor: Tensor | float) -> Tensor:
    """Returns ``total`` / ``divisor``, the divisor shared where `shared_divisors` says so; 0 / 0 is 0."""
    sharing = _SHARING.get()
    if sharing is not None:
        own = torch.as_tensor(divisor, dtype=total.dtype, device=total.device)
        divisor = sharing.share(own)
    if isinstance(divisor, Tensor):
        return total / torch.where(divisor > 0, divisor, torch.ones_like(divisor))
    return total / max(divisor, 1)


def reduce_pixels(losses: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    """Sums ``losses`` and divides by the number of ``valid`` entries, of all entries, or not at all.

    Ignored entries must already be zero. Nothing valid gives zero, still attached to the graph.

    Raises:
        InvalidValue: ``reduction`` is unknown.
    """
    return reduce_total(losses.sum(), valid, reduction)


def reduce_total(total: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    """Does what `reduce_pixels` does, with a sum that is made already."""
    if reduction == "mean_valid":
        return divided(total, valid.sum())
    if reduction == "mean_all":
        return divided(total, valid.numel())
    if reduction == "sum":
        sharing = _SHARING.get()
        return total if sharing is None else total * sharing.processes
    raise InvalidValue(f"reduction is 'mean_valid', 'mean_all' or 'sum', got {reduction!r}")
