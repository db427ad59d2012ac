"""Files and folders that are either all there or not there, whatever stops the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["new_folder", "remove_leftovers", "sync", "write_bytes"]

_PARTIAL = ".partial-"
_REPLACED = ".replaced-"


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk.

    Raises:
        OSError: the disk reports an error; disk full shows here on some file systems.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it.

    Raises:
        OSError: it could not be written; what was at ``path`` is unchanged.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    try:
        partial.write_bytes(content)
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that takes the name ``path`` when the block ends well.

    Its files are synced first. A folder that had the name before goes only then; when the block raises, whatever it
    raises, the temporary folder is removed and the old one stays.

    Raises:
        OSError: a step on the disk failed.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    replaced = path.with_name(f"{_REPLACED}{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in sorted(partial.rglob("*"), reverse=True):
            sync(file)
        sync(partial)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if replaced.exists() and not path.exists():
            with suppress(OSError):
                replaced.rename(path)
        raise
    sync(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(folder: Path) -> list[Path]:
    """Clears what a killed program left: puts a half-replaced folder back and deletes unfinished ones.

    Returns:
        The paths that were removed or put back.
    """
    handled = []
    for replaced in folder.glob(f"{_REPLACED}*"):
        original = replaced.with_name(replaced.name.removeprefix(_REPLACED))
        if original.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(original)
        handled.append(replaced)
    for partial in folder.glob(f"{_PARTIAL}*"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        handled.append(partial)
    return handled
