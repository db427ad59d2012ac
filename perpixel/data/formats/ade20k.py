"""ADE20K scene parsing (SceneParse150): 150 classes; 0 means other objects and is ignored."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, count_note
from perpixel.data.formats.named_pairs import PairRule, files_ending, first_folder, pair_named, unlabelled_items
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_ade20k", "read_ade20k"]

_SPLITS = {"train": "training", "val": "validation"}
_COUNTS = {"train": 20_210, "val": 2000}  # the test images differ by release
_INSIDE = (".", "ADEChallengeData2016")
_TEST = ("images/testing", "release_test/testing", "release_test", "../release_test/testing", "../release_test")
_OWN_FILES = ("objectInfo150.txt", "sceneCategories.txt")
_LAYOUT = (
    "ADE20K's scene parsing benchmark has images/{training,validation}/ADE_train_00000001.jpg, "
    "annotations/{training,validation}/ADE_train_00000001.png and objectInfo150.txt. It is ADEChallengeData2016.zip of "
    "the MIT Scene Parsing Benchmark (test images: release_test.zip). The full ADE20K with its colour-coded masks is "
    "another data set."
)
_RULE = PairRule(way_out=_LAYOUT)


def is_ade20k(root: Path) -> bool:
    """Tells whether a folder is, or holds, the benchmark: its folders with its own lists or file names."""
    base = _base(root)
    if base is None:
        return False
    if any((base / name).is_file() for name in _OWN_FILES):
        return True
    folder = first_folder(base / "images", tuple(_SPLITS.values()))
    return folder is not None and any(name.startswith("ADE_") for name in files_ending(folder, (".jpg",), way_out=""))


def read_ade20k(root: Path) -> DataSource:
    """Reads train and val, and ``test`` (without masks) where the test images lie inside or beside the folder.

    Raises:
        DataError: the layout is another, or an image has no mask.
    """
    base = _base(root)
    if base is None:
        hint = " This is the full ADE20K, which is not read." if (root / "images" / "ADE").is_dir() else ""
        raise DataError(f"{root}: no images/training/ and annotations/ here.{hint} {_LAYOUT}")
    notes = [f"ADE20K was found in {base}"] if base != root else []
    splits: dict[str, tuple[Item, ...]] = {}
    for split, folder in _SPLITS.items():
        images = base / "images" / folder
        if images.is_dir():
            splits[split], said = pair_named(images, base / "annotations" / folder, _RULE, split=split)
            notes += said
    test = next((base / name for name in _TEST if (base / name).is_dir() and _has_test_images(base / name)), None)
    if test is not None:
        splits["test"] = unlabelled_items(test, _RULE, split="test")
        notes.append(f"the {len(splits['test'])} test images come from {test}")
    notes += count_note(splits, _COUNTS)
    return DataSource(
        format="ade20k", root=base, splits=splits, labels=LabelSpace.load("ade20k150"), notes=tuple(notes)
    )


def _base(root: Path) -> Path | None:
    for inside in _INSIDE:
        base = root / inside
        if (base / "annotations").is_dir() and first_folder(base / "images", tuple(_SPLITS.values())) is not None:
            return base
    return None


def _has_test_images(folder: Path) -> bool:
    return any(stem.startswith("ADE_test_") for stem in files_ending(folder, (".jpg",), way_out=_LAYOUT))
