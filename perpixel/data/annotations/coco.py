"""COCO's JSON: ``images``, ``annotations`` and ``categories``; polygons and run lengths, compressed or not.

The polygons of one annotation are one object; a region in two pieces is two polygons, and there are no holes. Source:
the data format of Lin et al. 2014, arXiv:1405.0312, as published with the data set.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from perpixel.data.annotations.collected import Annotated, Annotations, Tally, usable_ring
from perpixel.data.annotations.json_values import LONGEST_SIDE, Fields, json_files, path_inside, read_json, ring_of
from perpixel.data.annotations.rle import pack_counts
from perpixel.data.annotations.shapes import Drawing, Part, Polygon, Runs, Shape
from perpixel.data.formats.item import listed, own_labels
from perpixel.errors import DataError

__all__ = ["read_coco"]

_ROBOFLOW = "_annotations.coco.json"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_WHOLE = "all"
_BOXES_ONLY = "objects with a box and no segmentation were left out"


def read_coco(path: Path, *, images: Path | None = None) -> Annotations:
    """Reads one JSON file, or a folder with one per split (annotations/instances_train2017.json…).

    Args:
        path: The JSON file, or the folder of the data set.
        images: Folder that the images' names are relative to; None looks beside the JSON file, as COCO and Roboflow
            lay their images out.

    Raises:
        DataError: not COCO's JSON, ids that lead nowhere or repeat, images that are not there, names that leave the
            folder, coordinates that are none; names the file and the annotation.
    """
    tally = Tally()
    splits: dict[str, tuple[Annotated, ...]] = {}
    classes: dict[str, int] = {}
    for split, file in _files(path).items():
        content = _content(file)
        found = _categories(content)
        if splits and found != classes:
            raise DataError(f"{file}: its categories differ from those of the other splits; give one file at a time")
        classes = found
        splits[split] = _annotated(content, file, split, images, classes, tally)
    classes, root_notes = _without_root(classes, splits, content)
    boxes = tally.count(_BOXES_ONLY)
    if boxes and not any(picture.drawing.shapes for pictures in splits.values() for picture in pictures):
        raise DataError(
            f"{path}: all {boxes} annotations are boxes without a segmentation; masks cannot be made of them"
        )
    root = path if path.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
    labels, notes = own_labels(root)
    return Annotations(
        format="coco",
        root=path,
        splits=splits,
        classes=classes,
        labels=labels,
        notes=(*notes, *root_notes, *tally.notes()),
    )


def _files(path: Path) -> dict[str, Path]:
    """Returns the JSON file of each split."""
    if not path.is_dir():
        return {_WHOLE: path}
    files = json_files(path / "annotations") or json_files(path)
    files = [file for file in files if file.name.startswith("instances_")] or files
    files = files or sorted(path.glob(f"*/{_ROBOFLOW}"))
    if not files:
        raise DataError(
            f"{path}: there is no JSON file here, in annotations/ or in train/, valid/, test/; give the file"
        )
    if len(files) == 1:
        return {_WHOLE: files[0]}
    splits: dict[str, Path] = {}
    for file in files:
        word = file.parent.name if file.name == _ROBOFLOW else file.stem
        split = next((known for start, known in _SPLITS.items() if start in word.lower().replace("_", " ")), None)
        if split is None or split in splits:
            raise DataError(
                f"{path}: which of its files hold which split is open: {listed([file.name for file in files])}; give "
                "one JSON file"
            )
        splits[split] = file
    return splits


def _content(file: Path) -> Fields:
    content = read_json(file)
    if isinstance(content, list):
        raise DataError(f"{file}: holds a list, such as detections are written in; COCO's annotations are an object")
    fields = Fields.of(content, str(file))
    for key in ("images", "annotations", "categories"):
        fields.items(key)
    return fields


def _categories(content: Fields) -> dict[str, int]:
    """Returns the ids by name, in the order of the ids."""
    ids: dict[int, str] = {}
    for index, value in enumerate(content.items("categories")):
        fields = Fields.of(value, f"{content.place}: category {index}")
        number = fields.whole("id", 0, 2**31)
        if number in ids:
            raise DataError(f"{content.place}: category id {number} is given twice")
        ids[number] = fields.text("name")
    repeated = sorted(name for name, count in Counter(ids.values()).items() if count > 1)
    if repeated:
        raise DataError(f"{content.place}: several categories have the name {listed(repeated)}; give each its own")
    return {ids[number]: number for number in sorted(ids)}


def _without_root(
    classes: dict[str, int], splits: dict[str, tuple[Annotated, ...]], content: Fields
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Leaves out category 0 where it only stands for all others, as in Roboflow's files: no class, and never drawn."""
    root = next((name for name, number in classes.items() if number == 0), None)
    over = {value.get("supercategory") for value in content.items("categories") if value.get("id") != 0}
    drawn = {shape.name for pictures in splits.values() for picture in pictures for shape in picture.drawing.shapes}
    if root is None or root in drawn or over != {root}:
        return classes, ()
    note = f"category 0, {root!r}, is the group of all others and nothing is drawn with it: it is no class"
    return {name: number for name, number in classes.items() if name != root}, (note,)


