"""In which number format the forward pass runs, and why."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from perpixel.errors import InvalidValue, nearest

__all__ = ["PRECISIONS", "PrecisionChoice", "autocast", "choose_precision"]

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class PrecisionChoice(NamedTuple):
    """A key of ``PRECISIONS`` and the reason for it."""

    name: str
    reason: str


def choose_precision(precision: str, device: torch.device | str) -> PrecisionChoice:
    """Settles ``"auto"``: bf16 where the device multiplies it in hardware, fp32 elsewhere.

    Args:
        precision: ``"auto"`` or a key of ``PRECISIONS``; a named one is kept.
        device: Where the network runs.

    Raises:
        InvalidValue: the name is unknown, or fp16 is asked for on anything but CUDA.
    """
    device = torch.device(device)
    known = ("auto", *PRECISIONS)
    if precision not in known:
        raise InvalidValue(f"unknown precision {precision!r}; known: {', '.join(known)}{nearest(precision, known)}")
    if precision == "fp16" and device.type != "cuda":
        raise InvalidValue(f"precision fp16 trains on CUDA only, the device is {str(device)!r}; use bf16, fp32 or auto")
    if precision != "auto":
        return PrecisionChoice(precision, "asked for")
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return PrecisionChoice("bf16", f"the GPU (capability {major}.{minor}) computes bf16 in hardware")
        return PrecisionChoice("fp32", f"the GPU (capability {major}.{minor}) has no bf16 hardware")
    if device.type == "cpu":
        found = [name for name in ("avx512_bf16", "amx_bf16") if _cpu_capabilities().get(name)]
        if found:
            return PrecisionChoice("bf16", f"the CPU has {' and '.join(found)}")
        return PrecisionChoice("fp32", "the CPU has neither avx512_bf16 nor amx_bf16")
    return PrecisionChoice("fp32", f"nothing is known of bf16 on {device.type}")


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[Any]:
    """Returns the context in which a network computes in ``precision``; fp32 changes nothing.

    Raises:
        InvalidValue: the name is no key of ``PRECISIONS``; settle ``"auto"`` with ``choose_precision`` first.
    """
    if precision not in PRECISIONS:
        raise InvalidValue(
            f"autocast takes one of {', '.join(PRECISIONS)}, got {precision!r}{nearest(precision, PRECISIONS)}"
        )
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=PRECISIONS[precision])


@functools.cache
def _cpu_capabilities() -> dict[str, Any]:
    """Returns torch's table of instruction sets, empty where this torch has none."""
    table = getattr(torch.cpu, "get_capabilities", None)
    return dict(table()) if table is not None else {}
