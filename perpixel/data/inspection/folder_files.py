"""The files of a folder as they are, with links that lead nowhere and names that will hurt."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.list_file import file_fault
from perpixel.data.inspection.collector import Collector, shown_path

__all__ = ["FolderFiles", "dead_link", "files_in", "note_name", "odd_name"]

_FOREIGN_SUFFIXES = (".gif", ".jp2", ".j2k", ".heic", ".heif", ".avif", ".jxl", ".ppm", ".pgm", ".pnm", ".tga", ".exr")
_LEAST_PRINTABLE = 32


@dataclass
class FolderFiles:
    """What one folder holds."""

    folder: Path = field(default_factory=Path)
    names: list[str] = field(default_factory=list)
    """Of the files with an image's extension, links to nothing among them, sorted."""
    dead: set[Path] = field(default_factory=set)
    """Those of them that cannot be opened: broken links, circles, formats that are not read."""
    folders: list[Path] = field(default_factory=list)

    @property
    def images(self) -> Iterator[Path]:
        """The files of `names`; paths that are kept take hundreds of bytes each."""
        return (self.folder / name for name in self.names)


def files_in(folder: Path, root: Path, found: Collector) -> FolderFiles:
    """Lists a folder without following links in circles; hidden files are passed over, all else is noted."""
    files = FolderFiles(folder)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.add("unreadable", shown_path(root, folder), f"{shown_path(root, folder)}: {error.strerror}")
        return files
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        shown = shown_path(root, path)
        suffix = path.suffix.lower()
        dead = dead_link(path) if entry.is_symlink() else None
        if dead is not None:
            found.add(dead, shown, f"{shown} -> {_target(path)}")
        elif entry.is_dir() and suffix not in IMAGE_SUFFIXES:
            files.folders.append(path)
            continue
        elif not entry.is_file():
            dead = "not_a_file"
            found.add(dead, shown, f"{shown} {file_fault(path)}")
        if suffix in IMAGE_SUFFIXES or suffix in _FOREIGN_SUFFIXES:
            files.names.append(entry.name)
            note_name(shown, found)
            if dead is not None:
                files.dead.add(path)
            elif suffix in _FOREIGN_SUFFIXES:
                files.dead.add(path)
                found.add("unknown_format", shown)
        elif dead is None:
            found.add("other_file", shown)
    return files


def note_name(shown: str, found: Collector) -> None:
    """Notes the worst of what is odd about a file's name."""
    name = shown.rsplit("/", 1)[-1]
    kind = odd_name(name)
    if kind is not None:
        found.add(kind, shown, repr(name) if kind != "name_unicode" else ascii(name))


def odd_name(name: str) -> str | None:
    """Returns the kind of finding that a file's name is, or None."""
    if any(ord(letter) < _LEAST_PRINTABLE or ord(letter) == 0x7F for letter in name):
        return "name_control"
    if not name.isascii():
        return "name_unicode"
    return "name_blank" if " " in name else None


def dead_link(path: Path) -> str | None:
    """Returns the kind of a link that leads nowhere, or up to a folder that holds it."""
    try:
        target = path.resolve(strict=True)
    except OSError as error:
        return "link_loop" if error.errno == errno.ELOOP else "broken_link"
    except RuntimeError:  # what pathlib makes of a circle
        return "link_loop"
    return "link_loop" if target.is_dir() and path.parent.resolve().is_relative_to(target) else None


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return "?"
