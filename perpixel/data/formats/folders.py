"""A folder of images and a folder of masks, matched by file name; or ``train/ val/ test/`` with these inside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.item import DataSource, Item, listed, own_labels
from perpixel.errors import DataError

__all__ = ["LAYOUT", "is_folder_layout", "match_folders", "read_folder", "read_folder_pair"]

IMAGE_FOLDERS = ("images", "image")
MASK_FOLDERS = ("masks", "mask", "labels", "label")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# Tried in this order when equal names do not pair every image.
IMAGE_ENDINGS = ("", "_leftImg8bit", "_image", "_img")
MASK_ENDINGS = (
    "",
    "_mask",
    "_masks",
    "_label",
    "_labels",
    "_gt",
    "_L",
    "_seg",
    "_segmentation",
    "_labelIds",
    "_gtFine_labelIds",
)
LAYOUT = (
    "A data folder holds images/ and masks/ with files of the same name (a.jpg and a.png), or train/, val/ and test/ "
    "with these two inside; SegNet's CamVid and PASCAL VOC are known by their own folders. Anything else: a list file "
    "with one image and its mask per line."
)


def read_folder(root: Path) -> DataSource:
    """Reads a plain data folder.

    Masks may be missing in ``test`` only, and there only as a whole.

    Raises:
        DataError: the folder does not have the layout, an image has no mask, or two files share a stem.
    """
    labels, notes = own_labels(root)
    pair = _pair_of_folders(root)
    if pair is not None:
        items, said = match_folders(*pair)
        return DataSource(format="folder", root=root, splits={"all": items}, labels=labels, notes=(*notes, *said))
    splits: dict[str, tuple[Item, ...]] = {}
    for split, folder in _split_folders(root).items():
        images = _subfolder(folder, IMAGE_FOLDERS)
        masks = _subfolder(folder, MASK_FOLDERS)
        if images is None:
            raise DataError(f"{folder}: there is no folder images/ in it. {LAYOUT}")
        if masks is None and split != "test":
            raise DataError(f"{folder}: there is no folder masks/ in it. {LAYOUT}")
        if masks is None:
            splits[split] = tuple(Item(name=path.stem, image=path, mask=None) for path in _images_by_stem(images)[0])
            notes += (f"{folder} has no masks/: its {len(splits[split])} images can be predicted, not scored",)
            continue
        splits[split], said = match_folders(images, masks)
        notes += said
    if not splits:
        inside = sorted(path.name for path in root.iterdir()) or ["nothing"]
        raise DataError(f"{root}: no images/ and masks/ in this folder, it holds {listed(inside)}. {LAYOUT}")
    return DataSource(format="folder", root=root, splits=splits, labels=labels, notes=notes)


def read_folder_pair(images: Path, masks: Path) -> DataSource:
    """Reads a folder of images and a folder of masks, wherever they lie, as undivided data.

    Raises:
        DataError: a folder is missing or empty, an image has no mask, or two files share a stem.
    """
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder of {what}; give the folder that holds the {what}")
    labels, notes = own_labels(images.parent)
    items, said = match_folders(images, masks)
    return DataSource(format="folder", root=images.parent, splits={"all": items}, labels=labels, notes=(*notes, *said))


def is_folder_layout(root: Path) -> bool:
    """Tells whether a folder holds ``images/`` and ``masks/`` or splits of them."""
    return _pair_of_folders(root) is not None or any(
        _subfolder(folder, IMAGE_FOLDERS) is not None for folder in _split_folders(root).values()
    )


def match_folders(images: Path, masks: Path) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Pairs the images of one folder with the masks of another by file stem, sorted by name.

    Where stems alone do not pair every image, the usual endings (``_mask``, ``_gt``, ``_labelIds``…) are tried, and the
    one that pairs most images is taken for all.

    Returns:
        Items, and notes on the ending, on masks without image and on files that are no images.

    Raises:
        DataError: no images, an image without mask, or two files with one stem.
    """
    image_files, notes = _images_by_stem(images)
    mask_files, more_notes = _images_by_stem(masks)
    notes += more_notes
    if not image_files:
        raise DataError(f"{images}: no image files here ({', '.join(IMAGE_SUFFIXES)}). {LAYOUT}")
    best: dict[Path, Path] = {}
    ending = ("", "")
    for candidate in product(IMAGE_ENDINGS, MASK_ENDINGS):
        found = _paired(image_files, mask_files, *candidate)
        if len(found) > len(best):
            best, ending = found, candidate
        if len(best) == len(image_files):
            break
    missing = [path.name for path in image_files if path not in best]
    if missing:
        examples = listed([path.name for path in mask_files], 3) or "no image files"
        raise DataError(
            f"{len(missing)} of {len(image_files)} images in {images} have no mask of the same name in {masks} "
            f"(which holds {examples}): {listed(missing)}. Add the masks, move images without mask elsewhere, or give "
            "a list file with one image and its mask per line."
        )
    if ending != ("", ""):
        notes += (f"masks were found by name: image 'x{ending[0]}' has mask 'x{ending[1]}'",)
    used = set(best.values())
    spare = [path.name for path in mask_files if path not in used]
    if spare:
        notes += (f"{len(spare)} masks in {masks} have no image and were left out: {listed(spare)}",)
    strip = len(ending[0])
    return tuple(
        Item(name=path.stem[: len(path.stem) - strip], image=path, mask=best[path]) for path in image_files
    ), notes


def _paired(images: Sequence[Path], masks: Sequence[Path], image_end: str, mask_end: str) -> dict[Path, Path]:
    by_key = {_without(path.stem, mask_end): path for path in masks if path.stem.lower().endswith(mask_end.lower())}
    keys = {path: _without(path.stem, image_end) for path in images if path.stem.lower().endswith(image_end.lower())}
    return {path: by_key[key] for path, key in keys.items() if key in by_key}


def _without(stem: str, ending: str) -> str:
    return stem[: len(stem) - len(ending)]


def _images_by_stem(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the image files of a folder sorted by stem, and a note on what else lies there."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    others = [path.name for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            raise DataError(
                f"{folder}: {seen[path.stem].name} and {path.name} share the name {path.stem!r}, so it is open which "
                "one is meant; rename or remove one of them"
            )
        seen[path.stem] = path
    notes = (f"{len(others)} files in {folder} are no images and were left out: {listed(others)}",) if others else ()
    return images, notes


def _pair_of_folders(root: Path) -> tuple[Path, Path] | None:
    images, masks = _subfolder(root, IMAGE_FOLDERS), _subfolder(root, MASK_FOLDERS)
    return None if images is None or masks is None else (images, masks)


def _split_folders(root: Path) -> dict[str, Path]:
    found = {split: _subfolder(root, names) for split, names in SPLIT_FOLDERS.items()}
    return {split: folder for split, folder in found.items() if folder is not None}


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """Returns the first folder in ``root`` that has one of the names, in any case."""
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)
