"""Masks written back as drawn labels: COCO's JSON and labelme's, with labels.yaml beside them.

Read again with that labels.yaml, the masks are the same to the pixel, as run lengths and as polygons: outlines go along
the edges of pixels, and holes are joined to the outline around them, since neither format has holes. A class named
background is what no shape covers; then ignored pixels are shapes named ``__ignore__``. Without such a class it is the
ignored pixels that no shape covers. H W height and width.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.annotations.collected import BACKGROUNDS
from perpixel.data.annotations.convert import UNDIVIDED, Conversion, convert_items, split_items, summed
from perpixel.data.annotations.painting import turn_back
from perpixel.data.annotations.rle import counts_of, pack_counts
from perpixel.data.annotations.shapes import IGNORED
from perpixel.data.annotations.tracing import outlines, regions, with_holes_joined
from perpixel.data.annotations.writing import Placement, label_text, new_folder, place_image, written_labels
from perpixel.data.decoding import ImageHead
from perpixel.data.formats.item import LABEL_FILE, DataSource, Item
from perpixel.data.picture import file_of
from perpixel.errors import InvalidValue
from perpixel.labels import LabelSpace

__all__ = ["ShapesAs", "write_coco", "write_labelme"]

ShapesAs = Literal["rle", "polygons"]
"""How areas are written: as run lengths (labelme: small masks), or as outlines."""

_CocoImage: TypeAlias = tuple[str, tuple[int, int], list[dict[str, Any]]]
"""File name, (height, width) and annotations of an image."""
_LABELME_VERSION = "5.5.0"


def write_coco(
    source: DataSource,
    labels: LabelSpace,
    out: Path,
    *,
    images: Placement = "copy",
    shapes: ShapesAs = "rle",
    crowd: bool = False,
    colors: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Writes ``annotations/instances_<split>.json`` and the images of each split in a folder of its name.

    An annotation holds all pixels of one class on one image, as in COCO's own stuff annotations; category ids are the
    stored ids of the masks. Shapes lie on the stored pixels of a photo, whatever its EXIF orientation, as in COCO.

    Args:
        source: The data set.
        labels: Its classes.
        out: The folder to make.
        images: How images come along; ``"list"`` leaves them, and their names are relative to the folder they share.
        shapes: Compressed run lengths, or polygons.
        crowd: Marks every annotation as ``iscrowd``, since a mask of classes does not tell objects apart; COCO writes
            these as run lengths that are not compressed.
        colors: The masks' colours are the labels.
        on_progress: Called with the number of images done and of all.

    Raises:
        DataError: as `convert.write_folder`.
        InvalidValue: an argument is none of its values, ``crowd`` with polygons, or a class named ``__ignore__``.
    """
    _check(shapes, labels)
    if crowd and shapes == "polygons":
        raise InvalidValue("annotations of COCO with iscrowd are run lengths; give shapes rle, or leave crowd away")
    space = written_labels(labels)
    splits, notes = split_items(source)
    with new_folder(out) as folder, ExitStack() as stack:
        (folder / "annotations").mkdir()
        (folder / LABEL_FILE).write_text(label_text(space), encoding="utf-8")
        paths = {split: folder / "annotations" / f"instances_{split}.json" for split in splits}
        files = {split: stack.enter_context(_CocoFile(path, space, shapes, crowd)) for split, path in paths.items()}
        bases = {split: _shared_folder(items) for split, items in splits.items()} if images == "list" else {}

        def write(split: str, item: Item, name: str, train: NDArray[np.uint8], head: ImageHead) -> _CocoImage:
            if split in bases:
                named = file_of(item.image).resolve().relative_to(bases[split]).as_posix()
            else:
                place = folder / ("images" if split == UNDIVIDED else split)
                named = place_image(item, head, place, name, images)
            stored = turn_back(train, head.orientation)
            return named, head.stored_size, files[split].annotations_of(stored)

        def collect(split: str, image: _CocoImage) -> None:
            files[split].add(image)

        counted = convert_items(
            splits, labels, write, collect, colors=colors, placement=images, on_progress=on_progress
        )
    left = [f"split {split!r}: images stay in {base}; read with --images {base}" for split, base in bases.items()]
    return summed(out, space, counted, (*source.notes, *notes, *left))


