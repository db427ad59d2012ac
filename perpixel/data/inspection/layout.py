"""The layout of a data set, read without stopping at the first fault: which files belong to which split and pair.

Formats that are pairs of folders or lists are walked here, file by file; all others are opened by their own reader,
whose refusal is then the finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.folders import IMAGE_FOLDERS, MASK_FOLDERS, SPLIT_FOLDERS, is_folder_layout
from perpixel.data.formats.item import DataSource, own_labels
from perpixel.data.formats.list_file import LIST_SUFFIXES, split_line
from perpixel.data.inspection.collector import Collector, shown_path
from perpixel.data.inspection.folder_files import FolderFiles, dead_link, files_in
from perpixel.data.inspection.lists import Locate, Seen, note_listed_names, pair_listed
from perpixel.data.inspection.pairing import Pair, Pairing, pair_files
from perpixel.data.source import FORMATS, open_data, recognised_format
from perpixel.errors import DataError, PerpixelError, nearest
from perpixel.labels import LabelSpace, known_label_spaces

__all__ = ["Layout", "scan_data", "scan_folders"]

_SPLITS = ("train", "val", "test")
_MASK_FOLDERS = (*MASK_FOLDERS, "annotations", "annotation")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set as it lies on disk, faults included."""

    format: str
    root: Path
    labels: LabelSpace | None
    """The label space that the data set brings."""
    pairs: tuple[Pair, ...]
    refusal: str | None = None
    """What the reader of the format says when it refuses the data; some finding should be the reason."""


def scan_data(spec: str | Path, found: Collector) -> Layout:
    """Walks a data set that ``[format:]path`` names.

    Args:
        spec: As `perpixel.data.source.open_data` takes it.
        found: Takes what is wrong with the layout.

    Raises:
        DataError: there is no such path or format.
    """
    text = str(spec)
    prefix, colon, rest = text.partition(":")
    named = bool(colon) and prefix in FORMATS and not Path(text).exists()
    if colon and not named and len(prefix) > 1 and "/" not in prefix and not Path(text).exists():
        raise DataError(f"no data format {prefix!r} in {text!r}{nearest(prefix, FORMATS)}")
    path = Path(rest if named else text).expanduser()
    if not path.exists() and prefix != "shards":
        raise DataError(f"{path}: there is no such data folder or list file")
    name = prefix if named else _recognised(path)
    refusal, layout = _opened(text, name)
    if name in _WALKS:
        layout = _WALKS[name](path, found)
    elif layout is None and name != "shards" and path.is_dir() and is_folder_layout(path):
        layout = replace(_scan_folder(path, found), labels=_labels_of(name))
    elif layout is None:
        root = path if path.is_dir() else path.parent
        layout = Layout(format="unknown", root=root, labels=None, pairs=())
    _note_links(layout.root, found)
    return replace(layout, refusal=refusal)


def scan_folders(images: str | Path, masks: str | Path, found: Collector) -> Layout:
    """Walks a folder of images and a folder of masks.

    Raises:
        DataError: one of them is not there.
    """
    image_folder, mask_folder = Path(images), Path(masks)
    for folder, what in ((image_folder, "images"), (mask_folder, "masks")):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder of {what}")
    root = Path(os.path.commonpath([image_folder.absolute(), mask_folder.absolute()]))
    image_folder, mask_folder = image_folder.absolute(), mask_folder.absolute()
    pairing = _pair_folders("all", image_folder, mask_folder, root, found)
    return Layout(format="folder", root=root, labels=_labels(image_folder.parent, found), pairs=tuple(pairing.pairs))


def _note_links(root: Path, found: Collector) -> None:
    """Notes links beside the folders of images and masks that lead nowhere."""
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        kind = dead_link(path) if path.is_symlink() else None
        if kind is not None:
            found.add(kind, shown_path(root, path), f"{shown_path(root, path)} -> {path.readlink()}")


def _recognised(path: Path) -> str | None:
    """Returns the format of a path that names none."""
    if path.is_file():
        return "list" if path.suffix.lower() in LIST_SUFFIXES else None
    name = recognised_format(path)
    if name == "camvid" and not any((path / f"{split}annot").is_dir() for split in _SPLITS):
        return "camvid32"  # the original images, whose reader is another
    return name or ("folder" if is_folder_layout(path) else None)


