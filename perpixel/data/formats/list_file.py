"""List files: one image and its mask per line, or a table with headings such as ``image,mask,split``.

Paths may be absolute or lead out of the list's folder: a list is written by its user, and published lists have such
paths. What a path leads to must be a plain file: folders, devices, pipes and links that lead nowhere are refused.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perpixel.data.formats.folders import SPLIT_FOLDERS
from perpixel.data.formats.item import DataSource, Item, distinct_names, listed, own_labels
from perpixel.errors import DataError

__all__ = ["LIST_SUFFIXES", "absolute_path", "file_fault", "is_list_folder", "read_list", "split_line", "split_name"]

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
_SPLITS = tuple(SPLIT_FOLDERS)
_HEADINGS = {
    "image": ("image", "images", "img", "image_path", "img_path", "image_file", "filename", "file_name", "file"),
    "mask": (
        *("mask", "masks", "mask_path", "mask_file", "label", "label_path", "labels", "annotation", "annotations"),
        *("segmentation", "target", "gt", "ground_truth"),
    ),
    "split": ("split", "subset", "set", "partition"),
}
_LARGEST_LIST = 1 << 30
_NOT_THERE = "is not there"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One image of a list."""

    number: int
    """Line that it ends on."""
    image: str
    mask: str | None
    split: str | None


def read_list(path: Path) -> DataSource:
    """Reads one list, or a folder with lists named after the splits (train.txt, val.lst…).

    Paths are absolute, or relative to the list's folder or else to the current folder. Lines that start with ``#`` and
    empty lines are skipped. A first line of headings says which columns are the image, the mask and the split; other
    columns are left out, and said. Without headings a line is an image and its mask, and a list with one path per line
    gives images without masks. Without a column of splits, one list is undivided data.

    Raises:
        DataError: no list, a line that is no pair, paths that lead to no plain file, or an image listed twice.
    """
    if path.is_file():
        labels, notes = own_labels(path.parent)
        splits, said = _splits_of(path)
        return DataSource(format="list", root=path.parent, splits=splits, labels=labels, notes=(*notes, *said))
    files = {
        split: path / f"{split}{suffix}"
        for split in _SPLITS
        for suffix in LIST_SUFFIXES
        if (path / f"{split}{suffix}").is_file()
    }
    if not files:
        raise DataError(f"{path}: no list here; give a list file, or a folder with train.txt, val.txt and test.txt")
    labels, notes = own_labels(path)
    splits = {}
    for split, file in files.items():
        inside, said = _splits_of(file)
        if set(inside) - {"all", split}:
            raise DataError(f"{file}: its column of splits names {listed(sorted(inside))}, and the file is {split!r}'s")
        splits[split] = next(iter(inside.values()))
        notes += said
    return DataSource(format="list", root=path, splits=splits, labels=labels, notes=notes)


def is_list_folder(root: Path) -> bool:
    """Tells whether a folder holds lists that are named after splits."""
    return any((root / f"{split}{suffix}").is_file() for split in _SPLITS for suffix in LIST_SUFFIXES)


