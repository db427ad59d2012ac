"""Image folders with metadata, as the Hugging Face Hub has them: ``metadata.csv`` or ``metadata.jsonl`` naming masks.

Such folders are downloads, so that paths in the metadata must stay within the data folder.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.data.formats.folders import SPLIT_FOLDERS
from perpixel.data.formats.item import DataSource, Item, distinct_names, listed, own_labels
from perpixel.data.formats.list_file import absolute_path, file_fault, split_name
from perpixel.errors import DataError

__all__ = ["is_image_folder", "read_image_folder"]

_METADATA = ("metadata.csv", "metadata.jsonl")
_IMAGE_COLUMNS = ("file_name", "image_file_name")
_MASK_COLUMNS = (
    "mask",
    "label",
    "annotation",
    "segmentation",
    "segmentation_mask",
    "ground_truth",
    "conditioning_image",
)
_LARGEST_FILE = 1 << 30
_LAYOUT = (
    "An image folder holds metadata.csv or metadata.jsonl, at the top or in train/, validation/ and test/, with the "
    "columns file_name and mask (or mask_file_name): paths of an image and its mask, relative to the metadata file."
)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One image of a metadata file."""

    place: str
    """File and line, for messages."""
    image: str
    mask: str | None


def is_image_folder(root: Path) -> bool:
    """Tells whether a folder, or one of its splits, holds a metadata file that names masks."""
    return any(_names_masks(file) for file in _metadata_files(root).values())


def read_image_folder(root: Path) -> DataSource:
    """Reads the images that the metadata lists, with their masks; masks may be missing in ``test`` only, as a whole.

    One metadata file at the top is undivided, unless its paths begin with the folders of splits.

    Raises:
        DataError: no metadata, a line of another shape, a path out of the folder or to no plain file, an image twice.
    """
    files = _metadata_files(root)
    if not files:
        raise DataError(f"{root}: no metadata.csv or metadata.jsonl here. {_LAYOUT}")
    labels, notes = own_labels(root)
    by_split: dict[str, list[tuple[_Entry, Path, Path | None]]] = {}
    for split, file in files.items():
        entries, said = _entries(file)
        notes += said
        for entry in entries:
            image = _inside(root, file, entry, entry.image)
            mask = None if entry.mask is None else _inside(root, file, entry, entry.mask)
            by_split.setdefault(_split_of(split, root, image), []).append((entry, image, mask))
    splits = {split: _items(split, found) for split, found in by_split.items()}
    if len(splits) > 1 and "all" in splits:
        raise DataError(
            f"{root}: {len(splits['all'])} images lie in no folder of a split and the others do: "
            f"{listed([item.image for item in splits['all']])}. {_LAYOUT}"
        )
    if "test" in splits and splits["test"][0].mask is None:
        notes += (f"split 'test' has no masks: its {len(splits['test'])} images can be predicted, not scored",)
    return DataSource(format="image_folder", root=root, splits=splits, labels=labels, notes=notes)


def _metadata_files(root: Path) -> dict[str, Path]:
    """Returns the metadata file of the whole folder as ``all``, else those of its splits."""
    for name in _METADATA:
        if (root / name).is_file():
            return {"all": root / name}
    folders = {split: [root / word for word in words] for split, words in SPLIT_FOLDERS.items()}
    found = {
        split: next((folder / name for folder in of for name in _METADATA if (folder / name).is_file()), None)
        for split, of in folders.items()
    }
    return {split: file for split, file in found.items() if file is not None}


def _split_of(split: str, root: Path, image: Path) -> str:
    if split != "all":
        return split
    first = absolute_path(image).relative_to(absolute_path(root)).parts[0]
    name = split_name(first)
    return name if name in SPLIT_FOLDERS and (root / first).is_dir() else "all"


def _items(split: str, found: list[tuple[_Entry, Path, Path | None]]) -> tuple[Item, ...]:
    odd = next((entry for entry, _, mask in found if (mask is None) != (found[0][2] is None)), None)
    without = found[0][2] is None
    if odd is not None or (without and split != "test"):
        place = found[0][0].place if odd is None else odd.place
        raise DataError(
            f"{place}: an image of split {split!r} has no mask; only test may have none, as a whole. {_LAYOUT}"
        )
    names = distinct_names([image for _, image, _ in found])
    return tuple(Item(name=name, image=image, mask=mask) for name, (_, image, mask) in zip(names, found, strict=True))


def _inside(root: Path, file: Path, entry: _Entry, name: str) -> Path:
    """Returns the path of a listed file, which must be plain and within the data folder."""
    path = file.parent / name
    if not absolute_path(path).is_relative_to(absolute_path(root)):
        raise DataError(
            f"{entry.place}: {name!r} leads out of {root}, which the metadata of an image folder must not. Move the "
            "files into the folder, or give a list file, whose paths may lie anywhere."
        )
    fault = file_fault(path)
    if fault is not None:
        raise DataError(f"{entry.place}: {name!r} {fault}. {_LAYOUT}")
    return path


def _entries(file: Path) -> tuple[list[_Entry], tuple[str, ...]]:
    columns: tuple[str, str | None] | None = None
    entries: list[_Entry] = []
    for number, row in _rows(file):
        place = f"{file}, line {number}"
        if columns is None:
            columns = _columns(place, list(row))
        image_column, mask_column = columns
        image, mask = row.get(image_column), None if mask_column is None else row.get(mask_column)
        for column, value in ((image_column, image), (mask_column, mask)):
            if not isinstance(value, str) and not (value is None and column != image_column):
                raise DataError(f"{place}: {column} must be the path of a file, got {value!r:.80}. {_LAYOUT}")
        if not image:
            raise DataError(f"{place}: there is no {image_column}. {_LAYOUT}")
        entries.append(_Entry(place=place, image=str(image), mask=str(mask) if mask else None))
    if not entries or columns is None:
        raise DataError(f"{file}: the metadata lists no image. {_LAYOUT}")
    return entries, (f"masks come from column {columns[1]!r} of {file.name}",) if columns[1] else ()


def _columns(place: str, names: list[str]) -> tuple[str, str | None]:
    """Returns the columns of the image and of the mask; the latter may be missing for images without masks."""
    image = next((name for name in _IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise DataError(f"{place}: no column file_name among {listed(names)}. {_LAYOUT}")
    masks = [name for name in names if name != image and name.removesuffix("_file_name") in _MASK_COLUMNS]
    if len(masks) > 1:
        raise DataError(
            f"{place}: the columns {listed(masks)} may all be masks; keep one, or give a list file with the headings "
            "image, mask, split"
        )
    return image, masks[0] if masks else None


def _names_masks(file: Path) -> bool:
    try:
        names = list(next(iter(_rows(file)), (0, {}))[1])
    except DataError:
        return False
    return any(name in _IMAGE_COLUMNS for name in names) and any(
        name.removesuffix("_file_name") in _MASK_COLUMNS for name in names if name not in _IMAGE_COLUMNS
    )


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, values by column)."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(f"{file}: {file.stat().st_size} bytes are more than any metadata")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as metadata: {error}") from error
    yield from _json_rows(file, text) if file.suffix == ".jsonl" else _csv_rows(file, text)


def _json_rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: cannot be read as JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: must be a mapping with file_name, got {type(row).__name__}")
        yield number, row


def _csv_rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    names: list[str] = []
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if not names:
                names = [field.strip() for field in fields]
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{file}, line {reader.line_num}: {len(fields)} fields below {len(names)} headings: {fields}"
                )
            yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: cannot be read as a table: {error}") from error
