"""BDD100K semantic segmentation: the 10k images with masks of Cityscapes' nineteen train ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perpixel.data.formats.item import DataSource, Item, count_note
from perpixel.data.formats.named_pairs import PairRule, pair_named, unlabelled_items
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_bdd100k", "read_bdd100k"]

_SPLITS = ("train", "val")
_COUNTS = {"train": 7000, "val": 1000, "test": 2000}
_LAYOUT = (
    "BDD100K has images/10k/{train,val,test}/x.jpg and labels/sem_seg/masks/{train,val}/x.png (older releases: "
    "seg/images/{train,val,test}/x.jpg and seg/labels/{train,val}/x_train_id.png). The BDD100K site gives them after "
    "registration as '10K Images' and 'Segmentation'; the 100K images are others."
)


@dataclass(frozen=True, kw_only=True)
class _Release:
    """Where a release keeps its files, below any of ``inside``."""

    inside: tuple[str, ...]
    images: str
    masks: str
    mask_ending: str


_RELEASES = (
    _Release(inside=(".", "bdd100k"), images="images/10k", masks="labels/sem_seg/masks", mask_ending=".png"),
    _Release(inside=("seg", "bdd100k/seg", "."), images="images", masks="labels", mask_ending="_train_id.png"),
)


def is_bdd100k(root: Path) -> bool:
    """Tells whether a folder is, or holds, a release of BDD100K's semantic segmentation."""
    return _located(root) is not None


def read_bdd100k(root: Path) -> DataSource:
    """Reads train and val, and ``test`` without masks.

    Raises:
        DataError: the layout is another, or an image has no mask.
    """
    located = _located(root)
    if located is None:
        raise DataError(f"{root}: no images/10k/ with labels/sem_seg/masks/ here, and no seg/. {_LAYOUT}")
    base, release = located
    rule = PairRule(mask_ending=release.mask_ending, way_out=_LAYOUT)
    notes = [f"BDD100K was found in {base}"] if base != root else []
    splits: dict[str, tuple[Item, ...]] = {}
    for split in _SPLITS:
        if (base / release.images / split).is_dir():
            images, masks = base / release.images / split, base / release.masks / split
            splits[split], said = pair_named(images, masks, rule, split=split)
            notes += said
    if (base / release.images / "test").is_dir():
        splits["test"] = unlabelled_items(base / release.images / "test", rule, split="test")
    notes += count_note(splits, _COUNTS)
    return DataSource(format="bdd100k", root=base, splits=splits, labels=LabelSpace.load("bdd100k"), notes=tuple(notes))


def _located(root: Path) -> tuple[Path, _Release] | None:
    for release in _RELEASES:
        for inside in release.inside:
            base = root / inside
            if _holds(base, release):
                return base, release
    return None


def _holds(base: Path, release: _Release) -> bool:
    for split in _SPLITS:
        images, masks = base / release.images / split, base / release.masks / split
        if images.is_dir() and masks.is_dir():
            return release.mask_ending == ".png" or any(masks.glob(f"*{release.mask_ending}"))
    return False
