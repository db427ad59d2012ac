"""ISBI 2012 EM: membranes of neurons in 30 slices, as the challenge's TIFF stacks or as a file per slice."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.folders import is_folder_layout, match_folders, read_folder
from perpixel.data.formats.item import DataSource, Item, listed
from perpixel.data.formats.named_pairs import files_ending
from perpixel.data.formats.tiff_pages import TiffPage, count_pages
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_isbi2012", "read_isbi2012"]

_IMAGES, _LABELS, _TEST = "train-volume.tif", "train-labels.tif", "test-volume.tif"
_LAYOUT = (
    f"ISBI 2012 has the stacks {_IMAGES}, {_LABELS} and {_TEST} (from the challenge's page, after registration), or a "
    "file per slice in train/image/, train/label/ and test/, or in image/ and label/."
)


def is_isbi2012(root: Path) -> bool:
    """Tells whether a folder holds the two training stacks."""
    return (root / _IMAGES).is_file() and (root / _LABELS).is_file()


def read_isbi2012(root: Path) -> DataSource:
    """Reads the stacks page by page, ``train`` and ``test`` (without masks), or the slices as files.

    Slices of ``image/`` and ``label/`` alone are undivided data.

    Raises:
        DataError: neither layout is here, or the stacks differ in their number of pages.
    """
    labels = LabelSpace.load("isbi2012")
    if (root / _IMAGES).is_file() or (root / _LABELS).is_file():
        splits, notes = _stacks(root)
    elif (root / "train" / "image").is_dir() and (root / "train" / "label").is_dir():
        splits, notes = _slices(root)
    elif is_folder_layout(root):
        source = read_folder(root)
        splits, notes = dict(source.splits), source.notes
    else:
        raise DataError(f"{root}: no ISBI 2012 data here. {_LAYOUT}")
    notes = (*notes, "labels: 0 is membrane, 255 the inside of cells; the test server takes membrane as the object")
    return DataSource(format="isbi2012", root=root, splits=splits, labels=labels, notes=notes)


def _stacks(root: Path) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    for name in (_IMAGES, _LABELS):
        if not (root / name).is_file():
            raise DataError(f"{root / name}: the stack is not there. {_LAYOUT}")
    slices, drawn = count_pages(root / _IMAGES), count_pages(root / _LABELS)
    if slices != drawn:
        raise DataError(
            f"{root}: {_IMAGES} has {slices} pages and {_LABELS} {drawn}; each slice needs its labels. Fetch both "
            "stacks again."
        )
    splits = {
        "train": tuple(
            Item(name=f"train-{i:02d}", image=TiffPage(root / _IMAGES, i), mask=TiffPage(root / _LABELS, i))
            for i in range(slices)
        )
    }
    if not (root / _TEST).is_file():
        return splits, (f"{_TEST} is not here, so there is no split 'test'",)
    count = count_pages(root / _TEST)
    splits["test"] = tuple(Item(name=f"test-{i:02d}", image=TiffPage(root / _TEST, i), mask=None) for i in range(count))
    return splits, ()


def _slices(root: Path) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    items, notes = match_folders(root / "train" / "image", root / "train" / "label")
    splits = {"train": items}
    inside = files_ending(root / "test", IMAGE_SUFFIXES, way_out=_LAYOUT) if (root / "test").is_dir() else {}
    images = {stem: file for stem, file in inside.items() if not stem.endswith("_predict")}
    predicted = [file.name for stem, file in inside.items() if stem not in images]
    if predicted:
        notes += (f"{len(predicted)} files in {root / 'test'} are predictions and were left out: {listed(predicted)}",)
    test = tuple(Item(name=stem, image=file, mask=None) for stem, file in images.items())
    return (splits | {"test": test} if test else splits), notes
