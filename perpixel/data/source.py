"""Where data comes from: ``[format:]path`` becomes splits of image and mask files; what was decided is in the notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from perpixel.data.formats.camvid import is_camvid, read_camvid
from perpixel.data.formats.folders import LAYOUT, is_folder_layout, read_folder, read_folder_pair
from perpixel.data.formats.item import DataSource, Item
from perpixel.data.formats.list_file import LIST_SUFFIXES, read_list
from perpixel.data.formats.voc import is_voc, read_voc
from perpixel.errors import DataError, nearest

__all__ = ["FORMATS", "DataSource", "Item", "open_data", "open_folders"]

FORMATS: dict[str, Callable[[Path], DataSource]] = {
    "camvid": read_camvid,
    "folder": read_folder,
    "list": read_list,
    "voc": read_voc,
}


def open_data(spec: str | Path) -> DataSource:
    """Opens a data set: ``path``, or ``format:path`` with a format of `FORMATS`.

    Without a format, a file is a list of pairs; a folder is read as images/ and masks/ (with or without splits), and
    SegNet's CamVid and PASCAL VOC are recognised by their own folders.

    Raises:
        DataError: the format is unknown, the path is not there, or its content has another layout.
    """
    name, path = _parsed(str(spec))
    if not path.exists():
        raise DataError(f"{path}: there is no such data folder or list file. {LAYOUT}")
    if name is not None:
        if name != "list" and not path.is_dir():
            raise DataError(f"{path}: format {name!r} is read from a folder, this is a file; try list:{path}")
        return FORMATS[name](path)
    if path.is_file():
        if path.suffix.lower() not in LIST_SUFFIXES:
            raise DataError(f"{path}: data is a folder or a list file ({', '.join(LIST_SUFFIXES)}). {LAYOUT}")
        return read_list(path)
    if is_folder_layout(path):
        return read_folder(path)
    if is_camvid(path):
        return _recognised(read_camvid(path), "SegNet's CamVid")
    if is_voc(path):
        return _recognised(read_voc(path), "PASCAL VOC")
    return read_folder(path)


def open_folders(images: str | Path, masks: str | Path) -> DataSource:
    """Opens a folder of images and a folder of masks, matched by file name, as the one split ``all``.

    Raises:
        DataError: a folder is missing, an image has no mask, or two files share a name.
    """
    return read_folder_pair(Path(images), Path(masks))


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


def _recognised(source: DataSource, what: str) -> DataSource:
    note = f"{source.root} has the layout of {what}, so format {source.format!r} and its classes are used"
    return replace(source, notes=(note, *source.notes))
