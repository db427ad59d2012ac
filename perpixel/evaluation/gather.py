"""The totals of all processes of a distributed evaluation."""

from __future__ import annotations

import torch.distributed as dist

from perpixel.errors import RunError
from perpixel.evaluation.totals import Totals

__all__ = ["gather_totals"]


def gather_totals(totals: Totals) -> Totals:
    """Returns the sum of every process's totals, in every process; the parts need not hold equally many images.

    Raises:
        RunError: torch.distributed is not initialised.
        InvalidValue: an image is in two parts.
    """
    if not dist.is_initialized():
        raise RunError("world_size is above 1, but torch.distributed is not initialised; start with torchrun")
    parts: list[Totals | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, totals)
    whole = Totals(totals.num_classes, totals.measures)
    for part in parts:
        if part is not None:
            whole.merge(part)
    return whole
