"""What the published layouts share: files of one kind in a folder, and masks whose names follow from the images'."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from perpixel.data.formats.item import Item, listed
from perpixel.data.formats.list_file import file_fault
from perpixel.data.picture import Picture
from perpixel.errors import DataError

__all__ = ["PairRule", "files_ending", "first_folder", "pair_named", "unlabelled_items"]

MaskReader: TypeAlias = Callable[[Path], Path | Picture]


@dataclass(frozen=True, kw_only=True)
class PairRule:
    """How the names of a data set's images and masks follow from one stem."""

    image_endings: tuple[str, ...] = (".jpg",)
    """What follows the stem in an image's name; the case does not matter."""
    mask_ending: str = ".png"
    way_out: str
    """What a message about missing files ends with: the layout and where the data comes from."""


def first_folder(root: Path, candidates: Sequence[str]) -> Path | None:
    """Returns the first of the folders, given relative to ``root``, that is there."""
    return next((root / name for name in candidates if (root / name).is_dir()), None)


def files_ending(folder: Path, endings: Sequence[str], *, way_out: str) -> dict[str, Path]:
    """Returns the files of a folder whose names end so, by what stands before the ending, sorted.

    Raises:
        DataError: a link leads nowhere or to itself, the folder cannot be read, or two files share a stem.
    """
    found: dict[str, Path] = {}
    try:
        with os.scandir(folder) as entries:
            # What is no file is a link to one, a folder, or nothing that is read.
            names = sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error}. {way_out}") from error
    for name, is_file in names:
        ending = next((e for e in endings if name.lower().endswith(e.lower()) and len(name) > len(e)), None)
        if ending is None or name.startswith("."):
            continue
        path = folder / name
        fault = None if is_file else file_fault(path)
        if fault is not None:
            if path.is_dir():
                continue
            raise DataError(f"{path} {fault}; restore or remove it. {way_out}")
        stem = name[: len(name) - len(ending)]
        if stem in found:
            raise DataError(f"{found[stem]} and {path.name} are both image {stem!r}; remove one of them")
        found[stem] = path
    return found


def pair_named(
    images: Path, masks: Path, rule: PairRule, *, split: str, read: MaskReader | None = None
) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Pairs the images of one folder with the masks of another, whose names are the stem and the rule's ending.

    Args:
        images: Folder of images.
        masks: Folder of masks.
        rule: Endings of both.
        split: Named in messages.
        read: Makes the mask's pixel source from its file; None takes the file.

    Returns:
        Items sorted by name, and a note on masks without image.

    Raises:
        DataError: a folder is missing or holds no such files, or an image has no mask.
    """
    by_stem = _images_of(images, rule, split)
    if not masks.is_dir():
        raise DataError(f"{masks}: there is no such folder, so split {split!r} has no masks. {rule.way_out}")
    mask_of = files_ending(masks, (rule.mask_ending,), way_out=rule.way_out)
    missing = [f"{stem}{rule.mask_ending}" for stem in by_stem if stem not in mask_of]
    if missing:
        raise DataError(
            f"{masks} lacks the masks of {len(missing)} of {len(by_stem)} images of split {split!r}: "
            f"{listed(missing)}. {rule.way_out}"
        )
    spare = [path.name for stem, path in mask_of.items() if stem not in by_stem]
    notes = (f"{len(spare)} masks in {masks} have no image and were left out: {listed(spare)}",) if spare else ()
    items = tuple(
        Item(name=stem, image=path, mask=mask_of[stem] if read is None else read(mask_of[stem]))
        for stem, path in by_stem.items()
    )
    return items, notes


def unlabelled_items(images: Path, rule: PairRule, *, split: str) -> tuple[Item, ...]:
    """Returns the images of a folder without masks, as a test split has them.

    Raises:
        DataError: the folder holds no images.
    """
    return tuple(Item(name=stem, image=path, mask=None) for stem, path in _images_of(images, rule, split).items())


def _images_of(images: Path, rule: PairRule, split: str) -> dict[str, Path]:
    by_stem = files_ending(images, rule.image_endings, way_out=rule.way_out)
    if not by_stem:
        raise DataError(
            f"{images}: no image x{rule.image_endings[0]} here, so split {split!r} is empty. {rule.way_out}"
        )
    return by_stem
