"""The Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): more of PASCAL VOC's images, masks in .mat files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, count_note, listed, read_lines, require_files
from perpixel.data.formats.matrix_files import MatField
from perpixel.data.formats.named_pairs import first_folder
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["find_sbd", "is_sbd", "read_sbd", "sbd_mask", "sbd_names"]

SPLITS = ("train", "val")
_COUNTS = {"train": 8498, "val": 2857}
_INSIDE = (".", "dataset", "benchmark_RELEASE/dataset", "benchmark/benchmark_RELEASE/dataset", "VOCaug/dataset")
_KEYS = ("GTcls", "Segmentation")
_LAYOUT = (
    "SBD has benchmark_RELEASE/dataset/ with img/<id>.jpg, cls/<id>.mat, train.txt and val.txt. It is benchmark.tgz of "
    "the Semantic Boundaries Dataset (Berkeley)."
)


def is_sbd(root: Path) -> bool:
    """Tells whether a folder is, or holds, SBD."""
    return find_sbd(root) is not None


def find_sbd(root: Path) -> Path | None:
    """Returns the folder with ``cls/`` and the two lists, at ``root`` or in the folders of its archive."""
    base = first_folder(root, [f"{inside}/cls" for inside in _INSIDE])
    return base.parent if base is not None and (base.parent / "train.txt").is_file() else None


def read_sbd(root: Path) -> DataSource:
    """Reads SBD's own train (8,498) and val (2,857). Its masks have no void: 255 never occurs.

    Raises:
        DataError: the layout is another, or a list names files that are not there.
    """
    base = find_sbd(root)
    if base is None:
        raise DataError(f"{root}: no cls/ with train.txt beside it here. {_LAYOUT}")
    notes = [f"SBD was found in {base}"] if base != root else []
    splits: dict[str, tuple[Item, ...]] = {}
    for split in SPLITS:
        names = sbd_names(base, split)
        if names:
            splits[split] = tuple(
                Item(name=name, image=base / "img" / f"{name}.jpg", mask=sbd_mask(base, name)) for name in names
            )
            require_files(splits[split], split=split, way_out=f"Complete the data set. {_LAYOUT}")
    notes += count_note(splits, _COUNTS)
    notes.append(
        "SBD's train and val are not VOC's: both hold images of VOC's val; voc:PATH with SBD beside it has the split "
        "train_aug_sbd without them"
    )
    return DataSource(format="sbd", root=base, splits=splits, labels=LabelSpace.load("voc"), notes=tuple(notes))


def sbd_names(base: Path, split: str) -> list[str]:
    """Returns the ids of one of SBD's lists, an empty list where there is no ``val.txt``.

    Raises:
        DataError: the list is empty or repeats an id.
    """
    file = base / f"{split}.txt"
    if split == "val" and not file.is_file():
        return []
    names = [Path(line).name for _, line in read_lines(file)]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names or repeated:
        raise DataError(f"{file}: {len(names)} ids, repeated: {listed(repeated) or 'none'}; one id per line. {_LAYOUT}")
    return names


def sbd_mask(base: Path, name: str) -> MatField:
    """Returns SBD's class mask of an image."""
    return MatField(base / "cls" / f"{name}.mat", _KEYS)
