"""Cityscapes: fine and coarse annotations, as label ids, train ids or polygons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, count_note, listed, lost_links
from perpixel.data.formats.named_pairs import files_ending, first_folder
from perpixel.data.formats.polygon_masks import CityscapesPolygons
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_cityscapes", "read_cityscapes"]

_IMAGE_ENDING = "_leftImg8bit.png"
_MASK_ENDINGS = {"labelIds": "_labelIds.png", "polygons": "_polygons.json", "labelTrainIds": "_labelTrainIds.png"}
_COUNTS = {"train": 2975, "val": 500, "test": 1525, "train_extra": 19_998, "train_coarse": 2975, "val_coarse": 500}
_LABEL_IDS = ("labelIds", "polygons")
_INSIDE = ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit", "cityscapes/leftImg8bit")
_LAYOUT = (
    "Cityscapes has leftImg8bit/{train,val,test}/<city>/<city>_000000_000019_leftImg8bit.png and "
    "gtFine/…/<city>_000000_000019_gtFine_{labelIds.png,polygons.json}; coarse labels lie in "
    "gtCoarse/{train,train_extra,val}. The Cityscapes site gives them after registration: leftImg8bit_trainvaltest.zip "
    "and gtFine_trainvaltest.zip; for coarse labels gtCoarse.zip and leftImg8bit_trainextra.zip. Unpack all into one "
    "folder."
)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One folder of images with one kind of annotation."""

    split: str
    images: str
    annotations: str


_PARTS = (
    _Part(split="train", images="train", annotations="gtFine"),
    _Part(split="val", images="val", annotations="gtFine"),
    _Part(split="train_extra", images="train_extra", annotations="gtCoarse"),
    _Part(split="train_coarse", images="train", annotations="gtCoarse"),
    _Part(split="val_coarse", images="val", annotations="gtCoarse"),
)


def is_cityscapes(root: Path) -> bool:
    """Tells whether a folder holds ``leftImg8bit/``, a name that no other data set has."""
    return first_folder(root, _INSIDE) is not None


def read_cityscapes(root: Path) -> DataSource:
    """Reads train and val of the fine labels, ``train_extra``, ``train_coarse`` and ``val_coarse``, and test.

    Masks are labelIds; where files of them are missing, polygons, which hold the same ids; labelTrainIds only where the
    annotations have neither. ``test`` has no masks: the published ones hold only void.

    Raises:
        DataError: the layout is another, or images have no annotation of any one kind.
    """
    images = first_folder(root, _INSIDE)
    if images is None:
        raise DataError(f"{root}: no leftImg8bit/ here. {_LAYOUT}")
    base = images.parent
    _refuse_lost_links(images)
    notes = [f"Cityscapes was found in {base}"] if base != root else []
    found = _labelled_parts(base, images, notes)
    kinds, labels = _kinds(found)
    splits: dict[str, tuple[Item, ...]] = {}
    for part, (by_stem, masks) in found.items():
        splits[part.split] = _items(part, by_stem, masks, kinds[part], notes)
    if (images / "test").is_dir():
        by_stem = _images(images / "test")
        splits["test"] = tuple(Item(name=stem, image=path, mask=None) for stem, path in by_stem.items())
        if (base / "gtFine" / "test").is_dir():
            notes.append("the published masks of split 'test' hold only void and were left away; its server scores it")
    if not splits:
        raise DataError(f"{images}: no split with images here. {_LAYOUT}")
    used = sorted({kinds[part] for part in found})
    if used and used != ["labelIds"]:
        notes.append(f"masks are read from {' and '.join(used)}, because labelIds are not there for every image")
    notes += count_note(splits, _COUNTS)
    return DataSource(format="cityscapes", root=base, splits=splits, labels=LabelSpace.load(labels), notes=tuple(notes))


def _labelled_parts(
    base: Path, images: Path, notes: list[str]
) -> dict[_Part, tuple[dict[str, Path], dict[str, dict[str, Path]]]]:
    """Returns for each part that is there its images, and by kind of annotation the files, both by stem."""
    found = {}
    for part in _PARTS:
        folder, masks = images / part.images, base / part.annotations / part.images
        if not folder.is_dir():
            if masks.is_dir() and part.annotations == "gtCoarse":
                notes.append(f"{masks} has no images in {folder}, so there is no split {part.split!r}")
            continue
        if not masks.is_dir():
            if part.annotations == "gtFine":
                raise DataError(f"{masks}: there is no such folder, so split {part.split!r} has no masks. {_LAYOUT}")
            if part.split == "train_extra":
                notes.append(f"{masks} is not there, so the images of {folder} were left out")
            continue
        annotations = {kind: _by_city(masks, f"_{part.annotations}{ending}") for kind, ending in _MASK_ENDINGS.items()}
        found[part] = (_images(folder), annotations)
    return found


def _kinds(found: Mapping[_Part, tuple[dict[str, Path], dict[str, dict[str, Path]]]]) -> tuple[dict[_Part, str], str]:
    """Chooses what every part is read from, and the label space: one for all, since a source has one."""
    lacking = {
        part: {kind: [stem for stem in images if stem not in masks[kind]] for kind in _MASK_ENDINGS}
        for part, (images, masks) in found.items()
    }
    by_id = {part: next((kind for kind in _LABEL_IDS if not of[kind]), None) for part, of in lacking.items()}
    complete = {part: kind for part, kind in by_id.items() if kind is not None}
    if len(complete) == len(found):
        return complete, "cityscapes"
    if all(not of["labelTrainIds"] for of in lacking.values()):
        return dict.fromkeys(found, "labelTrainIds"), "cityscapes_train_ids"
    part = next(part for part, kind in by_id.items() if kind is None)
    counts = ", ".join(f"{len(lacking[part][kind])} have no {kind}" for kind in _MASK_ENDINGS)
    fewest = min(lacking[part].values(), key=len)
    raise DataError(
        f"split {part.split!r}: of {len(found[part][0])} images {counts} in {part.annotations}; every image needs the "
        f"same kind. Missing: {listed(fewest)}. {_LAYOUT}"
    )


def _items(
    part: _Part, images: dict[str, Path], masks: dict[str, dict[str, Path]], kind: str, notes: list[str]
) -> tuple[Item, ...]:
    spare = [path.name for stem, path in masks[kind].items() if stem not in images]
    if spare:
        notes.append(f"split {part.split!r}: {len(spare)} annotations have no image and were left out: {listed(spare)}")
    return tuple(
        Item(
            name=stem,
            image=path,
            mask=CityscapesPolygons(masks[kind][stem]) if kind == "polygons" else masks[kind][stem],
        )
        for stem, path in images.items()
    )


def _images(folder: Path) -> dict[str, Path]:
    by_stem = _by_city(folder, _IMAGE_ENDING)
    if not by_stem:
        raise DataError(f"{folder}: no <city>/x{_IMAGE_ENDING} here. {_LAYOUT}")
    return by_stem


def _by_city(folder: Path, ending: str) -> dict[str, Path]:
    """Returns the files in the folders of cities, by stem."""
    found: dict[str, Path] = {}
    _refuse_lost_links(folder)
    for city in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for stem, path in files_ending(city, (ending,), way_out=_LAYOUT).items():
            if stem in found:
                raise DataError(f"{found[stem]} and {path} are both image {stem!r}; remove one of them")
            found[stem] = path
    return found


def _refuse_lost_links(folder: Path) -> None:
    """A split or city behind such a link would be left out unseen."""
    lost = lost_links(folder)
    if lost:
        raise DataError(f"{listed(lost)}: symbolic links that lead nowhere or to themselves; restore or remove them")
