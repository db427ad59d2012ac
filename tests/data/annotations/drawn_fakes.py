"""Images and annotation files as the tools write them, tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from perpixel.data.annotations.shapes import Box, Drawing, Shape

EXIF_ORIENTATION = 0x0112


def put_image(path: Path, size: tuple[int, int] = (8, 10), *, orientation: int = 1) -> Path:
    """Writes a picture whose stored pixels have this size (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation > 1:
        exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def put_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """The corners of a rectangle, flat."""
    return [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]


def box_shape(name: str, left: float, top: float, right: float, bottom: float, **more: Any) -> Shape:
    return Shape(name=name, parts=(Box(left=left, top=top, right=right, bottom=bottom),), **more)


def drawing(*shapes: Shape, size: tuple[int, int] = (8, 10)) -> Drawing:
    return Drawing(file=Path("drawn.json"), image="a.png", size=size, shapes=shapes)


def coco_content(**changes: Any) -> dict[str, Any]:
    """Two categories with a gap in their ids, one image, a car under a person."""
    content: dict[str, Any] = {
        "info": {},
        "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [{"id": 3, "name": "car"}, {"id": 9, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [box(1, 1, 6, 5)], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 9, "segmentation": [box(4, 3, 8, 7)], "iscrowd": 0},
        ],
    }
    return content | changes


def annotation(segmentation: Any, **changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 3, "segmentation": segmentation} | changes


def labelme_content(*shapes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.png", "imageData": None}
    return content | {"imageHeight": 8, "imageWidth": 10} | changes


def labelme_shape(label: str, points: list[list[float]], kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def expected(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = (8, 10), rest: int = 0) -> np.ndarray:
    """A mask of boxes (id, left, top, right, bottom), later over earlier."""
    mask = np.full(size, rest, dtype=np.uint8)
    for value, left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = value
    return mask