def _opened(spec: str, name: str | None) -> tuple[str | None, Layout | None]:
    """Opens data with the reader of its format; returns why it refuses, or what it read."""
    try:
        source = open_data(spec)
    except PerpixelError as error:
        return str(error), None
    if name in _WALKS and source.format == name:
        return None, None
    return None, Layout(format=source.format, root=source.root, labels=source.labels, pairs=_pairs_of(source))


def _labels_of(name: str | None) -> LabelSpace | None:
    """Returns the label space of a published data set whose reader refuses it."""
    spaces = known_label_spaces()
    return next((LabelSpace.load(space) for space in (name, f"{name}150", f"{name}_v1.2") if space in spaces), None)


def _pair_folders(split: str, images: Path, masks: Path, root: Path, found: Collector) -> Pairing:
    image_files, mask_files = files_in(images, root, found), files_in(masks, root, found)
    if not image_files.names:
        found.make("layout", [shown_path(root, images)], f"{shown_path(root, images)}: no image files here")
    return pair_files(split, image_files, mask_files, root, found)


def _scan_folder(root: Path, found: Collector) -> Layout:
    images, masks = _subfolder(root, IMAGE_FOLDERS), _subfolder(root, _MASK_FOLDERS)
    pairs: list[Pair] = []
    for split, (image_folder, mask_folder, place) in _split_parts(root, images, masks).items():
        shown = shown_path(root, place)
        if image_folder is None:
            found.make("layout", [shown], f"{shown}: there is no folder images/ in it")
        elif mask_folder is not None:
            pairs += _pair_folders(split, image_folder, mask_folder, root, found).pairs
        elif split == "test":
            pairs += _without_masks(split, image_folder, root, found)
        else:
            found.make("layout", [shown], f"{shown}: there is no folder of masks for split {split!r}")
    return Layout(format="folder", root=root, labels=_labels(root, found), pairs=tuple(pairs))


def _split_parts(
    root: Path, images: Path | None, masks: Path | None
) -> dict[str, tuple[Path | None, Path | None, Path]]:
    """Returns images, masks and what should hold them per split: around images/ and masks/, inside, or undivided."""
    if images is None:
        around = {split: _subfolder(root, names) for split, names in SPLIT_FOLDERS.items()}
        return {
            split: (_subfolder(folder, IMAGE_FOLDERS), _subfolder(folder, _MASK_FOLDERS), folder)
            for split, folder in around.items()
            if folder is not None
        }
    inside = {split: _subfolder(images, names) for split, names in SPLIT_FOLDERS.items()}
    if not any(inside.values()) or any(path.suffix.lower() in IMAGE_SUFFIXES for path in images.iterdir()):
        return {"all": (images, masks, root)}
    return {
        split: (folder, None if masks is None else _subfolder(masks, SPLIT_FOLDERS[split]), root)
        for split, folder in inside.items()
        if folder is not None
    }


def _without_masks(split: str, images: Path, root: Path, found: Collector) -> list[Pair]:
    """Returns the images of a test split whose masks are kept elsewhere."""
    files = files_in(images, root, found)
    return [
        Pair(
            split=split,
            name=path.stem,
            image=path,
            mask=None,
            image_file=shown_path(root, path),
            mask_file=None,
            sound=path not in files.dead,
        )
        for path in files.images
        if path not in files.dead
    ]


def _scan_camvid(root: Path, found: Collector) -> Layout:
    pairs: list[Pair] = []
    seen: dict[Path, Seen] = {}
    for split in _SPLITS:
        images, masks, file = root / split, root / f"{split}annot", root / f"{split}.txt"
        if not (images.is_dir() or masks.is_dir()):
            continue
        for folder in (images, masks):
            if not folder.is_dir():
                found.make("layout", [folder.name], f"{folder.name}/ is missing, and its other half is there")
        image_files = files_in(images, root, found) if images.is_dir() else FolderFiles()
        mask_files = files_in(masks, root, found) if masks.is_dir() else FolderFiles()
        taken = Pairing()
        if file.is_file():
            dead = image_files.dead | mask_files.dead
            files = (*image_files.images, *mask_files.images)
            taken = pair_listed(split, file, _camvid_line(root), root, found, seen, dead=dead, files=files)
        listed_count = len(taken.pairs)
        paired = pair_files(split, image_files, mask_files, root, found, taken=taken).pairs
        for pair in paired[listed_count:] if file.is_file() else ():
            if pair.mask_file is not None:
                found.add("unlisted", pair.image_file)
        pairs += paired
    return Layout(format="camvid", root=root, labels=LabelSpace.load("camvid11"), pairs=tuple(pairs))


