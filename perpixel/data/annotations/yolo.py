"""YOLO's text files for segmentation: per image one file, per line a class index and the corners of a polygon.

Corners are fractions of the image's width and height. A line with four numbers is a box of a detector and is left out,
counted. An image without a text file has no objects: that is how these data sets write it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from perpixel.data.annotations.collected import Annotated, Annotations, Tally, numbered_classes, usable_ring
from perpixel.data.annotations.shapes import Drawing, Polygon, Ring, Shape
from perpixel.data.decoding import IMAGE_SUFFIXES, image_head
from perpixel.data.formats.item import listed, own_labels
from perpixel.errors import DataError
from perpixel.strict_yaml import load_strict_yaml

__all__ = ["read_yolo"]

_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
_LAYOUT = (
    "YOLO's data has images/train/ with labels/train/, or train/images/ with train/labels/, the same for val and test; "
    "or images/ and labels/ alone. Class names stand in data.yaml ('names') or in classes.txt."
)

_INDEX = re.compile(r"[0-9]{1,9}")
_FARTHEST = 2.0  # fractions beyond this are pixels that were never divided by the size
_LARGEST_TEXT, _LARGEST_NAMES = 1 << 24, 1 << 20
_NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml")


def read_yolo(path: Path, *, images: Path | None = None) -> Annotations:
    """Reads a folder in one of YOLO's layouts.

    Args:
        path: Folder of the data set, or its data.yaml.
        images: Folder of the images, for labels that lie apart: files of the same name in ``path`` or its labels/.

    Raises:
        DataError: another layout, no class names, a class index without name, or a line that is no polygon.
    """
    root = path.parent if path.suffix.lower() in (".yaml", ".yml") else path
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. {_LAYOUT}")
    names = _names(root, path if path != root else None)
    tally = Tally()
    splits: dict[str, tuple[Annotated, ...]] = {}
    for split, (pictures, texts) in _folders(root, images).items():
        files = sorted(file for file in pictures.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{pictures}: there are no images here. {_LAYOUT}")
        splits[split] = tuple(_annotated(file, texts, names, tally) for file in files)
    if not any(picture.drawing.shapes for pictures in splits.values() for picture in pictures):
        raise DataError(f"{root}: no text file draws a polygon. {' '.join(tally.notes())} {_LAYOUT}")
    labels, notes = own_labels(root)
    return Annotations(
        format="yolo",
        root=root,
        splits=splits,
        classes=numbered_classes(names),
        labels=labels,
        notes=(*notes, *tally.notes()),
    )


def _names(root: Path, stated: Path | None) -> list[str]:
    """Returns the class names in the order of their indices."""
    files = [stated] if stated is not None else [root / name for name in _NAMES_FILES]
    for file in files:
        if file.is_file():
            return _checked(_listed_names(file), file)
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            return _checked([line.strip() for line in _text(file).splitlines() if line.strip()], file)
    raise DataError(
        f"{root}: neither {' nor '.join(str(file.name) for file in files)} nor classes.txt is here. {_LAYOUT}"
    )


def _listed_names(file: Path) -> list[Any]:
    text = _text(file, _LARGEST_NAMES)
    try:
        content = load_strict_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(f"{file}: not a YAML file: {error}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(str(index) for index in range(len(names))):
            raise DataError(f"{file}: 'names' must number the classes 0, 1, 2…, got {listed(list(names))}")
        return [names[index] if index in names else names[str(index)] for index in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{file}: 'names' must list the classes, got {type(names).__name__}")
    return names


def _checked(names: list[Any], file: Path) -> list[str]:
    if not names or not all(isinstance(name, str | int) and str(name) for name in names):
        raise DataError(f"{file}: must name at least one class, each by a text")
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        raise DataError(f"{file}: class names must differ")
    return texts


def _folders(root: Path, images: Path | None) -> dict[str, tuple[Path, Path]]:
    """Returns per split the folder of images and that of text files."""
    if images is not None:
        return {"all": (images, root / "labels" if (root / "labels").is_dir() else root)}
    found: dict[str, tuple[Path, Path]] = {}
    for split, words in _SPLITS.items():
        for word in words:
            for pair in (
                (root / "images" / word, root / "labels" / word),
                (root / word / "images", root / word / "labels"),
            ):
                if pair[0].is_dir() and split not in found:
                    found[split] = pair
    if found:
        return found
    if (root / "images").is_dir() and (root / "labels").is_dir():
        return {"all": (root / "images", root / "labels")}
    raise DataError(f"{root}: has another layout. {_LAYOUT}")


def _annotated(image: Path, texts: Path, names: list[str], tally: Tally) -> Annotated:
    head = image_head(image)
    file = texts / f"{image.stem}.txt"
    shapes: list[Shape] = []
    if not file.is_file():
        tally.add("images have no text file, so no object is on them", image.name)
        file = image  # which is there, and says as much
    else:
        for number, line in enumerate(_text(file).splitlines(), start=1):
            if line.strip():
                shape = _shape(line, names, head.size, tally, f"{file}, line {number}")
                shapes += [] if shape is None else [shape]
    drawing = Drawing(file=file, image=image.name, size=head.size, shapes=tuple(shapes), orientation=head.orientation)
    return Annotated(image=image, drawing=drawing)


def _shape(line: str, names: list[str], size: tuple[int, int], tally: Tally, place: str) -> Shape | None:
    fields = line.split()
    if not _INDEX.fullmatch(fields[0]) or int(fields[0]) >= len(names):
        raise DataError(f"{place}: a line begins with a class index from 0 to {len(names) - 1}, got {fields[0]!r:.60}")
    if len(fields) == 5:
        tally.add("boxes, which have no outline, were left out", place)
        return None
    if len(fields) % 2 == 0:
        raise DataError(f"{place}: an outline has an x and a y for each point, got {len(fields) - 1} numbers")
    height, width = size
    corners = [_fraction(text, place) * (height if index % 2 else width) for index, text in enumerate(fields[1:])]
    usable: Ring | None = usable_ring(tuple(corners), size, tally, place)
    if usable is None:
        return None
    return Shape(name=names[int(fields[0])], parts=(Polygon(rings=(usable,)),), place=place.rpartition(", ")[2])


def _fraction(text: str, place: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 0_1 as 1
    except ValueError as error:
        raise DataError(f"{place}: a coordinate must be a number, got {text!r:.60}") from error
    if not math.isfinite(value) or abs(value) > _FARTHEST:
        raise DataError(
            f"{place}: a coordinate is a fraction of the image's size in [0, 1], got {text!r:.60}; pixels must be "
            "divided by width and height"
        )
    return value


def _text(file: Path, most: int | None = None) -> str:
    largest = _LARGEST_TEXT if most is None else most
    try:
        if file.stat().st_size > largest:
            raise DataError(f"{file}: more than {largest >> 10} KiB are no list of polygons or names")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as text: {error}") from error
