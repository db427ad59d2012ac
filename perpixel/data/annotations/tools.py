"""The annotation tools whose files are read, by name: as a data set whose masks are painted when they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from perpixel.data.annotations.coco import read_coco
from perpixel.data.annotations.collected import Annotations, Rest, drawn_source
from perpixel.data.annotations.cvat import read_cvat
from perpixel.data.annotations.labelme import read_labelme
from perpixel.data.annotations.painting import DrawnMask
from perpixel.data.annotations.rasterise import Rule
from perpixel.data.annotations.shapes import ORDERS, Order
from perpixel.data.annotations.yolo import read_yolo
from perpixel.data.formats.item import DataSource
from perpixel.errors import DataError, InvalidValue, nearest
from perpixel.labels import LabelSpace

__all__ = ["TOOLS", "open_drawn"]

TOOLS: dict[str, Callable[..., Annotations]] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "labelme": read_labelme,
    "yolo": read_yolo,
}
"""Readers of drawn labels by the tool's name: each takes a path, and ``images=`` for the folder of the images."""


def open_drawn(
    tool: str,
    path: Path,
    *,
    images: Path | None = None,
    labels: LabelSpace | None = None,
    order: Order | None = None,
    rest: Rest = "auto",
    rule: Rule = "centres",
) -> DataSource:
    """Opens the files of one tool of `TOOLS` as a data set, whose masks are painted when they are read.

    Raises:
        DataError: as the tool's reader, or the label space does not fit.
        InvalidValue: no such tool.
    """
    if tool not in TOOLS:
        raise InvalidValue(
            f"there is no reader for the tool {tool!r}{nearest(tool, TOOLS)}. Known: {', '.join(TOOLS)}."
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if images is not None and not images.is_dir():
        raise DataError(f"--images {images}: there is no such folder")
    annotations = TOOLS[tool](path, images=images)
    source = drawn_source(annotations, labels=labels, order=order, rest=rest, rule=rule)
    seen = ORDERS[order or annotations.order]
    note = f"where shapes overlap: {seen}; polygons cover pixels by rule {rule!r}; pixels that no shape covers are "
    return replace(source, notes=(*source.notes, note + _rest_of(source)))


def _rest_of(source: DataSource) -> str:
    """Says what pixels are that no shape covers."""
    mask = next(iter(source.splits.values()))[0].mask
    assert isinstance(mask, DrawnMask) and source.labels is not None
    train = source.labels.stored_to_train[mask.rest]
    what = "ignored" if train == LabelSpace.ignore_index else source.labels.names[train]
    return f"{what} (id {mask.rest})"