def _camvid_line(root: Path) -> Locate:
    """Takes folder and file name of both paths."""

    def locate(text: str) -> tuple[Path, Path | None] | None:
        fields = split_line(text)
        if len(fields) != 2 or not all(fields):
            return None
        image, mask = (root.joinpath(*Path(field).parts[-2:]) for field in fields)
        return image, mask

    return locate


def _scan_voc(root: Path, found: Collector) -> Layout:
    inside = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    base = next((folder for folder in inside if (folder / "JPEGImages").is_dir()), root)
    images, masks = base / "JPEGImages", base / "SegmentationClass"
    image_files = files_in(images, base, found) if images.is_dir() else FolderFiles()
    mask_files = files_in(masks, base, found) if masks.is_dir() else FolderFiles()
    dead = image_files.dead | mask_files.dead

    def locate(text: str) -> tuple[Path, Path | None] | None:
        name = Path(split_line(text)[0]).stem
        return images / f"{name}.jpg", masks / f"{name}.png"

    pairs: list[Pair] = []
    seen: dict[Path, Seen] = {}
    used: set[Path] = set()
    for split in ("train", "val"):
        file = base / "ImageSets" / "Segmentation" / f"{split}.txt"
        if file.is_file():
            pairing = pair_listed(split, file, locate, base, found, seen, dead=dead)
            pairs += pairing.pairs
            used |= pairing.used
    if not pairs:
        found.make("layout", [], "ImageSets/Segmentation holds no train.txt or val.txt with images", count=1)
    for path in mask_files.images:
        if path not in used:
            found.add("unlisted" if (images / f"{path.stem}.jpg").exists() else "spare_mask", shown_path(base, path))
    return Layout(format="voc", root=base, labels=LabelSpace.load("voc"), pairs=tuple(pairs))


def _scan_lists(path: Path, found: Collector) -> Layout:
    root = path.parent if path.is_file() else path
    files = {"all": path} if path.is_file() else {}
    for split in () if path.is_file() else _SPLITS:
        here = (root / f"{split}{suffix}" for suffix in LIST_SUFFIXES)
        first = next((file for file in here if file.is_file()), None)
        if first is not None:
            files[split] = first
    if not files:
        found.make("layout", [], f"{path}: no list here; train.txt, val.txt and test.txt are looked for", count=1)

    def locate(text: str) -> tuple[Path, Path | None] | None:
        fields = split_line(text)
        if len(fields) > 2 or not all(fields):
            return None
        there = [next((p for p in (root / f, Path(f)) if p.is_file()), root / f) for f in fields]
        return there[0], there[1] if len(there) == 2 else None

    pairs: list[Pair] = []
    seen: dict[Path, Seen] = {}
    for split, file in files.items():
        pairing = pair_listed(split, file, locate, root, found, seen, dead=set())
        note_listed_names(pairing, found)
        pairs += pairing.pairs
    return Layout(format="list", root=root, labels=_labels(root, found), pairs=tuple(pairs))


def _pairs_of(source: DataSource) -> tuple[Pair, ...]:
    """Takes the items of a source, each file once: splits such as trainval hold those of others."""
    pairs: dict[tuple[str, str], Pair] = {}
    for split, items in source.splits.items():
        for item in items:
            key = (str(item.image), str(item.mask))
            if key in pairs and split not in _SPLITS:
                continue
            pairs[key] = Pair(
                split=split,
                name=item.name,
                image=item.image,
                mask=item.mask,
                image_file=_shown(source.root, item.image),
                mask_file=None if item.mask is None else _shown(source.root, item.mask),
            )
    return tuple(pairs.values())


def _shown(root: Path, source: object) -> str:
    """Names a file, or the place in a file, relative to the root."""
    if isinstance(source, Path):
        return shown_path(root, source)
    return str(source).replace(f"{root}{os.sep}", "")


def _labels(folder: Path, found: Collector) -> LabelSpace | None:
    """Reads the labels.yaml beside the data; a file that is wrong is a finding."""
    try:
        return own_labels(folder)[0]
    except PerpixelError as error:
        found.make("layout", ["labels.yaml"], str(error), count=1)
        return None


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


_WALKS: dict[str | None, Callable[[Path, Collector], Layout]] = {
    "camvid": _scan_camvid,
    "voc": _scan_voc,
    "folder": _scan_folder,
    "list": _scan_lists,
}
"""Layouts that are walked here file by file."""
