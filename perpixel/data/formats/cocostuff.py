"""COCO-Stuff, 171 classes: 164k (PNG) and 10k (.mat), as published or with the masks that converters write beside."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.formats.id_lists import read_ids
from perpixel.data.formats.item import DataSource, Item, listed, require_files
from perpixel.data.formats.matrix_files import MatField
from perpixel.data.formats.named_pairs import files_ending
from perpixel.data.picture import PixelSource
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_cocostuff", "read_cocostuff"]

_SPLITS = {"train": "train2017", "val": "val2017"}
_MASK_FOLDERS = ("annotations", "stuffthingmaps_trainval2017", "stuffthingmaps", "annotations/stuffthingmaps")
_CONVERTED = "_labelTrainIds"
_LAYOUT = (
    "COCO-Stuff 164k has images/{train2017,val2017}/<id>.jpg and annotations/{train2017,val2017}/<id>.png (from "
    "stuffthingmaps_trainval2017.zip); 10k has images/<id>.jpg, annotations/<id>.mat and imageLists/{train,test}.txt "
    "(cocostuff-10k-v1.1.zip)."
)


def is_cocostuff(root: Path) -> bool:
    """Tells whether a folder has masks of 164k beside their images, or the lists and .mat files of 10k."""
    return _is_10k(root) or any(
        _numbered(_mask_folder(root, year)) and _image_folder(root, year) is not None for year in _SPLITS.values()
    )


def read_cocostuff(root: Path) -> DataSource:
    """Reads 164k as train and val, 10k as train and test.

    Raises:
        DataError: neither layout is here, an image has no mask, or a list names files that are not there.
    """
    if _is_10k(root):
        return _read_10k(root)
    splits: dict[str, tuple[Item, ...]] = {}
    converted: set[bool] = set()
    notes: list[str] = []
    for split, year in _SPLITS.items():
        images, masks = _image_folder(root, year), _mask_folder(root, year)
        if images is None or masks is None:
            notes.append(f"{year} is not complete here, so there is no split {split!r}")
            continue
        splits[split], kind, said = _matched(images, masks)
        converted.add(kind)
        notes += said
    if not splits:
        raise DataError(f"{root}: no COCO-Stuff here. {_LAYOUT}")
    if len(converted) > 1:
        raise DataError(
            f"{root}: one split has masks as published and the other has {_CONVERTED}.png alone; their ids differ. "
            f"Complete one of the two kinds. {_LAYOUT}"
        )
    if converted == {True}:
        labels = _converted_labels("cocostuff164k", first=0)
        notes.append(f"masks are *{_CONVERTED}.png: 0 to 170, 255 ignored")
    else:
        labels = LabelSpace.load("cocostuff164k")
        notes.append("of the 182 ids, 11 have no class and are ignored, as is 255: 171 classes")
    return DataSource(format="cocostuff", root=root, splits=splits, labels=labels, notes=tuple(notes))


def _is_10k(root: Path) -> bool:
    return (root / "imageLists").is_dir() and (root / "annotations").is_dir() and (root / "images").is_dir()


def _image_folder(root: Path, year: str) -> Path | None:
    return next((folder for folder in (root / "images" / year, root / year) if folder.is_dir()), None)


def _mask_folder(root: Path, year: str) -> Path | None:
    folders = (root / name / year for name in _MASK_FOLDERS)
    return next((f for f in folders if f.is_dir() and next(f.glob("*.png"), None) is not None), None)


def _numbered(folder: Path | None) -> bool:
    """Tells whether masks are named by COCO's twelve digits, which other data in such folders are not."""
    first = None if folder is None else next(folder.glob("*.png"), None)
    return first is not None and first.stem[:12].isdigit() and len(first.stem.partition("_")[0]) == 12


def _matched(images: Path, masks: Path) -> tuple[tuple[Item, ...], bool, list[str]]:
    """Pairs by name; returns the items, whether the masks are converted ones, and notes."""
    pictures = files_ending(images, (".jpg",), way_out=_LAYOUT)
    stored = files_ending(masks, (".png",), way_out=_LAYOUT)
    if not pictures:
        raise DataError(f"{images}: no .jpg images here. {_LAYOUT}")
    plain = {name for name in stored if not name.endswith("TrainIds")}
    ending = "" if plain else _CONVERTED
    missing = [name for name in pictures if name + ending not in stored]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pictures)} images in {images} have no mask in {masks}: {listed(missing)}. "
            f"{_LAYOUT}"
        )
    spare = sorted((plain or set(stored)) - {name + ending for name in pictures})
    notes = [f"{len(spare)} masks in {masks} have no image and were left out: {listed(spare)}"] if spare else []
    items = tuple(Item(name=name, image=path, mask=stored[name + ending]) for name, path in pictures.items())
    return items, bool(ending), notes


def _read_10k(root: Path) -> DataSource:
    splits: dict[str, tuple[Item, ...]] = {}
    kinds: set[bool] = set()
    for split in ("train", "test"):
        file = root / "imageLists" / f"{split}.txt"
        if not file.is_file():
            continue
        pairs = [_pair_10k(root, split, name) for name in read_ids(file, way_out=_LAYOUT)]
        kinds |= {isinstance(mask, MatField) for _, _, mask in pairs}
        splits[split] = tuple(Item(name=name, image=image, mask=mask) for name, image, mask in pairs)
        require_files(splits[split], split=split, way_out=f"Complete the data set. {_LAYOUT}")
    if not splits:
        raise DataError(f"{root / 'imageLists'}: no train.txt or test.txt here. {_LAYOUT}")
    if len(kinds) > 1:
        raise DataError(f"{root}: some masks are .mat files and some {_CONVERTED}.png, whose ids differ. {_LAYOUT}")
    if kinds == {True}:
        labels, note = LabelSpace.load("cocostuff10k"), "masks are the matrix S of the .mat files, 0 is unlabelled"
    else:
        labels = _converted_labels("cocostuff10k", first=1)
        note = f"masks are *{_CONVERTED}.png: 1 to 171, 0 ignored"
    notes = (note, "COCO-Stuff 10k is scored on its split 'test', which has masks")
    return DataSource(format="cocostuff", root=root, splits=splits, labels=labels, notes=notes)


def _pair_10k(root: Path, split: str, name: str) -> tuple[str, Path, PixelSource]:
    """Finds image and mask as published, or in the folders by split that converters make."""
    images = [root / "images" / f"{name}.jpg", root / "images" / f"{split}2014" / f"{name}.jpg"]
    image = next((path for path in images if path.is_file()), images[0])
    matrix = root / "annotations" / f"{name}.mat"
    converted = root / "annotations" / f"{split}2014" / f"{name}{_CONVERTED}.png"
    return name, image, converted if converted.is_file() and not matrix.is_file() else MatField(matrix, ("S",))


def _converted_labels(name: str, *, first: int) -> LabelSpace:
    """The 171 classes numbered without gaps from ``first`` on, as converters write them."""
    base = LabelSpace.load(name)
    count = base.num_classes
    ids = tuple(range(first, first + count))
    return LabelSpace(
        name=f"{name}_train_ids",
        names=base.names,
        colors=base.colors,
        stored_to_train={i: k for k, i in enumerate(ids)} | {0 if first else 255: LabelSpace.ignore_index},
        train_to_stored=ids if first else None,
    )
