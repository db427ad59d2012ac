"""Where and with what something was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

__all__ = ["commit", "describe_environment", "device_name", "file_name_of", "use_threads"]


def describe_environment(
    *, device: torch.device | str = "cpu", threads: int | None = None, packages: Iterable[str] = ()
) -> dict[str, Any]:
    """Returns commit, date, device, threads, Python and versions as plain values.

    Args:
        device: What computed.
        threads: Threads of one contender; None: those of torch now.
        packages: Distributions beside torch, timm and numpy whose versions matter; "missing" where one is not there.
    """
    device = torch.device(device)
    named = ("torch", "timm", "numpy", *packages)
    return {
        "commit": commit(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "device": device_name(device),
        "threads": torch.get_num_threads() if threads is None else threads,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in dict.fromkeys(named)},
    }


def use_threads(threads: int | None) -> int:
    """Sets torch's threads unless None and returns their number."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def commit() -> str | None:
    """Returns the commit of the working tree, marked where files but results differ from it; None outside of git."""
    name = _git("describe", "--always", "--abbrev=12", "--exclude=*")
    if not name:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)benchmarks/results")
    return f"{name}-dirty" if changed else name


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def device_name(device: torch.device | str) -> str:
    """Returns the GPU's name, or the processor's with the instruction set that torch uses."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def file_name_of(device: torch.device | str) -> str:
    """Returns a device's name in small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", device_name(device).lower()).strip("_")


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
