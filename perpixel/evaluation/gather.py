"""The totals of all processes of a distributed evaluation."""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist

from perpixel import errors
from perpixel.errors import PerpixelError, RunError
from perpixel.evaluation.totals import Totals

__all__ = ["gather_totals"]


def gather_totals(totals: Totals, error: Exception | None = None) -> Totals:
    """Returns the sum of every process's totals, in every process; the parts need not hold equally many images.

    Args:
        totals: Of the images of this process.
        error: What kept this process from scoring its images; the others learn of it here and wait for nothing.

    Raises:
        RunError: torch.distributed is not initialised.
        InvalidValue: an image is in two parts.
        PerpixelError: an error of this kind came up in another process, which the message names.
        Exception: ``error`` itself.
    """
    if not dist.is_initialized():
        raise RunError("world_size is above 1, but torch.distributed is not initialised; start with torchrun")
    said = None if error is None else _Failure(type(error).__name__, str(error), isinstance(error, PerpixelError))
    parts: list[Totals | _Failure | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, totals if said is None else said)
    if error is not None:
        raise error
    whole = Totals(totals.num_classes, totals.measures)
    for rank, part in enumerate(parts):
        if isinstance(part, _Failure):
            text = part.message if part.is_ours else f"{part.kind}: {part.message}"
            raise getattr(errors, part.kind, RunError)(f"rank {rank} of {len(parts)}, in the evaluation: {text}")
        if part is not None:
            whole.merge(part)
    return whole


class _Failure(NamedTuple):
    """An error on its way to the other processes."""

    kind: str
    message: str
    is_ours: bool
