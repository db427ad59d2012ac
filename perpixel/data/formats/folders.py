"""A folder of images and a folder of masks, matched by file name; ``train/ val/ test/`` lie inside or around them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.item import DataSource, Item, listed, own_labels
from perpixel.errors import DataError

__all__ = ["LAYOUT", "is_folder_layout", "match_folders", "read_folder", "read_folder_pair"]

IMAGE_FOLDERS = ("images", "image", "img_dir")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "ann_dir")
_DRAWN_FOLDERS = ("annotations", "annotation")
"""Mask folders as well, where they hold pictures and not files of polygons."""
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
    "with these two inside or inside these two; published data sets are known by their own folders. Anything else: a "
    "list file with one image and its mask per line."
)


def read_folder(root: Path) -> DataSource:
    """Reads a plain data folder.

    Splits are folders around images/ and masks/ or inside both. Masks may be missing in ``test`` only, and there only
    as a whole.

    Raises:
        DataError: the folder does not have the layout, an image has no mask, or two files share a stem.
    """
    labels, notes = own_labels(root)
    pair = _pair_of_folders(root)
    divided = _divided(*pair) if pair is not None else _around(root)
    if pair is not None and not divided:
        items, said = match_folders(*pair)
        return DataSource(format="folder", root=root, splits={"all": items}, labels=labels, notes=(*notes, *said))
    splits: dict[str, tuple[Item, ...]] = {}
    for split, (images, masks, place) in divided.items():
        if images is None:
            raise DataError(f"{place}: there is no folder images/ in it. {LAYOUT}")
        if masks is None and split != "test":
            raise DataError(f"{place}: there is no folder masks/ in it for split {split!r}. {LAYOUT}")
        if masks is None:
            splits[split] = tuple(
                Item(name=stem, image=path, mask=None) for stem, path in _images_by_stem(images)[0].items()
            )
            notes += (f"split {split!r} has no masks: its {len(splits[split])} images can be predicted, not scored",)
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
    image_end, mask_end = _best_endings(image_files, mask_files)
    paths, found = _keys(image_files, image_end), _keys(mask_files, mask_end)
    alike = _alike(image_files, image_end) + _alike(mask_files, mask_end)
    if alike:
        raise DataError(
            f"{listed(alike)}: another file has the same name but for the case of its ending, so it is open which one "
            "is meant; rename or remove one of them"
        )
    missing = [
        image_files[stem].name for stem in image_files.keys() - {stem for key, stem in paths.items() if key in found}
    ]
    if missing:
        examples = listed([path.name for path in mask_files.values()], 3) or "no image files"
        raise DataError(
            f"{len(missing)} of {len(image_files)} images in {images} have no mask of the same name in {masks} "
            f"(which holds {examples}): {listed(sorted(missing))}. Add the masks, move images without mask elsewhere, "
            "or give a list file with one image and its mask per line."
        )
    if (image_end, mask_end) != ("", ""):
        notes += (f"masks were found by name: image 'x{image_end}' has mask 'x{mask_end}'",)
    spare = [mask_files[stem].name for stem in mask_files.keys() - {found[key] for key in paths}]
    if spare:
        notes += (f"{len(spare)} masks in {masks} have no image and were left out: {listed(sorted(spare))}",)
    return tuple(
        Item(name=key, image=image_files[stem], mask=mask_files[found[key]]) for key, stem in paths.items()
    ), notes


def _best_endings(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[str, str]:
    """Returns the endings of images and masks that pair most images, the plainest of equally good ones."""
    by_mask = {ending: _keys(masks, ending).keys() for ending in MASK_ENDINGS}
    best, most = ("", ""), 0
    for image_end in IMAGE_ENDINGS:
        by_image = _keys(images, image_end).keys()
        for mask_end, keys in by_mask.items():
            count = len(by_image & keys)
            if count > most:
                best, most = (image_end, mask_end), count
            if most == len(images):
                return best
    return best


def _keys(files: Mapping[str, Path], ending: str) -> dict[str, str]:
    """Returns the stems with an ending, in any case, by what stands before it."""
    plain, cut = ending.lower(), len(ending)
    return {stem[: len(stem) - cut]: stem for stem in files if stem.lower().endswith(plain)}


def _alike(files: Mapping[str, Path], ending: str) -> list[Path]:
    """Returns files that have the ending, but whose name before it is another's too: ``a_mask`` and ``a_Mask``."""
    kept = set(_keys(files, ending).values())
    return [path for stem, path in files.items() if stem.lower().endswith(ending.lower()) and stem not in kept]


