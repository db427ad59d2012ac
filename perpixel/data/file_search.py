"""The files below a folder, links to files and folders included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["files_below"]


def files_below(folder: Path) -> Iterator[Path]:
    """Yields the files in a folder and its subfolders, and links that lead nowhere; hidden ones are left out.

    Links to folders are followed, but for those to a folder that they lie in.
    """
    above = {folder: {folder.resolve()}}
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        real = {name: (here / name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = [name for name in folders if name in real and real[name] not in above[here]]
        above |= {here / name: above[here] | {real[name]} for name in folders}
        for path in (here / name for name in names if not name.startswith(".")):
            if path.is_file() or path.is_symlink():
                yield path
