"""CamVid in SegNet's layout: ``train/`` with ``trainannot/``, the same for val and test, lists beside them."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.formats.folders import match_folders
from perpixel.data.formats.item import DataSource, Item, require_files
from perpixel.data.formats.list_file import split_line
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_camvid", "read_camvid"]

_SPLITS = ("train", "val", "test")
_LAYOUT = (
    "SegNet's CamVid has the folders train/, trainannot/, val/, valannot/, test/, testannot/ with 8-bit PNG masks, and "
    "the lists train.txt, val.txt, test.txt."
)


def is_camvid(root: Path) -> bool:
    """Tells whether a folder has a split with its ``annot`` folder."""
    return any((root / split).is_dir() and (root / f"{split}annot").is_dir() for split in _SPLITS)


def read_camvid(root: Path) -> DataSource:
    """Reads the splits that are there, in the order of their lists, or by file names where there is no list.

    The lists of the SegNet tutorial carry the prefix ``/SegNet/CamVid/``: only folder and file name are used.

    Raises:
        DataError: no split has both folders, or a list names files that are not there.
    """
    splits: dict[str, tuple[Item, ...]] = {}
    notes: list[str] = []
    for split in _SPLITS:
        images, masks, file = root / split, root / f"{split}annot", root / f"{split}.txt"
        if not (images.is_dir() and masks.is_dir()):
            continue
        if file.is_file():
            splits[split] = _items(root, file)
            require_files(splits[split], split=split, way_out=f"Correct {file} or add the files. {_LAYOUT}")
        else:
            splits[split], said = match_folders(images, masks)
            notes += [*said, f"{file.name} is missing, so split {split!r} is the whole folder: {len(splits[split])}"]
    if not splits:
        raise DataError(f"{root}: no split of CamVid here. {_LAYOUT}")
    return DataSource(format="camvid", root=root, splits=splits, labels=LabelSpace.load("camvid11"), notes=tuple(notes))


def _items(root: Path, file: Path) -> tuple[Item, ...]:
    items = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        fields = split_line(line.strip())
        if len(fields) != 2:
            raise DataError(f"{file}, line {number}: expected an image and its mask, got {line!r}. {_LAYOUT}")
        image, mask = (root.joinpath(*Path(field).parts[-2:]) for field in fields)
        items.append(Item(name=image.stem, image=image, mask=mask))
    if not items:
        raise DataError(f"{file}: the list is empty. {_LAYOUT}")
    return tuple(items)
