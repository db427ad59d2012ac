"""How much memory is free, and how much a computation takes at its peak: measured, in bytes.

On a CPU the peak is the most that the process has held (VmHWM of /proc/self/status, begun anew through
/proc/self/clear_refs after freed heap is handed back), so that it holds what the allocator of PyTorch does not see too:
the libraries' scratch space, arrays of NumPy. Systems without /proc report the growth of getrusage's maximum. On CUDA
it is PyTorch's own count of the device.
"""

from __future__ import annotations

import ctypes
import math
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from perpixel.errors import InvalidValue

__all__ = ["bytes_text", "free_memory", "parse_bytes", "peak_bytes"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNKNOWN_FREE = 2 * 10**9
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def parse_bytes(text: str | int) -> int:
    """Reads an amount of memory such as ``4GB``, ``512 MiB``, ``1.5G`` or a number of bytes.

    Raises:
        InvalidValue: it is none, or not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    unit = _UNITS.get(match.group(2).upper()) if match else None
    amount = float(match.group(1)) * unit if match and unit else 0.0
    if not 1 <= amount < math.inf:
        raise InvalidValue(f"memory is an amount such as 4GB, 512MiB or 2000000000 (bytes), got {text!r}")
    return int(amount)


def bytes_text(amount: float) -> str:
    """Writes bytes for people: ``812 MB``, ``1.35 GB``."""
    return f"{amount / 1e9:.2f} GB" if amount >= 1e9 else f"{max(1, round(amount / 1e6))} MB"


def free_memory(device: torch.device | str = "cpu") -> int:
    """Returns the bytes that can be taken now: of the device, or of this machine and the limits on this process."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = (_available(_PROC), _address_room(_PROC), *_cgroup_room(_CGROUPS, _PROC))
    known = [amount for amount in found if amount is not None]
    return max(min(known), 0) if known else _UNKNOWN_FREE


def peak_bytes(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Runs a function and returns the most memory that it held beyond what was held before, in bytes."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    _forget_peak()
    before = _most_held()
    run()
    return max(0, _most_held() - before)


def _forget_peak() -> None:
    """Hands freed heap back and begins the peak anew, where the system can."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_PROC / "self/clear_refs").write_text("5")
    except OSError:
        return


def _most_held() -> int:
    try:
        held = _line(_PROC / "self/status", "VmHWM:")
    except OSError:
        held = None
    if held is not None:
        return held
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _available(proc: Path) -> int | None:
    try:
        return _line(proc / "meminfo", "MemAvailable:")
    except OSError:
        return None


def _line(path: Path, name: str) -> int | None:
    """Returns the bytes that a line of /proc states in kB."""
    found = next((line for line in path.read_text().splitlines() if line.startswith(name)), None)
    return None if found is None else int(found.split()[1]) * 1024


def _address_room(proc: Path) -> int | None:
    """Returns what ``ulimit -v`` leaves to this process; None when it is not limited."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        taken = _line(proc / "self/status", "VmSize:")
    except OSError:
        taken = None
    return limit - (taken or 0)


def _cgroup_room(root: Path, proc: Path) -> list[int]:
    """Returns what the memory limits of this process's groups leave, cgroup v2 or v1; page cache counts as free."""
    found = []
    for base, controller, limit, used, cache in (
        (root, "", "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _groups(base, proc, controller):
            try:
                allowed = (folder / limit).read_text().strip()
                taken = int((folder / used).read_text())
                statistics = (folder / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):
                continue
            reclaimable = next((int(line.split()[1]) for line in statistics if line.split()[0] == cache), 0)
            if allowed.isdigit():
                found.append(int(allowed) - taken + reclaimable)
    return found


def _groups(base: Path, proc: Path, controller: str) -> list[Path]:
    """Returns the folders of the control group that this process is in and of all groups above it."""
    try:
        lines = [line.split(":", 2) for line in (proc / "self/cgroup").read_text().splitlines()]
    except OSError:
        return [base]
    place = next((line[2] for line in lines if len(line) == 3 and controller in line[1].split(",")), "/")
    own = base / place.strip("/")
    return [own, *(folder for folder in own.parents if folder.is_relative_to(base))] if own != base else [base]