def _annotated(
    content: Fields, file: Path, split: str, images: Path | None, classes: dict[str, int], tally: Tally
) -> tuple[Annotated, ...]:
    entries: dict[int | str, tuple[str, tuple[int, int]]] = {}
    for index, value in enumerate(content.items("images")):
        fields = Fields.of(value, f"{file}: image {index}")
        number = fields.identity("id")
        if number in entries:
            raise DataError(f"{file}: image id {number!r} is given twice")
        size = (fields.whole("height", 1, LONGEST_SIDE), fields.whole("width", 1, LONGEST_SIDE))
        entries[number] = fields.text("file_name"), size
    if not entries:
        raise DataError(f"{file}: 'images' is empty")
    shapes = _shapes(content, file, entries, classes, tally)
    paths = _image_files(file, split, images, [name for name, _ in entries.values()])
    return tuple(
        Annotated(image=path, drawing=Drawing(file=file, image=name, size=size, shapes=tuple(shapes[number])))
        for (number, (name, size)), path in zip(entries.items(), paths, strict=True)
    )


def _shapes(
    content: Fields,
    file: Path,
    entries: dict[int | str, tuple[str, tuple[int, int]]],
    classes: dict[str, int],
    tally: Tally,
) -> dict[int | str, list[Shape]]:
    names = {number: name for name, number in classes.items()}
    shapes: dict[int | str, list[Shape]] = {number: [] for number in entries}
    for index, value in enumerate(content.items("annotations")):
        place = f"annotation {value.get('id', f'number {index}')}" if isinstance(value, dict) else f"annotation {index}"
        fields = Fields.of(value, f"{file}: {place}")
        number, category = fields.identity("image_id"), fields.whole("category_id", 0, 2**31)
        if number not in entries:
            raise DataError(f"{fields.place}: image_id {number!r} is the id of no image in 'images'")
        if category not in names:
            known = listed(sorted(names), 20)
            raise DataError(f"{fields.place}: category_id {category} is the id of no category; they are {known}")
        image, size = entries[number]
        parts = _parts(fields, size, tally, f"{place} on {image}")
        if parts:
            crowd = fields.values.get("iscrowd", 0) == 1
            shapes[number].append(Shape(name=names[category], parts=parts, place=place, crowd=crowd))
    return shapes


def _parts(fields: Fields, size: tuple[int, int], tally: Tally, place: str) -> tuple[Part, ...]:
    drawn = fields.values.get("segmentation")
    if drawn is None or drawn == []:
        tally.add(_BOXES_ONLY, place)
        return ()
    if isinstance(drawn, dict):
        return (_runs(Fields.of(drawn, f"{fields.place}: segmentation"), size),)
    rings = [ring_of(ring, f"{fields.place}: segmentation") for ring in fields.items("segmentation")]
    usable = [usable_ring(ring, size, tally, place) for ring in rings]
    return tuple(Polygon(rings=(ring,)) for ring in usable if ring is not None)


def _runs(fields: Fields, size: tuple[int, int]) -> Runs:
    stated = fields.items("size")
    if stated != list(size):
        raise DataError(f"{fields.place}: 'size' is {stated!r:.60} and the image is {list(size)} (height, width)")
    counts: Any = fields.values.get("counts")
    if isinstance(counts, str):
        return Runs(packed=counts, size=size)
    counts = fields.items("counts")
    if any(isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 2**31 for count in counts):
        raise DataError(f"{fields.place}: 'counts' must hold whole numbers from 0 on")
    return Runs(packed=pack_counts(counts), size=size)


def _image_files(file: Path, split: str, images: Path | None, names: list[str]) -> list[Path]:
    """Finds the folder of the images and makes sure that all are there."""
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    word = file.stem.rpartition("_")[2]
    beside = [
        file.parent,
        base / word,
        base / split,
        base / "images" / word,
        base / "images" / split,
        base / "images",
        base,
    ]
    folders = beside if images is None else [images, images / word, images / split]
    folders = list(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    place = f"{file}: 'images'"
    folder = next((folder for folder in folders if path_inside(folder, names[0], place).is_file()), None)
    if folder is None:
        raise DataError(
            f"{file}: the image {names[0]!r} is in none of the folders {listed(folders)}; give the folder that the "
            "names of images are relative to with --images"
        )
    paths = [path_inside(folder, name, place) for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of its {len(paths)} images are not in {folder}: {listed(missing)}. Add them, or "
            "give the folder that the names are relative to with --images."
        )
    return paths
