"""Where data comes from: ``[format:]path`` becomes splits of image and mask files; what was decided is in the notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from perpixel.data.annotations.tools import open_drawn
from perpixel.data.formats.ade20k import is_ade20k, read_ade20k
from perpixel.data.formats.bdd100k import is_bdd100k, read_bdd100k
from perpixel.data.formats.camvid import is_camvid, read_camvid, read_camvid32
from perpixel.data.formats.cityscapes import is_cityscapes, read_cityscapes
from perpixel.data.formats.class_files import is_class_folders, read_class_folders
from perpixel.data.formats.cocostuff import is_cocostuff, read_cocostuff
from perpixel.data.formats.folders import LAYOUT, is_folder_layout, read_folder, read_folder_pair
from perpixel.data.formats.image_folder import is_image_folder, read_image_folder
from perpixel.data.formats.isbi2012 import is_isbi2012, read_isbi2012
from perpixel.data.formats.item import DataSource, Item, listed, lost_links
from perpixel.data.formats.list_file import LIST_SUFFIXES, is_list_folder, read_list
from perpixel.data.formats.mapillary import is_mapillary, read_mapillary
from perpixel.data.formats.nyuv2 import is_nyuv2, read_nyuv2
from perpixel.data.formats.pascal_context import is_pascal_context, read_pascal_context, read_pascal_context60
from perpixel.data.formats.sbd import is_sbd, read_sbd
from perpixel.data.formats.shards import is_shards, read_shards
from perpixel.data.formats.sunrgbd import is_sunrgbd, read_sunrgbd
from perpixel.data.formats.voc import is_voc, read_voc
from perpixel.errors import DataError, nearest

__all__ = ["FORMATS", "DataSource", "Item", "open_data", "open_folders", "recognised_format"]

FORMATS: dict[str, Callable[[Path], DataSource]] = {
    "ade20k": read_ade20k,
    "bdd100k": read_bdd100k,
    "camvid": read_camvid,
    "camvid32": read_camvid32,
    "cityscapes": read_cityscapes,
    "class_folders": read_class_folders,
    "coco": partial(open_drawn, "coco"),
    "cocostuff": read_cocostuff,
    "cvat": partial(open_drawn, "cvat"),
    "folder": read_folder,
    "image_folder": read_image_folder,
    "isbi2012": read_isbi2012,
    "labelme": partial(open_drawn, "labelme"),
    "list": read_list,
    "mapillary": read_mapillary,
    "nyuv2": read_nyuv2,
    "pascal_context": read_pascal_context,
    "pascal_context60": read_pascal_context60,
    "sbd": read_sbd,
    "shards": read_shards,
    "sunrgbd": read_sunrgbd,
    "voc": read_voc,
    "yolo": partial(open_drawn, "yolo"),
}
_READ_FILES = ("coco", "cvat", "labelme", "list", "shards", "yolo")
"""Formats that are read from a file too."""
_PLAIN = ("image_folder", "folder")
_LOOKED_INTO = 30  # folders inside one that has no known layout
_RECOGNISED: tuple[tuple[str, Callable[[Path], bool], str], ...] = (
    ("cityscapes", is_cityscapes, "Cityscapes"),
    ("camvid", is_camvid, "CamVid"),
    ("ade20k", is_ade20k, "ADE20K's scene parsing benchmark"),
    ("bdd100k", is_bdd100k, "BDD100K"),
    ("mapillary", is_mapillary, "Mapillary Vistas"),
    ("cocostuff", is_cocostuff, "COCO-Stuff"),
    ("nyuv2", is_nyuv2, "NYU Depth v2"),
    ("sunrgbd", is_sunrgbd, "SUN RGB-D"),
    ("isbi2012", is_isbi2012, "the ISBI 2012 challenge"),
    ("pascal_context", is_pascal_context, "PASCAL-Context"),
    ("voc", is_voc, "PASCAL VOC"),
    ("sbd", is_sbd, "SBD"),
    ("class_folders", is_class_folders, "a mask file per class"),
    ("image_folder", is_image_folder, "an image folder with metadata"),
    ("folder", is_folder_layout, ""),
    ("list", is_list_folder, "lists per split"),
    ("shards", is_shards, "WebDataset shards"),
)
"""Layouts that are known unasked, the first that fits is taken: published ones before those that they resemble."""


def open_data(spec: str | Path) -> DataSource:
    """Opens a data set: ``path``, or ``format:path`` with a format of `FORMATS`.

    Without a format, a file is a list of pairs, and a folder is recognised: published data sets by their own folders,
    then an image folder with metadata, then images/ and masks/ (with or without splits), then lists of splits. What was
    recognised is said in the notes, as are other formats that fit too.

    Raises:
        DataError: the format is unknown, the path is not there or cannot be read, or its content has another layout.
    """
    try:
        name, path = _parsed(str(spec))
        if not path.exists() and name != "shards":  # which takes a pattern too
            raise DataError(f"{path}: there is no such data folder or list file. {LAYOUT}")
        return _opened(name, path)
    except (OSError, RuntimeError) as error:  # the latter for the home of a user who is not there
        raise DataError(f"{spec}: cannot be read: {error}. Check the name and your rights to read it.") from error


def _opened(name: str | None, path: Path) -> DataSource:
    if name is not None:
        if name not in _READ_FILES and path.is_file():
            raise DataError(f"{path}: format {name!r} is read from a folder, this is a file; try list:{path}")
        return _read_or_hint(FORMATS[name], path, (name,))
    if path.is_file():
        if is_shards(path):
            return read_shards(path)
        if path.suffix.lower() not in LIST_SUFFIXES:
            raise DataError(f"{path}: data is a folder or a list file ({', '.join(LIST_SUFFIXES)}). {LAYOUT}")
        return read_list(path)
    lost = lost_links(path)
    fitting = [(known, title) for known, fits, title in _RECOGNISED if fits(path)]
    if not fitting:
        return _read_or_hint(read_folder, path, tuple(FORMATS))
    (taken, title), *others = fitting
    source = FORMATS[taken](path)
    notes = [f"{source.root} has the layout of {title}, so format {taken!r} is used"] if title else []
    if lost:
        notes.append(f"{len(lost)} symbolic links lead nowhere or to themselves and were passed over: {listed(lost)}")
    # Published data sets bring lists of their own kind, which are no pairs of files.
    also = [f"{known}:{path}" for known, _ in others if known != "list" or taken in _PLAIN]
    if also:
        notes.append(f"other formats fit as well, which are read only when asked for: {listed(also)}")
    return replace(source, notes=(*notes, *source.notes))


def _read_or_hint(read: Callable[[Path], DataSource], path: Path, formats: Sequence[str]) -> DataSource:
    """Reads a data set; where it fails, a folder inside that has the layout is named: archives are often nested."""
    try:
        return read(path)
    except DataError as error:
        inside = sorted(p for p in path.iterdir() if p.is_dir() and p.name[:1] != ".") if path.is_dir() else []
        if not inside or recognised_format(path) is not None:
            raise
        found = {folder: recognised_format(folder) for folder in inside[:_LOOKED_INTO]}
        hints = [f"{known}:{folder}" for folder, known in found.items() if known in formats]
        if not hints:
            raise
        raise DataError(f"{error} Inside lies data with a known layout; did you mean {listed(hints, 3)}?") from error


def open_folders(images: str | Path, masks: str | Path) -> DataSource:
    """Opens a folder of images and a folder of masks, matched by file name, as the one split ``all``.

    Raises:
        DataError: a folder is missing, an image has no mask, or two files share a name.
    """
    return read_folder_pair(Path(images), Path(masks))


def recognised_format(folder: Path) -> str | None:
    """Returns the format that `open_data` takes a folder for; None where no layout fits."""
    return next((known for known, fits, _ in _RECOGNISED if fits(folder)), None)


def _parsed(spec: str) -> tuple[str | None, Path]:
    """Splits ``format:path``; a path that exists, or a drive letter before the colon, is a path as a whole."""
    prefix, colon, rest = spec.partition(":")
    if not colon or len(prefix) < 2 or "/" in prefix or "\\" in prefix or Path(spec).exists():
        return None, Path(spec).expanduser()
    if prefix not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise DataError(f"no data format {prefix!r} in {spec!r}{nearest(prefix, FORMATS)}. Known: {known}.")
    if not rest:
        raise DataError(f"{spec!r} names a format and no path; write {prefix}:PATH")
    return prefix, Path(rest).expanduser()
