"""The C library's allocator, told to keep what a training step frees for the next one.

A step on the CPU frees and asks for the same large blocks again and again. glibc gives each of them back to the
kernel, which clears every page of the next one: a tenth of a small network's step. Kept in the heap they are reused as
they are. The process then holds its peak until it ends.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = -1
_TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory; returns whether its C library can."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version")):  # musl has neither
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
