"""Whether the other processes of a run are still there, as far as this machine can see; what a lost connection says."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

__all__ = ["Peers", "is_lost_connection"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_ENDED = ("Z", "X")
"""States of proc(5): killed and not yet waited for, and dead."""


class Peers:
    """Where every process of a run lives, kept in its store: those of this machine can be looked at.

    A process that SIGKILL ends says nothing to those who wait for it at the store, and a socket tells only those who
    wait at a socket.

    Args:
        store: Of torch.distributed, shared by all.
        rank: This process's.
        size: Number of processes.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store, self._here = store, _machine()
        self._others = [other for other in range(size) if other != rank]
        self._process_ids: dict[int, int | None] = {}
        if self._here is not None:
            with suppress(RuntimeError):
                store.set(_key(rank), f"{self._here} {os.getpid()}")

    def has_ended(self, rank: int) -> bool:
        """Whether the process of that rank ran on this machine and is gone; False where that cannot be seen."""
        if self._here is None:
            return False
        if rank not in self._process_ids:
            try:
                if not self._store.check([_key(rank)]):
                    return False
                machine, _, process_id = self._store.get(_key(rank)).decode().rpartition(" ")
            except RuntimeError:  # the store went with its process
                return True
            self._process_ids[rank] = int(process_id) if machine == self._here else None
        found = self._process_ids[rank]
        return found is not None and _has_ended(found)

    def one_has_ended(self) -> bool:
        """Whether one of the others is known to be gone."""
        return any(self.has_ended(rank) for rank in self._others)

    def all_have_ended(self) -> bool:
        """Whether every other one is known to be gone."""
        return all(self.has_ended(rank) for rank in self._others)


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective says that another process is gone or silent."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("connection", "gloo", "timed out", "nccl")
    )


def _key(rank: int) -> str:
    return f"place/{rank}"


def _machine() -> str | None:
    """Names the machine and the numbering of processes within it; None where neither is known."""
    try:
        return f"{_BOOT.read_text(encoding='utf-8').strip()} {_NAMESPACE.stat().st_ino}"
    except OSError:
        return None


def _has_ended(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] in _ENDED
