"""labelme's JSON: one file per image with its ``shapes``.

Polygons, rectangles, circles and masks become areas; points and lines have none and are left out, counted. The label
``__ignore__`` is labelme's for pixels without a class and ``_background_`` for the background, both as in its own
converters. Coordinates are pixels of the upright image: labelme turns photos by their EXIF tag before it shows them.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from perpixel.data.annotations.collected import Annotated, Annotations, Tally, numbered_classes, usable_ring
from perpixel.data.annotations.json_values import Fields, json_files, path_inside, read_json, ring_of
from perpixel.data.annotations.rle import counts_of, pack_counts
from perpixel.data.annotations.shapes import IGNORED, Box, Drawing, Ellipse, Part, Polygon, Ring, Runs, Shape
from perpixel.data.decoding import image_head, read_mask
from perpixel.data.formats.item import listed, own_labels
from perpixel.data.picture import FileInside, PixelSource
from perpixel.errors import DataError

__all__ = ["EmbeddedImage", "read_labelme"]

_NO_AREA = ("point", "line", "linestrip", "points")
_POINTS = {"rectangle": 2, "circle": 2, "mask": 2}
_MOST_INSIDE = 1 << 28


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage(FileInside):
    """The image that a labelme file carries within itself, where it has no file of its own."""

    file: Path
    image: str

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.file

    @property
    def name(self) -> str:
        """The image's name by the JSON file."""
        return self.image

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Decodes the image file.

        Raises:
            OSError: the file has no image inside any more.
        """
        if mode != "rb":
            raise OSError(f"{self}: can be read alone, not opened with mode {mode!r}")
        data = read_json(self.file).get("imageData")
        if not isinstance(data, str):
            raise OSError(f"{self}: the image is gone")
        return io.BytesIO(_decoded(data, str(self)))

    def __str__(self) -> str:
        return f"{self.file}: imageData"


def read_labelme(path: Path, *, images: Path | None = None) -> Annotations:
    """Reads the JSON files of a folder, or of its folders train/, val/ and test/, or one file.

    Args:
        path: Folder or file.
        images: Folder of the images, which are then found by their file names alone; None takes ``imagePath``, which
            must not leave the folder of the JSON file, and where there is no such file the image inside the JSON.

    Raises:
        DataError: not labelme's JSON, an image that is not there, shapes that are none; names the file and the shape.
    """
    tally = Tally()
    splits: dict[str, tuple[Annotated, ...]] = {}
    for split, files in _files(path).items():
        splits[split] = tuple(_annotated(file, images, tally) for file in files)
    drawn = {shape.name for pictures in splits.values() for picture in pictures for shape in picture.drawing.shapes}
    root = path if path.is_dir() else path.parent
    names = numbered_classes(_known_names(root) or sorted(drawn - {IGNORED}))
    missing = sorted(drawn - set(names) - {IGNORED})
    if missing:
        raise DataError(f"{root / 'labels.txt'}: the labels {listed(missing)} are drawn and not listed; add them")
    labels, notes = own_labels(root)
    if not names and labels is None:
        raise DataError(f"{path}: no shape with an area is drawn in {sum(map(len, splits.values()))} files")
    return Annotations(
        format="labelme", root=path, splits=splits, classes=names, labels=labels, notes=(*notes, *tally.notes())
    )


def _files(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        return {"all": [path]}
    files = json_files(path)
    if files:
        return {"all": files}
    splits = {split: json_files(path / split) for split in ("train", "val", "test")}
    splits = {split: files for split, files in splits.items() if files}
    if not splits:
        raise DataError(f"{path}: there are no JSON files here, nor in train/, val/ and test/")
    return splits


def _known_names(root: Path) -> list[str]:
    """Returns the labels of labelme's labels.txt, which lists ``__ignore__`` and ``_background_`` first."""
    file = root / "labels.txt"
    if not file.is_file():
        return []
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of labels: {error}") from error
    names = [line for line in lines if line and line != IGNORED]
    if len(set(names)) < len(names):
        raise DataError(f"{file}: a label is listed twice")
    return names


