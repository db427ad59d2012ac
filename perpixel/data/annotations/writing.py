"""Files of a data set that is written: its folder, its label file, its images; whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from perpixel.data.decoding import IMAGE_SUFFIXES, ImageHead, read_pixels
from perpixel.data.formats.item import Item
from perpixel.data.picture import Picture
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["Placement", "file_name", "label_text", "new_folder", "place_image", "written_labels"]

Placement = Literal["copy", "link", "list"]
"""How images come along: copied, as symbolic links, or left where they are and named in lists."""

_SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}


def written_labels(labels: LabelSpace) -> LabelSpace:
    """Returns the label space of masks that are written: one id per class, up to 255, and one that is ignored."""
    train_ids = tuple(range(labels.num_classes))
    ids = train_ids if labels.train_to_stored is None else tuple(labels.train_to_stored)
    ignored = labels.ignored_ids[:1]
    if ids == train_ids or max((*ids, *ignored)) > 255 or len(set(ids)) < len(ids):
        ids, ignored = train_ids, labels.ignored_ids and (255,)
    return LabelSpace(
        name=labels.name,
        names=labels.names,
        colors=labels.colors,
        stored_to_train={
            **{stored: train for train, stored in enumerate(ids)},
            **dict.fromkeys(ignored, LabelSpace.ignore_index),
        },
        train_to_stored=None if ids == train_ids else ids,
        ignore_color=labels.ignore_color,
    )


def label_text(labels: LabelSpace) -> str:
    """Returns the label file (YAML) from which `LabelSpace.load` makes a label space of `written_labels`."""
    content: dict[str, Any] = {
        "name": labels.name,
        "names": list(labels.names),
        "colors": [list(color) for color in labels.colors],
        "ignore": list(labels.ignored_ids),
        "ignore_color": list(labels.ignore_color),
    }
    if labels.train_to_stored is not None:
        content["stored"] = list(labels.train_to_stored)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the name ``out`` when the block ends well, and is removed when it does not.

    Raises:
        DataError: ``out`` is there already, or the folder cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: is there already and nothing is overwritten; give another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial_folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out}: cannot be made: {error.strerror}") from error
    try:
        yield partial_folder
        partial_folder.chmod(0o777 & ~_mask_of_process())
        partial_folder.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def place_image(item: Item, head: ImageHead, folder: Path, name: str, placement: Placement) -> str:
    """Brings one image into a folder and returns its file name.

    Raises:
        DataError: a picture inside another file has 16-bit colours, which PNG files here do not hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = item.image
    if isinstance(image, Picture):
        pixels = read_pixels(image)
        if pixels.ndim == 3 and pixels.dtype != np.uint8:
            raise DataError(f"{image}: 16-bit colour is not written; convert the images before")
        Image.fromarray(pixels).save(folder / f"{name}.png")
        return f"{name}.png"
    suffix = image.suffix.lower() if isinstance(image, Path) else ""
    file = folder / f"{name}{suffix if suffix in IMAGE_SUFFIXES else _SUFFIX_OF[head.format]}"
    if not isinstance(image, Path):
        with image.open() as inside:
            file.write_bytes(inside.read())
    elif placement == "link":
        file.symlink_to(image.resolve())
    else:
        shutil.copyfile(image, file)
    return file.name


def file_name(name: str) -> str:
    """Returns a name that is one file's: folders in it become ``__``.

    Raises:
        DataError: nothing is left, or it is hidden, too long or holds a NUL.
    """
    flat = name.replace("/", "__").replace("\\", "__")
    if not flat or flat.startswith(".") or "\0" in flat or len(flat.encode()) > 240:
        raise DataError(f"the name {name!r:.80} of an image is no name for a file; rename the image")
    return flat


def _mask_of_process() -> int:
    """The permissions that the process takes from new files; `mkdtemp` takes all but the owner's."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
