"""How much memory this process holds, and held at most; and the peak of one contender on a GPU."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import Literal

import torch

from perpixel.bench.contest import Contender

__all__ = ["MEBI", "forget_peak", "peak_megabytes", "peak_on_device"]

MEBI = 2**20


def forget_peak() -> bool:
    """Gives freed memory back and lets the peak begin anew; False where the system cannot."""
    gc.collect()
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_megabytes() -> float:
    """Returns the most memory that this process has held since the peak was last forgotten, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with what the parent held when it forked
        held = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(held.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MEBI if sys.platform == "darwin" else 1024)


def peak_on_device(
    contender: Contender, device: torch.device, *, above: Literal["run", "prepare"] = "prepare", runs: int = 2
) -> float:
    """Returns the most MiB that a contender's tensors take on a CUDA device.

    Args:
        contender: Prepared, run and forgotten.
        device: Of type cuda.
        above: What it is counted from: what was held before the run, or before anything was built.
        runs: The first may allocate what later ones reuse.
    """
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    state = contender.prepare()
    if above == "run":
        before = torch.cuda.memory_allocated(device)
    for _ in range(runs):
        torch.cuda.reset_peak_memory_stats(device)
        contender.run(state)
        torch.cuda.synchronize(device)
    held = torch.cuda.max_memory_allocated(device) - before
    del state
    gc.collect()
    torch.cuda.empty_cache()
    return held / MEBI
