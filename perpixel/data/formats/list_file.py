"""List files: one image and its mask per line, separated by a tab, a comma or blanks."""

from __future__ import annotations

import csv
from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, distinct_names, listed, own_labels
from perpixel.errors import DataError

__all__ = ["LIST_SUFFIXES", "read_list", "split_line"]

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
_SPLITS = ("train", "val", "test")
_HEADINGS = ("image", "images", "img", "image_path", "filename", "file_name")


def read_list(path: Path) -> DataSource:
    """Reads one list as undivided data, or a folder with lists named after the splits (train.txt, val.lst…).

    Paths are absolute, or relative to the list's folder or else to the current folder. Lines that start with ``#`` and
    empty lines are skipped, as is a heading ``image,mask``. A list with one path per line gives images without masks.

    Raises:
        DataError: no list, a line that is no pair, files that are not there, or an image listed twice.
    """
    if path.is_file():
        labels, notes = own_labels(path.parent)
        return DataSource(format="list", root=path.parent, splits={"all": _items(path)}, labels=labels, notes=notes)
    files = {
        split: path / f"{split}{suffix}"
        for split in _SPLITS
        for suffix in LIST_SUFFIXES
        if (path / f"{split}{suffix}").is_file()
    }
    if not files:
        raise DataError(f"{path}: no list here; give a list file, or a folder with train.txt, val.txt and test.txt")
    labels, notes = own_labels(path)
    splits = {split: _items(file) for split, file in files.items()}
    return DataSource(format="list", root=path, splits=splits, labels=labels, notes=notes)


def split_line(line: str) -> list[str]:
    """Cuts a line into its paths: at tabs where it has any, else at commas (quotes allowed), else at blanks."""
    if "\t" in line:
        fields = line.split("\t")
    elif "," in line:
        fields = next(csv.reader([line], skipinitialspace=True))
    else:
        fields = line.split()
    return [field.strip() for field in fields]


def _items(file: Path) -> tuple[Item, ...]:
    images: list[Path] = []
    masks: list[Path | None] = []
    missing: list[str] = []
    for number, fields in _pairs(file):
        found = [_located(file, field) for field in fields]
        missing += [f"{field} (line {number})" for field, path in zip(fields, found, strict=True) if path is None]
        if found[0] is not None:
            images.append(found[0])
            masks.append(found[1] if len(found) == 2 else None)
    if missing:
        raise DataError(
            f"{file} lists {len(missing)} files that are neither in {file.parent} nor in the current folder: "
            f"{listed(missing)}. Give paths relative to the list file."
        )
    return tuple(
        Item(name=name, image=image, mask=mask)
        for name, image, mask in zip(distinct_names(images), images, masks, strict=True)
    )


def _pairs(file: Path) -> list[tuple[int, list[str]]]:
    """Returns (line number, one or two paths) for every line that counts."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of files: {error}") from error
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = split_line(line.strip())
        if not rows and fields[0].lower() in _HEADINGS and _located(file, fields[0]) is None:
            continue
        if len(fields) > 2 or not all(fields):
            raise DataError(
                f"{file}, line {number}: expected an image and its mask, got {len(fields)} fields: {line!r}. Separate "
                "the two by a tab or a comma if file names hold blanks."
            )
        rows.append((number, fields))
    if not rows:
        raise DataError(f"{file}: the list is empty; write one image and its mask per line")
    odd = next((number for number, fields in rows if len(fields) != len(rows[0][1])), None)
    if odd is not None:
        raise DataError(
            f"{file}, line {odd}: some lines have a mask and some have none. Put images without mask into a list of "
            "their own."
        )
    return rows


def _located(file: Path, name: str) -> Path | None:
    """Finds a listed file beside the list or else from the current folder; an absolute path stays as it is."""
    for candidate in (file.parent / name, Path(name)):
        if candidate.is_file():
            return candidate
    return None
