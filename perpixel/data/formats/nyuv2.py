"""NYU Depth v2, 40 classes: the published .mat file of 1,449 images, or folders that converters write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.formats.folders import match_folders
from perpixel.data.formats.item import DataSource, Item, listed
from perpixel.data.formats.matrix_files import Hdf5Slice, mat_strings, opened_hdf5, read_mat
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_nyuv2", "read_nyuv2"]

_DATA, _SPLIT, _CLASSES = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
_SPLITS = {"train": "trainNdxs", "test": "testNdxs"}
_IDS = 894
_LAYOUT = (
    f"NYU Depth v2 has {_DATA} (2.8 GB, from the data set's page), {_SPLIT} (from its page of indoor_seg_sup) and "
    f"{_CLASSES} (the 40 classes of Gupta et al. 2013; in ankurhanda/nyuv2-meta-data); or the folders "
    "{train,test}/{rgb,labels_40} with a PNG per image."
)


def is_nyuv2(root: Path) -> bool:
    """Tells whether a folder holds the .mat file, or a split of images and 40-class masks."""
    folders = any((root / split / "rgb").is_dir() and (root / split / "labels_40").is_dir() for split in _SPLITS)
    return folders or (root / _DATA).is_file()


def read_nyuv2(root: Path) -> DataSource:
    """Reads train and test (both with masks); pixels of id 0 are ignored.

    Raises:
        DataError: neither layout is here, a file is missing, damaged or of the wrong version, or the lists contradict.
    """
    if (root / _DATA).is_file():
        return _read_matrices(root)
    splits: dict[str, tuple[Item, ...]] = {}
    notes: tuple[str, ...] = ()
    for split in _SPLITS:
        images, masks = root / split / "rgb", root / split / "labels_40"
        if images.is_dir() and masks.is_dir():
            splits[split], said = match_folders(images, masks)
            notes += said
        elif images.is_dir() or masks.is_dir():
            notes += (f"{root / split} does not have both rgb/ and labels_40/, so there is no split {split!r}",)
    if not splits:
        raise DataError(f"{root}: no NYU Depth v2 here. {_LAYOUT}")
    return DataSource(format="nyuv2", root=root, splits=splits, labels=LabelSpace.load("nyuv2_40"), notes=notes)


def _read_matrices(root: Path) -> DataSource:
    file = root / _DATA
    count = _count_images(file)
    labels, notes = _labels(root / _CLASSES)
    if (root / _SPLIT).is_file():
        chosen = _splits(root / _SPLIT, count)
    else:
        chosen = {"all": range(count)}
        notes += (f"{_SPLIT} is not here, so the {count} images are undivided; the published split is 795 and 654",)
    splits = {
        split: tuple(
            Item(
                name=f"{index + 1:04d}",
                image=Hdf5Slice(file, "images", (index,), axes=(2, 1, 0)),
                mask=Hdf5Slice(file, "labels", (index,), axes=(1, 0)),
            )
            for index in indices
        )
        for split, indices in chosen.items()
    }
    return DataSource(format="nyuv2", root=root, splits=splits, labels=labels, notes=notes)


def _count_images(file: Path) -> int:
    with opened_hdf5(file) as opened:
        shapes = {name: getattr(opened.get(name), "shape", None) for name in ("images", "labels")}
    images, labels = shapes["images"], shapes["labels"]
    if images is None or labels is None:
        missing = "images" if images is None else "labels"
        raise DataError(f"{file}: there is no dataset {missing!r} in it. {_LAYOUT}")
    if len(images) != 4 or images[1] != 3 or labels != (images[0], *images[2:]):
        raise DataError(
            f"{file}: images {images} and labels {labels} do not belong together; expected (N, 3, W, H) and (N, W, H)"
        )
    return int(images[0])


def _splits(file: Path, count: int) -> dict[str, Any]:
    """Reads the two lists, whose numbers start at 1, as indices from 0."""
    found: dict[str, NDArray[np.int64]] = {}
    for split, key in _SPLITS.items():
        numbers = read_mat(file, (key,)).reshape(-1)
        if numbers.dtype.kind not in "uif" or numbers.size == 0 or (numbers != numbers.astype(np.int64)).any():
            raise DataError(f"{file}: {key} is no list of image numbers")
        indices = numbers.astype(np.int64) - 1
        if indices.min() < 0 or indices.max() >= count or len(np.unique(indices)) < len(indices):
            raise DataError(
                f"{file}: {key} holds {len(indices)} numbers from {indices.min() + 1} to {indices.max() + 1}; each of "
                f"the {count} images has one number, from 1 on, and occurs once"
            )
        found[split] = indices
    both = np.intersect1d(found["train"], found["test"])
    if len(both):
        raise DataError(f"{file}: {len(both)} images are in both splits: {listed((both + 1).tolist())}")
    return {split: [int(index) for index in indices] for split, indices in found.items()}


def _labels(file: Path) -> tuple[LabelSpace, tuple[str, ...]]:
    """Maps the 894 ids to the 40 classes as the published file says."""
    if not file.is_file():
        raise DataError(f"{file}: the file that maps the {_IDS} ids to 40 classes is not there. {_LAYOUT}")
    known = LabelSpace.load("nyuv2_40")
    classes = read_mat(file, ("mapClass",)).reshape(-1)
    if classes.shape != (_IDS,) or classes.dtype.kind not in "uif" or set(classes.tolist()) - set(range(1, 41)):
        raise DataError(f"{file}: mapClass holds {_IDS} whole numbers from 1 to 40, this one has {classes.size} values")
    names = mat_strings(read_mat(file, ("className",)))
    places = {_plain(name): place for place, name in enumerate(known.names)}
    moved = [name for place, name in enumerate(names[:40]) if places.get(_plain(name), place) != place]
    if len(names) < 40 or moved:
        raise DataError(
            f"{file}: className lists {len(names)} classes, of which {len(moved)} stand elsewhere than among the "
            f"published 40 ({listed(moved, 4)}); with it ids would get wrong names"
        )
    labels = LabelSpace(
        name="nyuv2_40_of_894",
        names=known.names,
        colors=known.colors,
        stored_to_train={0: LabelSpace.ignore_index} | {i + 1: int(k) - 1 for i, k in enumerate(classes)},
    )
    return labels, (f"the {_IDS} ids of the masks become 40 classes by {file.name}; 0 is ignored",)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
