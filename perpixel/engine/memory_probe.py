"""The peak of real training steps, and a heap that gives memory back at once.

glibc keeps what is freed below a threshold that rises to 32 MiB, and its holes are not filled again: a step of the CPU
then takes 1.2 to 1.45 times what its tensors do. With the threshold fixed at 128 KiB it takes 1.00 to 1.03 times that,
and 6 to 17 % more time, because the system clears each page anew. So the heap stays as it is while there is room.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from perpixel.data.batches import Batch
from perpixel.engine.step import Criterion, train_step
from perpixel.inference.memory import bytes_text, free_memory, peak_bytes
from perpixel.types import Preprocessing

__all__ = ["HEAP_FACTOR", "MemoryWatch", "give_memory_back", "keep_heap_small", "save_memory_if_short", "step_bytes"]

HEAP_FACTOR = 1.45
"""What a step takes at most on the CPU with glibc's usual heap, over what its tensors take."""
_STEPS = 3  # the first one makes the optimiser's state, and kernels choose their workspaces
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_BLOCK, _TOP = 128 << 10, 1 << 20
_STATUS = Path("/proc/self/status")


def step_bytes(
    network: nn.Module,
    criterion: Criterion,
    optimizer: Optimizer,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    crop_size: tuple[int, int],
    precision: str = "fp32",
    channels_last: bool = True,
    accumulate: int = 1,
    device: torch.device | str = "cpu",
) -> int:
    """Runs three real steps on noise and returns the most memory that they held beyond what was held before, in bytes.

    On CUDA it is what the device has less of afterwards: PyTorch's reserve and the libraries' workspaces. The weights
    change, so give a network that is not needed.

    Args:
        network: On the device, in training mode.
        criterion: The stage's loss.
        optimizer: Over the network's parameters.
        preprocessing: The network's.
        batch_size: B.
        crop_size: Height and width.
        precision: A key of ``PRECISIONS``; fp16 is run without a scaler.
        channels_last: Memory order of the images.
        accumulate: Batches per step; two show the peak of any number.
        device: Where to run.
    """
    device = torch.device(device)
    channels = len(preprocessing.mean)

    def run() -> None:
        batch = Batch(
            torch.randint(0, 256, (batch_size, channels, *crop_size), dtype=torch.uint8),
            torch.zeros(batch_size, *crop_size, dtype=torch.uint8),
            torch.ones(batch_size, 3),
            ("noise",) * batch_size,
        ).to(device)
        for _ in range(_STEPS):
            train_step(
                network,
                criterion,
                [batch] * min(accumulate, 2),
                optimizer,
                preprocessing=preprocessing,
                precision=precision,
                channels_last=channels_last,
            )

    if device.type != "cuda":
        return peak_bytes(run, device)
    torch.cuda.empty_cache()
    before = free_memory(device)
    run()
    torch.cuda.synchronize(device)
    return max(0, before - free_memory(device))


class MemoryWatch:
    """Makes the heap small after the first step where later ones may not fit, and says so.

    Args:
        device: Where training runs.
        decide: Receives what was decided, the choice, and the reason.
    """

    def __init__(self, device: torch.device | str, decide: Callable[[str, str, str], None]) -> None:
        self._device, self._decide, self._looked = device, decide, False

    def after_step(self) -> None:
        """Looks once, so that it may be called after every step."""
        if self._looked:
            return
        self._looked = True
        reason = save_memory_if_short(self._device)
        if reason is not None:
            self._decide("heap", "small", reason)


def give_memory_back(device: torch.device | str) -> None:
    """Returns what nothing uses any more to the system, so that it counts as free."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def keep_heap_small() -> bool:
    """Lets glibc give freed memory back at once from now on, in this process; tells whether it does."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return False
    libc = ctypes.CDLL(None)
    done = bool(libc.mallopt(_MMAP_THRESHOLD, _BLOCK) == 1 and libc.mallopt(_TRIM_THRESHOLD, _TOP) == 1)
    if done:
        libc.malloc_trim(0)
    return done


def save_memory_if_short(device: torch.device | str) -> str | None:
    """Makes the heap small where the steps to come may not fit into the memory otherwise; called after the first one.

    Returns:
        The reason, where it was done.
    """
    if torch.device(device).type != "cpu":
        return None
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        peak, held = (_kilobytes(lines, name) << 10 for name in ("VmHWM:", "VmRSS:"))
    except (OSError, ValueError, LookupError):
        return None
    free = free_memory(device)
    if HEAP_FACTOR * peak <= free + held or not keep_heap_small():
        return None
    return (
        f"the first step took {bytes_text(peak)} and {bytes_text(free + held)} can be had: freed memory goes back at "
        "once, which takes up to a sixth more time"
    )


def _kilobytes(lines: list[str], name: str) -> int:
    return int(next(line for line in [*lines, ""] if line.startswith(name) or not line).split()[1])