def split_line(line: str) -> list[str]:
    """Cuts a line into its paths: at tabs where it has any, else at commas (quotes allowed), else at blanks.

    Raises:
        DataError: a field is longer than any path.
    """
    if "\t" in line:
        fields = line.split("\t")
    elif "," in line:
        try:
            fields = next(csv.reader([line], skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"{line[:80]!r}…: cannot be read as a line of paths: {error}") from error
    else:
        fields = line.split()
    return [field.strip() for field in fields]


def split_name(name: str) -> str:
    """Returns ``train``, ``val`` or ``test`` for the usual words for them, any other name as it is."""
    plain = name.strip().lower()
    return next((split for split, words in SPLIT_FOLDERS.items() if plain in words), name.strip())


def file_fault(path: Path) -> str | None:
    """Returns why a path cannot be read as a file, or None where it is a plain file, also behind links."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if _is_link(path):
            return "is a symbolic link that leads nowhere or to itself"
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        return _NOT_THERE if absent else f"is no path: {error}"
    if stat.S_ISREG(mode):
        return None
    return "is a folder" if stat.S_ISDIR(mode) else "is no plain file (a device, pipe or socket)"


def absolute_path(path: Path) -> Path:
    """Returns an absolute path without ``..``, links left as they are."""
    return Path(os.path.normpath(path.absolute()))


def _is_link(path: Path) -> bool:
    """Tells whether a path is a symbolic link, for names that no file system takes too."""
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _splits_of(file: Path) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    rows, notes = _rows(file)
    images: list[Path] = []
    masks: list[Path | None] = []
    faults: list[str] = []
    for row in rows:
        found: list[Path] = []
        for name in (row.image, row.mask):
            located = None if name is None else _located(file, name)
            if isinstance(located, str):
                faults.append(f"{name} (line {row.number})" + ("" if located == _NOT_THERE else f" {located}"))
            elif located is not None:
                found.append(located)
        if found:
            images.append(found[0])
            masks.append(found[1] if len(found) == 2 else None)
    if faults:
        raise DataError(
            f"{file} lists {len(faults)} files that are neither in {file.parent} nor in the current folder: "
            f"{listed(faults)}. Give paths of plain files, relative to the list file or absolute."
        )
    items: dict[str, list[Item]] = {}
    for row, name, image, mask in zip(rows, distinct_names(images), images, masks, strict=True):
        items.setdefault(row.split or "all", []).append(Item(name=name, image=image, mask=mask))
    ordered = sorted(items, key=lambda split: _SPLITS.index(split) if split in _SPLITS else len(_SPLITS))
    return {split: tuple(items[split]) for split in ordered}, (*notes, *_outside_note(file, rows, images))


def _outside_note(file: Path, rows: Sequence[_Row], images: Sequence[Path]) -> tuple[str, ...]:
    """Says how many images lie outside of the list's folder, which is allowed and should be seen."""
    home = absolute_path(file.parent)
    outside = [
        path
        for row, path in zip(rows, images, strict=True)
        if (".." in row.image or path == Path(row.image)) and not absolute_path(path).is_relative_to(home)
    ]
    return (f"{len(outside)} of {len(images)} images lie outside of {file.parent}: {outside[0]}…",) if outside else ()


def _rows(file: Path) -> tuple[list[_Row], tuple[str, ...]]:
    try:
        if file.stat().st_size > _LARGEST_LIST:
            raise DataError(f"{file}: {file.stat().st_size} bytes are more than any list of files; give a list")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of files: {error}") from error
    first = next((line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
    columns, notes = _headings(file, split_line(first.strip()) if first else [])
    rows = list(_with_headings(file, text, columns) if columns else _pairs(file, text))
    if not rows:
        raise DataError(f"{file}: the list is empty; write one image and its mask per line")
    for split in dict.fromkeys(row.split for row in rows):
        inside = [row for row in rows if row.split == split]
        odd = next((row.number for row in inside if (row.mask is None) != (inside[0].mask is None)), None)
        if odd is not None:
            raise DataError(
                f"{file}, line {odd}: some lines have a mask and some have none. Put images without mask into a list "
                "or split of their own."
            )
    return rows, notes


def _headings(file: Path, fields: list[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Returns the column of ``image``, ``mask`` and ``split`` where the first line names them, else nothing."""
    plain = [field.lower() for field in fields]
    places = {what: [i for i, field in enumerate(plain) if field in names] for what, names in _HEADINGS.items()}
    # A list without headings may hold an image that is called "image".
    if not places["image"] or not isinstance(_located(file, fields[places["image"][0]]), str):
        return {}, ()
    double = next((what for what, columns in places.items() if len(columns) > 1), None)
    if double is not None:
        names = listed([fields[i] for i in places[double]])
        raise DataError(f"{file}: the headings {names} all name the {double}; keep one, or rename the others")
    columns = {what: found[0] for what, found in places.items() if found}
    others = [field for i, field in enumerate(fields) if i not in columns.values()]
    notes = (f"{file.name}: the columns {listed(others)} were left out",) if others else ()
    if others and "mask" not in columns:
        raise DataError(
            f"{file}: no heading names the masks among {listed(fields)}; call the column 'mask' (image, mask, split)"
        )
    return columns, notes


def _with_headings(file: Path, text: str, columns: dict[str, int]) -> Iterator[_Row]:
    """Yields the rows below the headings; quoted fields may hold commas and line ends."""
    width = 0
    for number, fields in _table(file, text):
        if not width:
            width = len(fields)
            continue
        if len(fields) != width:
            raise DataError(f"{file}, line {number}: {len(fields)} fields below {width} headings: {fields}")
        values = {what: fields[column] for what, column in columns.items()}
        split = values.get("split")
        if not values["image"] or split == "":
            what = "image" if not values["image"] else "split"
            raise DataError(f"{file}, line {number}: the {what} is empty; every line needs one")
        yield _Row(
            number=number,
            image=values["image"],
            mask=values.get("mask") or None,
            split=None if split is None else split_name(split),
        )


def _table(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of every row that counts, by the separator of the first one."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    if "\t" not in lines[0] and "," not in lines[0]:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield number, line.split()
        return
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if "\t" in lines[0] else ",", skipinitialspace=True
    )
    try:
        for fields in reader:
            if any(field.strip() for field in fields) and not fields[0].startswith("#"):
                yield reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: cannot be read as a table: {error}") from error


def _pairs(file: Path, text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = split_line(line.strip())
        if len(fields) > 2 or not all(fields):
            raise DataError(
                f"{file}, line {number}: expected an image and its mask, got {len(fields)} fields: {line!r}. Separate "
                "the two by a tab or a comma if file names hold blanks, or write headings (image, mask, split) above."
            )
        yield _Row(number=number, image=fields[0], mask=fields[1] if len(fields) == 2 else None, split=None)


def _located(file: Path, name: str) -> Path | str:
    """Finds a listed file beside the list or else from the current folder; otherwise says what is wrong with it."""
    fault = file_fault(file.parent / name)
    if fault is None:
        return file.parent / name
    return Path(name) if file_fault(Path(name)) is None else fault
