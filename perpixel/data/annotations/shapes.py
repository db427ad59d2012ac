"""What annotation tools draw: shapes with class names on an image, as plain values that are the same for every tool.

Coordinates are (x, y) in pixels with the origin at the upper left corner of the upper left pixel: the pixel in row r
and column c covers [c, c + 1) × [r, r + 1), and its centre is (c + 0.5, r + 0.5). H W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["IGNORED", "ORDERS", "Box", "Drawing", "Ellipse", "Order", "Part", "Polygon", "Ring", "Runs", "Shape"]

Ring: TypeAlias = tuple[float, ...]
"""A closed outline as x0, y0, x1, y1, …; the last point is joined to the first."""

IGNORED = "__ignore__"
"""The class name under which pixels without a class are drawn; labelme's own word for them."""

Order = Literal["file", "area", "z_order"]
ORDERS: dict[Order, str] = {
    "file": "as in the file, later shapes over earlier ones",
    "area": "small shapes over large ones, whatever the file's order",
    "z_order": "by the z_order that the tool stored, equal ones as in the file",
}
"""Which of two overlapping shapes is seen."""


@dataclass(frozen=True, kw_only=True)
class Polygon:
    """The inside of one or more outlines by the even-odd rule: an outline within another one is a hole."""

    rings: tuple[Ring, ...]


@dataclass(frozen=True, kw_only=True)
class Box:
    """An upright rectangle."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """An ellipse; a circle has equal radii."""

    center: tuple[float, float]
    radii: tuple[float, float]
    """Along its own x and y axis, pixels."""
    rotation: float = 0.0
    """Degrees, clockwise as seen on the screen."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A bitmap as the lengths of its runs, which are outside and inside by turns, outside first."""

    packed: str
    """The lengths in COCO's text form (`rle.pack_counts`), which takes the least memory."""
    size: tuple[int, int]
    """Height and width of the bitmap."""
    by_columns: bool = True
    """Runs go down the columns, as in COCO; else along the rows, as in CVAT."""
    corner: tuple[int, int] = (0, 0)
    """Row and column of the bitmap's upper left pixel in the image; may lie outside."""


Part: TypeAlias = Polygon | Box | Ellipse | Runs


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One object: the union of its parts."""

    name: str
    """Its class; `IGNORED` for pixels without one."""
    parts: tuple[Part, ...]
    z_order: int | None = None
    """None where the tool has no such thing."""
    place: str = ""
    """What messages call it, such as ``annotation 17``."""
    crowd: bool = False
    """A group that was not drawn one by one (COCO's ``iscrowd``)."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """All shapes of one image."""

    file: Path
    """The annotation file."""
    image: str
    """The image's name as the annotation file gives it."""
    size: tuple[int, int]
    """Height and width of the picture that was drawn on."""
    shapes: tuple[Shape, ...]
    """In the order of the file."""
    orientation: int = 1
    """EXIF orientation of the image file where the tool showed it upright; 1 where it was drawn on as stored."""
