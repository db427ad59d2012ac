"""PASCAL VOC 2012 segmentation, with the augmented training set (SBD) where it is there."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, listed, require_files
from perpixel.data.formats.list_file import split_line
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
_LAYOUT = (
    "PASCAL VOC has JPEGImages/<id>.jpg, SegmentationClass/<id>.png and ImageSets/Segmentation/{train,val}.txt with "
    "one id per line, usually in VOCdevkit/VOC2012."
)


def is_voc(root: Path) -> bool:
    """Tells whether a folder is, or holds, a VOC 2012 folder with segmentation masks."""
    return _base(root) is not None


def read_voc(root: Path) -> DataSource:
    """Reads train, val and trainval, ``test`` (without masks) and ``train_aug`` (masks of SegmentationClassAug).

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
    augmented = next((base / name for name in _AUGMENTED_LISTS if (base / name).is_file()), None)
    if augmented is not None and (base / "SegmentationClassAug").is_dir():
        splits["train_aug"] = _items(base, augmented, "SegmentationClassAug")
        _refuse_leak(splits, augmented)
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
    if base != root:
        notes.append(f"VOC was found in {base}")
    return DataSource(format="voc", root=base, splits=splits, labels=LabelSpace.load("voc"), notes=tuple(notes))


def _base(root: Path) -> Path | None:
    folders = [root / inside if inside else root for inside in _INSIDE]
    return next((f for f in folders if (f / "JPEGImages").is_dir() and (f / "SegmentationClass").is_dir()), None)


def _items(base: Path, file: Path, masks: str | None) -> tuple[Item, ...]:
    """Reads ids, or pairs of paths, of which only the id counts: the folders are VOC's own."""
    names = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            names.append(Path(split_line(line.strip())[0]).stem)
    if not names:
        raise DataError(f"{file}: the list is empty. {_LAYOUT}")
    return tuple(
        Item(
            name=name,
            image=base / "JPEGImages" / f"{name}.jpg",
            mask=None if masks is None else base / masks / f"{name}.png",
        )
        for name in names
    )


def _refuse_leak(splits: dict[str, tuple[Item, ...]], file: Path) -> None:
    held_out = {item.name for item in splits.get("val", ())}
    leaked = [item.name for item in splits["train_aug"] if item.name in held_out]
    if leaked:
        raise DataError(
            f"{file} holds {len(leaked)} images of the validation split, so scores on it would mean nothing: "
            f"{listed(leaked)}. The augmented set is the union of VOC's and SBD's images without VOC's val."
        )
