"""CVAT's XML, version 1.1 "for images": polygons, boxes, ellipses and masks per image, with their ``z_order``.

Points, polylines, cuboids, skeletons and tags have no area and are left out, counted. Source: the XML annotation
format of CVAT's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from perpixel.data.annotations.collected import Annotated, Annotations, Tally, numbered_classes, usable_ring
from perpixel.data.annotations.json_values import LONGEST_SIDE, coordinate, path_inside, require_plain_file
from perpixel.data.annotations.rle import pack_counts
from perpixel.data.annotations.shapes import Box, Drawing, Ellipse, Part, Polygon, Ring, Runs, Shape
from perpixel.data.decoding import image_head
from perpixel.data.formats.item import listed, own_labels
from perpixel.errors import DataError, MissingExtra

__all__ = ["read_cvat"]

_NO_AREA = ("points", "polyline", "cuboid", "skeleton", "tag")


def read_cvat(path: Path, *, images: Path | None = None) -> Annotations:
    """Reads an XML file, or the annotations.xml of a folder; images lie beside it or in images/.

    Raises:
        DataError: not CVAT's XML for images, entities in it, images that are not there, shapes that are none.
        MissingExtra: defusedxml is not installed.
    """
    file = path / "annotations.xml" if path.is_dir() else path
    root = _parsed(file)
    if root.tag != "annotations":
        raise DataError(f"{file}: CVAT's XML begins with <annotations>, this file with <{root.tag}>")
    if root.find("track") is not None:
        raise DataError(
            f"{file}: holds tracks of a video; export the task as 'CVAT for images 1.1', which has the shapes of "
            "each frame"
        )
    pictures = root.findall("image")
    if not pictures:
        raise DataError(f"{file}: has no <image>; export the task as 'CVAT for images 1.1'")
    tally = Tally()
    annotated = _annotated(file, pictures, images, tally)
    names = list(dict.fromkeys(_task_labels(root))) or sorted(
        {s.name for picture in annotated for s in picture.drawing.shapes}
    )
    stated = set(names)
    unknown = sorted({s.name for picture in annotated for s in picture.drawing.shapes} - stated)
    if unknown:
        raise DataError(
            f"{file}: the labels {listed(unknown)} are drawn and not among those of the task: {listed(names)}"
        )
    labels, notes = own_labels(file.parent)
    return Annotations(
        format="cvat",
        root=file,
        splits={"all": annotated},
        classes=numbered_classes(names),
        order="z_order",
        labels=labels,
        notes=(*notes, *tally.notes()),
    )


def _task_labels(root: Any) -> Iterable[str]:
    """Yields the labels that areas can have: no parts of skeletons, and none that are for points, lines or tags."""
    for label in root.iter("label"):
        name = (label.findtext("name") or "").strip()
        if name and not label.findtext("parent") and label.findtext("type") not in _NO_AREA:
            yield name


def _parsed(file: Path) -> Any:
    try:
        import defusedxml
        from defusedxml import ElementTree
    except ImportError as error:
        raise MissingExtra(
            "CVAT's XML is read with the package defusedxml, which is not installed: pip install 'perpixel[formats]'"
        ) from error
    require_plain_file(file)
    try:
        return ElementTree.parse(file, forbid_dtd=True).getroot()
    except defusedxml.DefusedXmlException as error:
        raise DataError(
            f"{file}: XML with a DTD or entities is refused, since these can take any memory: {error}"
        ) from error
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{file}: cannot be read as XML: {error}") from error


def _annotated(file: Path, pictures: Iterable[Any], images: Path | None, tally: Tally) -> tuple[Annotated, ...]:
    folders = [file.parent, file.parent / "images"] if images is None else [images]
    annotated, missing = [], []
    for number, picture in enumerate(pictures):
        place = f"{file}: image {picture.get('id', number)}"
        name = _attribute(picture, "name", place)
        size = _whole(picture, "height", place, 1, LONGEST_SIDE), _whole(picture, "width", place, 1, LONGEST_SIDE)
        paths = [path_inside(folder, name, place) for folder in folders]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            missing.append(name)
            continue
        shapes = tuple(_shapes(picture, size, tally, file, name))
        head = image_head(path)
        drawing = Drawing(
            file=file,
            image=name,
            size=size,
            shapes=shapes,
            orientation=head.orientation if size == head.size else 1,  # older versions showed photos as stored
        )
        annotated.append(Annotated(image=path, drawing=drawing))
    if missing:
        raise DataError(
            f"{file}: {len(missing)} images are not in {' or '.join(map(str, folders))}: {listed(missing)}. Give their "
            "folder with --images."
        )
    return tuple(annotated)


def _shapes(picture: Any, size: tuple[int, int], tally: Tally, file: Path, name: str) -> Iterable[Shape]:
    for number, element in enumerate(picture):
        what = f"{element.tag} {number} on {name}"
        place = f"{file}: {what}"
        if element.tag in _NO_AREA:
            tally.add("points, lines, cuboids, skeletons and tags, which have no area, were left out", what)
            continue
        if element.tag not in _PARTS:
            raise DataError(f"{place}: <{element.tag}> is no shape of CVAT 1.1: {', '.join((*_PARTS, *_NO_AREA))}")
        part = _PARTS[element.tag](element, size, tally, place, what)
        if part is not None:
            level = _whole(element, "z_order", place, -(2**31), 2**31) if element.get("z_order") else 0
            yield Shape(name=_attribute(element, "label", place), parts=(part,), z_order=level, place=what)


def _polygon(element: Any, size: tuple[int, int], tally: Tally, place: str, what: str) -> Part | None:
    ring: list[float] = []
    for point in _attribute(element, "points", place).split(";"):
        pair = point.split(",")
        if len(pair) != 2:
            raise DataError(f"{place}: a point is 'x,y', got {point!r:.60}")
        ring += [_float(value, place) for value in pair]
    usable = usable_ring(tuple(ring), size, tally, what)
    return None if usable is None else Polygon(rings=(usable,))


def _box(element: Any, size: tuple[int, int], tally: Tally, place: str, what: str) -> Part | None:
    left, top, right, bottom = (_number(element, key, place) for key in ("xtl", "ytl", "xbr", "ybr"))
    if right < left or bottom < top:
        raise DataError(f"{place}: the box from ({left}, {top}) to ({right}, {bottom}) ends before it begins")
    rotation = _number(element, "rotation", place) if element.get("rotation") else 0.0
    ring = _turned((left, top, right, top, right, bottom, left, bottom), rotation)
    usable_ring(ring, size, tally, what)
    return Polygon(rings=(ring,)) if rotation else Box(left=left, top=top, right=right, bottom=bottom)


def _turned(ring: Ring, degrees: float) -> Ring:
    """Turns a box about its centre, clockwise on the screen."""
    x, y = (ring[0] + ring[4]) / 2, (ring[1] + ring[5]) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = zip(ring[::2], ring[1::2], strict=True)
    turned = [(x + (a - x) * cosine - (b - y) * sine, y + (a - x) * sine + (b - y) * cosine) for a, b in corners]
    return tuple(value for corner in turned for value in corner)


def _ellipse(element: Any, size: tuple[int, int], tally: Tally, place: str, what: str) -> Part | None:
    x, y, rx, ry = (_number(element, key, place) for key in ("cx", "cy", "rx", "ry"))
    if rx <= 0 or ry <= 0:
        raise DataError(f"{place}: the radii of an ellipse are positive, got {rx} and {ry}")
    rotation = _number(element, "rotation", place) if element.get("rotation") else 0.0
    angle = math.radians(rotation)
    wide = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    high = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    usable_ring((x - wide, y - high, x + wide, y - high, x, y + high), size, tally, what)
    return Ellipse(center=(x, y), radii=(rx, ry), rotation=rotation)


def _mask(element: Any, size: tuple[int, int], tally: Tally, place: str, what: str) -> Part | None:
    left, top = (_whole(element, key, place, -LONGEST_SIDE, LONGEST_SIDE) for key in ("left", "top"))
    width, height = (_whole(element, key, place, 1, LONGEST_SIDE) for key in ("width", "height"))
    try:
        counts = [int(count) for count in _attribute(element, "rle", place).split(",")]
    except ValueError as error:
        raise DataError(f"{place}: 'rle' must list whole numbers: {error}") from error
    if any(not 0 <= count < 2**31 for count in counts) or sum(counts) != width * height:
        raise DataError(f"{place}: 'rle' must add up to the {height} x {width} pixels of the mask, got {sum(counts)}")
    usable_ring((left, top, left + width, top, left, top + height), size, tally, what)
    return Runs(packed=pack_counts(counts), size=(height, width), by_columns=False, corner=(top, left))


_PARTS: dict[str, Callable[[Any, tuple[int, int], Tally, str, str], Part | None]] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}


def _attribute(element: Any, key: str, place: str) -> str:
    value: str | None = element.get(key)
    if not value:
        raise DataError(f"{place}: the attribute {key!r} is missing or empty")
    return value


def _number(element: Any, key: str, place: str) -> float:
    return _float(_attribute(element, key, place), f"{place}: {key!r}")


def _float(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{place}: a coordinate must be a number, got {text!r:.60}") from error
    return coordinate(value, place)


def _whole(element: Any, key: str, place: str, low: int, high: int) -> int:
    text = _attribute(element, key, place)
    try:
        value = int(text)
    except ValueError as error:
        raise DataError(f"{place}: {key!r} must be a whole number, got {text!r:.60}") from error
    if not low <= value <= high:
        raise DataError(f"{place}: {key!r} must be from {low} to {high}, got {value}")
    return value