def _images_by_stem(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Returns the image files of a folder by stem, in the order of their names, and a note on what else lies there."""
    with os.scandir(folder) as entries:
        # What is no file is a link to one, a folder, or nothing that is read.
        names = sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in entries)
    seen: dict[str, Path] = {}
    others: list[str] = []
    lost: list[str] = []
    for name, is_file in names:
        path = folder / name
        if name.startswith(".") or (not is_file and path.is_dir()):
            continue
        if not is_file and not path.is_file():
            lost.append(name)
            continue
        stem, dot, suffix = name.rpartition(".")
        if f"{dot}{suffix}".lower() not in IMAGE_SUFFIXES:
            others.append(name)
            continue
        if stem in seen:
            raise DataError(
                f"{folder}: {seen[stem].name} and {name} share the name {stem!r}, so it is open which one is meant; "
                "rename or remove one of them"
            )
        seen[stem] = path
    if lost:
        raise DataError(
            f"{folder}: {len(lost)} entries are no plain files, or links that lead nowhere or to themselves: "
            f"{listed(lost)}. Restore what they lead to, or remove them."
        )
    notes = (f"{len(others)} files in {folder} are no images and were left out: {listed(others)}",) if others else ()
    return seen, notes


def _pair_of_folders(root: Path) -> tuple[Path, Path] | None:
    images, masks = _subfolder(root, IMAGE_FOLDERS), _mask_folder(root)
    return None if images is None or masks is None else (images, masks)


_Parts = Mapping[str, tuple[Path | None, Path | None, Path]]
"""Per split its images, its masks, and the folder that should hold what is missing."""


def _around(root: Path) -> _Parts:
    """Finds images/ and masks/ inside the folders of splits."""
    return {
        split: (_subfolder(folder, IMAGE_FOLDERS), _mask_folder(folder), folder)
        for split, folder in _split_folders(root).items()
    }


def _divided(images: Path, masks: Path) -> _Parts:
    """Finds the folders of splits inside images/ and masks/; none where images lie there directly."""
    if _holds_pictures(images):
        return {}
    of_masks = _split_folders(masks)
    return {split: (folder, of_masks.get(split), masks) for split, folder in _split_folders(images).items()}


def _mask_folder(root: Path) -> Path | None:
    """Returns the folder of masks; one that is named after annotations only if it holds pictures."""
    plain = _subfolder(root, MASK_FOLDERS)
    drawn = _subfolder(root, _DRAWN_FOLDERS)
    if plain is not None or drawn is None:
        return plain
    places = (drawn, *_split_folders(drawn).values())
    return drawn if any(_holds_pictures(place) for place in places) else None


def _holds_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())


def _split_folders(root: Path) -> dict[str, Path]:
    found = {split: _subfolders(root, names) for split, names in SPLIT_FOLDERS.items()}
    for split, folders in found.items():
        if len(folders) > 1:
            names = listed([folder.name for folder in folders])
            raise DataError(f"{root}: {names} are both split {split!r}; join them, or move one elsewhere")
    return {split: folders[0] for split, folders in found.items() if folders}


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """Returns the first folder in ``root`` that has one of the names, in any case.

    Raises:
        DataError: two folders have the name, in different case.
    """
    found = _subfolders(root, names)
    if len(found) > 1 and found[0].name.lower() == found[1].name.lower():
        raise DataError(f"{root}: {listed([path.name for path in found[:2]])} are one name; join or rename them")
    return next(iter(found), None)


def _subfolders(root: Path, names: Sequence[str]) -> list[Path]:
    """Returns the folders in ``root`` that have one of the names, in any case, in the order of the names."""
    found = [path for path in root.iterdir() if path.name.lower() in names and path.is_dir()]
    return sorted(found, key=lambda path: (names.index(path.name.lower()), path.name))