def _annotated(file: Path, images: Path | None, tally: Tally) -> Annotated:
    fields = Fields.of(read_json(file), str(file))
    values = fields.items("shapes")
    name = fields.text("imagePath")
    image = _image(file, name, images, fields.values.get("imageData"))
    head = image_head(image)
    size = head.size
    for key, actual in zip(("imageHeight", "imageWidth"), size, strict=True):
        stated = fields.values.get(key)
        if stated is not None and stated != actual:
            raise DataError(
                f"{file}: {key!r} is {stated!r:.60} and {image} has {actual}; the shapes were drawn on another picture "
                "or at another size"
            )
    shapes = []
    for number, value in enumerate(values):
        place = f"shape {number}"
        shape = Fields.of(value, f"{file}: {place}")
        parts = _parts(shape, size, tally, f"{place} of {file.name}")
        if parts:
            shapes.append(Shape(name=shape.text("label"), parts=parts, place=place))
    drawing = Drawing(file=file, image=name, size=size, shapes=tuple(shapes), orientation=head.orientation)
    return Annotated(image=image, drawing=drawing)


def _image(file: Path, name: str, images: Path | None, data: Any) -> PixelSource:
    last = name.replace("\\", "/").rpartition("/")[2]
    embedded = EmbeddedImage(file=file, image=last) if isinstance(data, str) and data else None
    # labelme writes ../images/a.jpg where its JSON files lie apart from the images.
    if embedded is not None and images is None and ".." in name.replace("\\", "/").split("/"):
        return embedded
    path = path_inside(file.parent, name, str(file)) if images is None else path_inside(images, last, str(file))
    if path.is_file():
        return path
    if embedded is not None:
        return embedded
    raise DataError(f"{file}: there is no image {path}, nor one inside the file; give the images' folder with --images")


def _parts(fields: Fields, size: tuple[int, int], tally: Tally, place: str) -> tuple[Part, ...]:
    kind = fields.values.get("shape_type") or "polygon"
    if kind in _NO_AREA:
        tally.add("points and lines, which have no area, were left out", place)
        return ()
    if kind not in ("polygon", "oriented_rectangle", *_POINTS):
        raise DataError(f"{fields.place}: 'shape_type' {kind!r:.60} is none that labelme draws areas with")
    ring = ring_of(fields.items("points"), f"{fields.place}: points")
    if kind not in _POINTS:
        usable = usable_ring(ring, size, tally, place)
        return () if usable is None else (Polygon(rings=(usable,)),)
    if len(ring) != 2 * _POINTS[kind]:
        raise DataError(f"{fields.place}: a {kind} has {_POINTS[kind]} points, got {len(ring) // 2}")
    if kind == "mask":
        return (_mask(fields, ring),)
    x0, y0, x1, y1 = ring
    if kind == "rectangle":
        box = Box(left=min(x0, x1), top=min(y0, y1), right=max(x0, x1), bottom=max(y0, y1))
        usable_ring((box.left, box.top, box.right, box.top, box.right, box.bottom), size, tally, place)
        return (box,)
    radius = math.hypot(x1 - x0, y1 - y0)
    if radius == 0:
        tally.add("circles without a radius were left out", place)
        return ()
    usable_ring((x0 - radius, y0 - radius, x0 + radius, y0, x0, y0 + radius), size, tally, place)
    return (Ellipse(center=(x0, y0), radii=(radius, radius)),)


def _mask(fields: Fields, ring: Ring) -> Runs:
    """Reads the small picture of a shape drawn pixel by pixel; its points are its first and last pixel."""
    data = fields.text("mask")
    file = _Inside(place=f"{fields.place}: mask", content=_decoded(data, f"{fields.place}: mask"))
    bitmap = read_mask(file) > 0
    left, top, right, bottom = (math.floor(value) for value in ring)
    if bitmap.shape != (bottom - top + 1, right - left + 1):
        raise DataError(
            f"{fields.place}: the mask is {bitmap.shape[0]} x {bitmap.shape[1]} and its points say "
            f"{bottom - top + 1} x {right - left + 1}"
        )
    return Runs(packed=pack_counts(counts_of(bitmap)), size=(bitmap.shape[0], bitmap.shape[1]), corner=(top, left))


def _decoded(data: str, place: str) -> bytes:
    if len(data) > _MOST_INSIDE:
        raise DataError(f"{place}: {len(data)} characters are more than any image that is kept inside JSON")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{place}: is not base64: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Inside(FileInside):
    """An image file in memory."""

    place: str
    content: bytes

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def name(self) -> str:
        return self.place

    def open(self, mode: str = "rb") -> IO[bytes]:
        if mode != "rb":
            raise OSError(f"{self}: can be read alone, not opened with mode {mode!r}")
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return self.place
