"""Python's numbers as tensors, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["from_host"]


def from_host(values: Sequence[Any], *, device: torch.device | None, dtype: torch.dtype | None = None) -> Tensor:
    """Returns numbers, or nested sequences of them, as a tensor on a device.

    To a GPU they go through page-locked memory: a copy from elsewhere would hold the host up until all that is queued
    there is done.

    Args:
        values: As torch.tensor takes them.
        device: None is the CPU.
        dtype: None lets the values decide.
    """
    if device is not None and device.type == "cuda" and not torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)
    return torch.tensor(values, dtype=dtype, device=device)
