"""PASCAL VOC 2012 segmentation, with the augmented training set: SegmentationClassAug, or SBD's own .mat files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, count_note, listed, read_lines, require_files
from perpixel.data.formats.list_file import split_line
from perpixel.data.formats.sbd import SPLITS as SBD_SPLITS
from perpixel.data.formats.sbd import find_sbd, sbd_mask, sbd_names
from perpixel.data.picture import file_of
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_voc", "read_voc"]

_SPLITS = ("train", "val", "trainval")
_INSIDE = ("", "VOC2012", "VOCdevkit/VOC2012")
_AUGMENTED_LISTS = (
    "ImageSets/Segmentation/train_aug.txt",
    "ImageSets/Segmentation/trainaug.txt",
    "ImageSets/train_aug.txt",
    "train_aug.txt",
)
_COUNTS = {
    "train": 1464,
    "val": 1449,
    "trainval": 2913,
    "test": 1456,
    "train_aug": 10_582,
    "train_aug_sbd": 10_582,
}
_SBD_FOLDERS = ("benchmark_RELEASE/dataset", "benchmark_RELEASE", "VOCaug", "SBD")
_LAYOUT = (
    "PASCAL VOC has JPEGImages/<id>.jpg, SegmentationClass/<id>.png and ImageSets/Segmentation/{train,val}.txt with "
    "one id per line, usually in VOCdevkit/VOC2012. It is VOCtrainval_11-May-2012.tar of the PASCAL VOC 2012 page."
)


def is_voc(root: Path) -> bool:
    """Tells whether a folder is, or holds, a VOC 2012 folder with segmentation masks."""
    return _base(root) is not None


def read_voc(root: Path) -> DataSource:
    """Reads train, val and trainval, ``test`` (without masks), and the augmented training set both ways.

    ``train_aug`` takes every mask from SegmentationClassAug, which has no void borders. ``train_aug_sbd`` is put
    together from SBD (``benchmark_RELEASE`` inside or beside the folder): VOC's own masks with void for the images of
    VOC's train, SBD's for the rest; where there is no SegmentationClassAug it is ``train_aug`` too.

    Raises:
        DataError: the layout is another, a list names files that are not there, or ``train_aug`` holds images of val.
    """
    base = _base(root)
    if base is None:
        raise DataError(f"{root}: no JPEGImages/ and SegmentationClass/ here. {_LAYOUT}")
    lists = base / "ImageSets" / "Segmentation"
    splits: dict[str, tuple[Item, ...]] = {}
    notes: list[str] = []
    for split in _SPLITS:
        if (lists / f"{split}.txt").is_file():
            splits[split] = _items(base, lists / f"{split}.txt", "SegmentationClass")
    notes += _add_augmented(splits, base)
    notes += _add_sbd(splits, base)
    for split, items in splits.items():
        require_files(items, split=split, way_out=f"Complete the data set. {_LAYOUT}")
    if (lists / "test.txt").is_file():
        test = _items(base, lists / "test.txt", None)
        absent = [item.name for item in test if not file_of(item.image).is_file()]
        if len(absent) == len(test):
            notes.append("test.txt lists images that are not here, so there is no split 'test'")
        else:
            require_files(test, split="test", way_out=f"Complete the data set. {_LAYOUT}")
            splits["test"] = test
    if not splits:
        raise DataError(f"{lists}: no train.txt or val.txt here. {_LAYOUT}")
    notes += count_note(splits, _COUNTS)
    if base != root:
        notes.append(f"VOC was found in {base}")
    return DataSource(format="voc", root=base, splits=splits, labels=LabelSpace.load("voc"), notes=tuple(notes))


def _base(root: Path) -> Path | None:
    folders = [root / inside if inside else root for inside in _INSIDE]
    return next((f for f in folders if (f / "JPEGImages").is_dir() and (f / "SegmentationClass").is_dir()), None)


def _items(base: Path, file: Path, masks: str | None) -> tuple[Item, ...]:
    """Reads ids, or pairs of paths, of which only the id counts: the folders are VOC's own."""
    names = [Path(split_line(line)[0]).stem for _, line in read_lines(file)]
    if not names:
        raise DataError(f"{file}: the list is empty. {_LAYOUT}")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError(
            f"{file}: {len(repeated)} ids are given more than once: {listed(repeated)}. Remove the repeats."
        )
    return tuple(
        Item(
            name=name,
            image=base / "JPEGImages" / f"{name}.jpg",
            mask=None if masks is None else base / masks / f"{name}.png",
        )
        for name in names
    )


def _add_augmented(splits: dict[str, tuple[Item, ...]], base: Path) -> list[str]:
    file = next((base / name for name in _AUGMENTED_LISTS if (base / name).is_file()), None)
    folder = base / "SegmentationClassAug"
    if file is None or not folder.is_dir():
        lacking = "SegmentationClassAug/ is not there" if file is not None else "no train_aug.txt is there"
        return [f"{lacking}, so its masks are not read"] if file is not None or folder.is_dir() else []
    splits["train_aug"] = _items(base, file, folder.name)
    _refuse_leak(splits, file)
    return ["the masks of split 'train_aug' are those of SegmentationClassAug, without void borders"]


def _add_sbd(splits: dict[str, tuple[Item, ...]], base: Path) -> list[str]:
    """Joins VOC's train and both lists of SBD, less VOC's val."""
    sbd = _beside(base)
    if sbd is None:
        return []
    if "train" not in splits or "val" not in splits:
        return [f"SBD lies in {sbd}, but without VOC's train.txt and val.txt it cannot be joined"]
    held_out = {item.name for item in splits["val"]}
    own = {item.name: item for item in splits["train"]}
    extra = {name for split in SBD_SPLITS for name in sbd_names(sbd, split)} - held_out - own.keys()
    items = [*own.values(), *(Item(name=n, image=_image(base, sbd, n), mask=sbd_mask(sbd, n)) for n in sorted(extra))]
    splits["train_aug_sbd"] = tuple(items)
    notes = [
        f"split 'train_aug_sbd' holds {len(own)} images with VOC's own masks and {len(extra)} with the masks of SBD in "
        f"{sbd}; its images of VOC's val are left out",
    ]
    if "train_aug" not in splits:
        splits["train_aug"] = splits["train_aug_sbd"]
        notes.append("there is no SegmentationClassAug/, so 'train_aug' is 'train_aug_sbd'")
    return notes


def _beside(base: Path) -> Path | None:
    """Finds SBD inside the folder, beside it, or beside the development kit that it lies in."""
    parents = [base, base.parent, *([base.parent.parent] if base.parent.name == "VOCdevkit" else [])]
    found = (find_sbd(parent / name) for parent in parents for name in _SBD_FOLDERS)
    return next((folder for folder in found if folder is not None), None)


def _image(base: Path, sbd: Path, name: str) -> Path:
    """Returns VOC's file of an image of SBD, or SBD's copy where VOC's is not there."""
    own = base / "JPEGImages" / f"{name}.jpg"
    return own if own.is_file() else sbd / "img" / f"{name}.jpg"


def _refuse_leak(splits: dict[str, tuple[Item, ...]], file: Path) -> None:
    held_out = {item.name for item in splits.get("val", ())}
    leaked = [item.name for item in splits["train_aug"] if item.name in held_out]
    if leaked:
        raise DataError(
            f"{file} holds {len(leaked)} images of the validation split, so scores on it would mean nothing: "
            f"{listed(leaked)}. The augmented set is the union of VOC's and SBD's images without VOC's val."
        )
