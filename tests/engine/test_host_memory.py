"""Freed memory that a process keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perpixel.engine import host_memory

FAULTS = """
import resource, sys, torch
from perpixel.engine.host_memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def use():
    for _ in range(4):
        torch.ones(12_000_000)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> tuple[str, int]:
    """What setting said, and the pages cleared for four blocks of 48 MB, more than glibc keeps by itself."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, timeout=120, check=True)
    said, faults = done.stdout.split()
    return said, int(faults)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other allocators")
def test_kept_memory_is_not_cleared_again() -> None:
    said, kept = page_faults("keep")
    if said == "False":
        pytest.skip("this C library has no such settings")
    assert kept < page_faults("give back")[1] / 10


def test_keep_freed_memory_elsewhere_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert host_memory.keep_freed_memory() is False
