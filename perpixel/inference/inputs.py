"""Finds the images that a command line names, and gives each its own output name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from perpixel.data.file_search import files_below
from perpixel.data.image_files import IMAGE_SUFFIXES
from perpixel.errors import DataError

__all__ = ["InputFile", "collect_inputs", "find_inputs", "natural_key", "output_names"]


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """An image to predict."""

    path: Path
    root: Path
    """The folder that was named, or that the file or the fixed part of the glob lies in."""

    @property
    def relative(self) -> Path:
        """Where the file lies below ``root``."""
        return self.path.relative_to(self.root)


def collect_inputs(inputs: Iterable[str | Path]) -> list[Path]:
    """Returns the images that files, folders (with subfolders) and glob patterns name, each once, in natural order.

    Files that are named singly are taken whatever their suffix; from folders and globs those with an image suffix.
    Links to files and folders are followed; hidden files and folders are left out.

    Raises:
        DataError: one of the inputs does not exist or holds no image.
    """
    return [file.path for file in find_inputs(inputs)]


def find_inputs(inputs: Iterable[str | Path], *, out: Path | None = None) -> list[InputFile]:
    """Does what `collect_inputs` does and keeps the roots; what lies in ``out`` is no input of a folder.

    Raises:
        DataError: as `collect_inputs`; or ``out`` is one of the folders.
    """
    found: dict[Path, InputFile] = {}
    named = [str(entry) for entry in inputs]
    if not named:
        raise DataError("no inputs: name at least one image, folder or glob pattern")
    for text in named:
        for file in sorted(_expand(text, out), key=lambda file: natural_key(file.relative)):
            found.setdefault(file.path.parent.resolve() / file.path.name, file)
    return list(found.values())


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts numbers in names by value: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part.casefold()) for part in parts]


def output_names(files: list[InputFile]) -> tuple[list[str], list[str]]:
    """Returns for each file a name of its own, without suffix, and notes on the names that had to change.

    The name is the path below the root less its suffix. Files that would share it (compared without case) keep their
    suffix, then take the name of their root, then a number.
    """
    names = [file.relative.with_suffix("").as_posix() for file in files]
    clashing = _repeated(names)
    names = [f.relative.as_posix() if i in clashing else names[i] for i, f in enumerate(files)]
    again = _repeated(names)
    names = [f"{f.root.resolve().name}/{names[i]}" if i in again else names[i] for i, f in enumerate(files)]
    taken: set[str] = set()
    for index, name in enumerate(names):
        number = 2
        while names[index].casefold() in taken:
            names[index] = f"{name}-{number}"
            number += 1
        taken.add(names[index].casefold())
    notes = [
        f"{files[i].path}: results are named {names[i]!r}, because several inputs share the name "
        f"{files[i].relative.with_suffix('').as_posix()!r}"
        for i in sorted(clashing)
    ]
    return names, notes


def _repeated(names: list[str]) -> set[int]:
    counts = Counter(name.casefold() for name in names)
    return {index for index, name in enumerate(names) if counts[name.casefold()] > 1}


def _expand(text: str, out: Path | None) -> list[InputFile]:
    path = Path(text)
    suffixes = ", ".join(IMAGE_SUFFIXES)
    if path.is_dir():
        if out is not None and out.resolve() == path.resolve():
            raise DataError(f"{path} is both input and output; give another out folder, it may lie inside")
        files = [InputFile(path=file, root=path) for file in files_below(path) if _is_image(file, path, out)]
        if not files:
            raise DataError(f"{path}: the folder and its subfolders hold no image file ({suffixes})")
        return files
    if path.exists():
        return [InputFile(path=path, root=path.parent)]
    if has_magic(text):
        root = _fixed_part(path)
        matches = root.glob(path.relative_to(root).as_posix())
        files = [InputFile(path=match, root=root) for match in matches if _is_image(match, root, out)]
        if not files:
            raise DataError(f"{text}: the pattern matches no image file ({suffixes}) under {root.resolve()}")
        return files
    raise DataError(f"{text}: there is no such file or folder; folders and patterns are searched for {suffixes}")


def _is_image(file: Path, root: Path, out: Path | None) -> bool:
    if file.suffix.lower() not in IMAGE_SUFFIXES or not (file.is_file() or file.is_symlink()):
        return False
    if any(part.startswith(".") for part in file.relative_to(root).parts):
        return False
    return out is None or not file.resolve().is_relative_to(out.resolve())


def _fixed_part(pattern: Path) -> Path:
    """Returns the folders of a glob pattern before its first wildcard."""
    fixed: list[str] = []
    for part in pattern.parts[:-1]:
        if has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed) if fixed else Path()
