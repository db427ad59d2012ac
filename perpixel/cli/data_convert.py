"""``perpixel data convert``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay, duration
from perpixel.errors import InvalidValue

if TYPE_CHECKING:
    from perpixel.data.annotations.convert import Conversion
    from perpixel.data.source import DataSource
    from perpixel.labels import LabelSpace

__all__ = ["data_convert"]


def data_convert(
    data: str,
    /,
    *,
    to: Literal["folder", "coco", "labelme"],
    out: Path,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    images: Path | None = None,
    labels: str | None = None,
    order: Literal["file", "area", "z_order"] | None = None,
    rest: Literal["auto", "background", "ignore"] = "auto",
    rule: Literal["centres", "pil"] = "centres",
    place: Literal["copy", "link", "list"] = "copy",
    shapes: Literal["rle", "polygons"] | None = None,
    crowd: Annotated[bool, Parameter(negative="")] = False,
    colors: Annotated[bool, Parameter(negative="")] = False,
    json: JsonFile = None,
) -> None:
    """Turns drawn labels or any data set into folders of images and masks, or into COCO's or labelme's JSON.

    Where shapes overlap, the order decides which one is seen; how many pixels that concerns is said. Nothing is
    overwritten, and a conversion that fails leaves nothing behind.

    Args:
        data: [format:]path: a data set, or files of coco, labelme, cvat or yolo (coco:instances.json).
        to: folder (images/, masks/, labels.yaml), coco or labelme.
        out: Folder to make; it must not be there.
        source: The format, in place of the prefix of DATA.
        images: Folder of the images of drawn labels, where they do not lie beside them.
        labels: The classes: a known label space, a YAML file or a number; else those of the data.
        order: Drawn labels: file (later over earlier), area (small over large) or z_order (CVAT). Without it, z_order
            for CVAT and file for the others.
        rest: What pixels are that no shape covers: background (id 0), ignore (255), or auto: background where the
            classes have one.
        rule: Which pixels a polygon covers: those whose centre is inside, or pil, which paints as labelme's own
            converters and Cityscapes' do.
        place: Images are copied, linked, or left where they are and listed.
        shapes: To coco and labelme: rle (labelme: small masks) or polygons; without it, rle for coco and polygons for
            labelme.
        crowd: To coco: every annotation is marked iscrowd.
        colors: The masks' colours are the classes of --labels.
    """
    check_json_file(json)
    if to == "folder" and (shapes is not None or crowd):
        raise InvalidValue("--shapes and --crowd say how --to coco and --to labelme write areas; leave them away")
    if to == "labelme" and crowd:
        raise InvalidValue("--crowd is COCO's; labelme has no such mark")
    from perpixel.data.annotations.opening import open_any

    console = console_for(json)
    opened = open_any(data, source, images=images, labels=labels, order=order, rest=rest, rule=rule, colors=colors)
    for note in opened.notes:
        say(console, note)
    started = time.perf_counter()
    with ProgressDisplay(console) as display:
        done = _convert(
            opened.source,
            opened.labels,
            to,
            out,
            place,
            shapes,
            crowd=crowd,
            colors=colors,
            progress=_Progress(display),
        )
    _finish(console, done, to, json, time.perf_counter() - started)


class _Progress:
    """What the display shows of a conversion."""

    phase = "converting"

    def __init__(self, display: ProgressDisplay) -> None:
        self.display = display
        self.started = time.perf_counter()
        self.done = self.total = 0
        self.rate: float | None = None
        self.values: dict[str, Any] = {}

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.rate = done / max(time.perf_counter() - self.started, 1e-9)
        self.display.update(self)


def _convert(
    data: DataSource,
    labels: LabelSpace,
    to: str,
    out: Path,
    place: Literal["copy", "link", "list"],
    shapes: Literal["rle", "polygons"] | None,
    *,
    crowd: bool,
    colors: bool,
    progress: _Progress,
) -> Conversion:
    from perpixel.data.annotations.convert import write_folder
    from perpixel.data.annotations.export import write_coco, write_labelme

    if to == "folder":
        return write_folder(data, labels, out, images=place, colors=colors, on_progress=progress)
    if to == "coco":
        return write_coco(
            data, labels, out, images=place, shapes=shapes or "rle", crowd=crowd, colors=colors, on_progress=progress
        )
    return write_labelme(
        data, labels, out, images=place, shapes=shapes or "polygons", colors=colors, on_progress=progress
    )


def _finish(console: Console, done: Conversion, to: str, json: str | None, seconds: float) -> None:
    """Says and writes what was done."""
    for note in done.notes:
        say(console, note)
    total = max(sum(done.pixels), 1)
    names = (*done.labels.names, "ignored")
    for name, pixels, images in zip(names, done.pixels, done.images_with, strict=True):
        say(console, f"{name}: {pixels / total:.2%} of the pixels, on {images} images")
    count = sum(done.images.values())
    say(console, f"{count} images converted to {to} in {duration(seconds)}: {done.out}")
    values = {
        "out": done.out.as_posix(),
        "to": to,
        "images": dict(done.images),
        "classes": [
            {"name": name, "pixels": pixels, "images": images}
            for name, pixels, images in zip(names[:-1], done.pixels, done.images_with, strict=False)
        ],
        "ignored_pixels": done.pixels[-1],
        "overlapped_pixels": done.overlapped,
        "seconds": seconds,
        "notes": list(done.notes),
    }
    write_json(json, values)
