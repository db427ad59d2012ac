"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import importlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from perpixel.errors import RunError

__all__ = ["LOCK_FILE", "run_lock"]

LOCK_FILE = ".lock"
_fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None  # elsewhere a run is not guarded
_HELD = (errno.EACCES, errno.EAGAIN)
_LONGEST = 1000


@contextmanager
def run_lock(folder: Path, *, make: bool) -> Iterator[str | None]:
    """Keeps other processes out of a run folder for the length of the block.

    The lock is the operating system's and ends with its process, however that ends; loading processes do not hold it.
    A file system without locks is not guarded.

    Args:
        folder: The run's.
        make: Makes the folder when it is absent; otherwise there is nothing to guard.

    Yields:
        Who held the lock and did not give it back, in words, or None.

    Raises:
        RunError: another process has it, or the folder cannot be written.
    """
    path = folder / LOCK_FILE
    if _fcntl is None or not (folder.is_dir() or (make and not folder.exists())):
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; mend the folder or choose another") from error
    try:
        before = _in_words(os.pread(descriptor, _LONGEST, 0))
        me = {"pid": os.getpid(), "host": socket.gethostname()}
        with suppress(OSError):  # a full disk: the lock holds without a name in it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, (json.dumps(me) + "\n").encode(), 0)
        yield before
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Returns the descriptor of the locked file, which has the name ``path`` still.

    Raises:
        OSError: it cannot be opened.
        RunError: another process has it.
    """
    holder: str | None = None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _fcntl.lockf(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _HELD:
                with suppress(OSError):
                    holder = _in_words(path.read_bytes())
                raise RunError(
                    f"run folder {path.parent} is in use by {holder or 'another process'}; wait for it or stop it, "
                    "then resume"
                ) from error
            return os.open(path, os.O_RDWR)  # a file system that knows no locks
        with suppress(OSError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)  # its holder removed the file between the two calls


def _in_words(content: bytes) -> str | None:
    """Returns who wrote the lock file. It is read through the lock's own descriptor: closing another frees the lock."""
    try:
        written: dict[str, Any] = json.loads(content)
        return f"process {written['pid']} on {written['host']}"
    except (ValueError, KeyError, TypeError):
        return None