def write_labelme(
    source: DataSource,
    labels: LabelSpace,
    out: Path,
    *,
    images: Placement = "copy",
    shapes: ShapesAs = "polygons",
    colors: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Writes a JSON file per image, beside it, in a folder per split; and labels.txt, which labelme is started with.

    A polygon is one connected region of a class.

    Raises:
        DataError: as `convert.write_folder`.
        InvalidValue: an argument is none of its values, images are to stay where they are, or a class is named
            ``__ignore__``.
    """
    _check(shapes, labels)
    if images == "list":
        raise InvalidValue("labelme's files lie beside their images; have the images copied or linked")
    space = written_labels(labels)
    splits, notes = split_items(source)

    def write(folder: Path, split: str, item: Item, name: str, train: NDArray[np.uint8], head: ImageHead) -> None:
        place = folder if split == UNDIVIDED else folder / split
        drawn = [shape for label, area in _areas(train, space) for shape in _labelme_shapes(label, area, shapes)]
        content: dict[str, Any] = {
            "version": _LABELME_VERSION,
            "flags": {},
            "shapes": drawn,
            "imagePath": place_image(item, head, place, name, images),
            "imageData": None,
            "imageHeight": head.size[0],
            "imageWidth": head.size[1],
        }
        (place / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    with new_folder(out) as folder:
        (folder / LABEL_FILE).write_text(label_text(space), encoding="utf-8")
        (folder / "labels.txt").write_text("\n".join((IGNORED, *space.names, "")), encoding="utf-8")
        counted = convert_items(
            splits, labels, partial(write, folder), colors=colors, placement=images, on_progress=on_progress
        )
    return summed(out, space, counted, (*source.notes, *notes))


class _CocoFile:
    """One JSON file that is written image by image, so that memory stays small."""

    def __init__(self, path: Path, labels: LabelSpace, shapes: ShapesAs, crowd: bool) -> None:
        self.labels, self.shapes, self.crowd = labels, shapes, crowd
        self.images: list[dict[str, Any]] = []
        self.annotations = 0
        self.ids = {name: int(labels.decode(np.array([train]))[0]) for train, name in enumerate(labels.names)}
        self.file: IO[str] = path.open("w", encoding="utf-8")
        hidden = _background(labels)
        categories = [
            {"id": number, "name": name, "supercategory": ""}
            for name, number in self.ids.items()
            if hidden is None or name != labels.names[hidden]
        ]
        if hidden is not None and labels.ignored_ids:
            self.ids[IGNORED] = labels.ignored_ids[0]
            categories.append({"id": self.ids[IGNORED], "name": IGNORED, "supercategory": ""})
        self.file.write('{"info": {"description": "masks of classes"},\n "categories": ')
        self.file.write(json.dumps(categories, ensure_ascii=False) + ',\n "annotations": [')

    def annotations_of(self, train: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Returns one annotation per class that occurs, without ids; may run in any thread."""
        return [self._annotation(label, area) for label, area in _areas(train, self.labels)]

    def add(self, image: _CocoImage) -> None:
        """Writes one image's annotations."""
        name, (height, width), annotations = image
        self.images.append({"id": len(self.images) + 1, "file_name": name, "height": height, "width": width})
        for annotation in annotations:
            self.file.write(",\n  " if self.annotations else "\n  ")
            self.annotations += 1
            self.file.write(json.dumps({"id": self.annotations, "image_id": len(self.images), **annotation}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Writes the list of images, unless something went wrong."""
        with self.file:
            if kind is None:
                self.file.write('],\n "images": [\n  ')
                self.file.write(",\n  ".join(json.dumps(image, ensure_ascii=False) for image in self.images))
                self.file.write("]}\n")

    def _annotation(self, label: str, area: NDArray[np.bool_]) -> dict[str, Any]:
        rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        crowd = self.crowd or label == IGNORED
        return {
            "category_id": self.ids[label],
            "iscrowd": int(crowd),
            "area": int(np.count_nonzero(area)),
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "segmentation": self._segmentation(area, crowd),
        }

    def _segmentation(self, area: NDArray[np.bool_], crowd: bool) -> Any:
        if self.shapes == "polygons" and not crowd:
            return [ring.reshape(-1).tolist() for ring in _rings(area)]
        counts = counts_of(area)
        return {"size": list(area.shape), "counts": counts.tolist() if crowd else pack_counts(counts)}


def _areas(train: NDArray[np.uint8], labels: LabelSpace) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yields the classes that shapes show, and where they are."""
    hidden = _background(labels)
    for value in np.flatnonzero(np.bincount(train.reshape(-1), minlength=256)).tolist():
        if value == LabelSpace.ignore_index:
            if hidden is not None:
                yield IGNORED, train == value
        elif value != hidden:
            yield labels.names[value], train == value


def _background(labels: LabelSpace) -> int | None:
    """The class that is left uncovered, as the readers of annotations find it."""
    return next((train for train, name in enumerate(labels.names) if name.lower() in BACKGROUNDS), None)


def _rings(area: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Yields one closed outline per connected region."""
    for row, column, region in regions(area):
        yield with_holes_joined(outlines(region)) + np.array([column, row])


def _labelme_shapes(label: str, area: NDArray[np.bool_], shapes: ShapesAs) -> Iterator[dict[str, Any]]:
    same: dict[str, Any] = {"group_id": None, "description": "", "flags": {}}
    if shapes == "polygons":
        for ring in _rings(area):
            points = ring.astype(float).tolist()
            yield {"label": label, "points": points, "shape_type": "polygon", **same, "mask": None}
        return
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    file = io.BytesIO()
    Image.fromarray(area[top : bottom + 1, left : right + 1]).save(file, format="PNG")
    points = [[float(left), float(top)], [float(right), float(bottom)]]
    mask = base64.b64encode(file.getvalue()).decode("ascii")
    yield {"label": label, "points": points, "shape_type": "mask", **same, "mask": mask}


def _shared_folder(items: Sequence[tuple[str, Item]]) -> Path:
    """The deepest folder that all images of a split lie in."""
    return Path(os.path.commonpath([file_of(item.image).resolve().parent for _, item in items]))


def _check(shapes: str, labels: LabelSpace) -> None:
    if IGNORED in labels.names:
        raise InvalidValue(
            f"a class named {IGNORED!r} would be read again as ignored pixels; rename it in the label file"
        )
    if shapes not in get_args(ShapesAs):
        raise InvalidValue(f"shapes are written as one of {', '.join(get_args(ShapesAs))}, got {shapes!r}")
