"""Mapillary Vistas with the 65 classes of v1.2, in folders of their own version or without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perpixel.data.formats.item import DataSource, Item, count_note, listed
from perpixel.data.formats.named_pairs import PairRule, pair_named, unlabelled_items
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_mapillary", "read_mapillary"]

_SPLITS = {"train": "training", "val": "validation"}
_COUNTS = {"train": 18_000, "val": 2000, "test": 5000}
_MASKS = ("v1.2/labels", "labels")
_CONFIGS = ("config_v1.2.json", "config.json")
_LAYOUT = (
    "Mapillary Vistas has {training,validation}/images/x.jpg with v1.2/labels/x.png (v1.x releases: labels/x.png) and "
    "testing/images/x.jpg, and config_v1.2.json beside them. The Mapillary Vistas page gives it after registration."
)
_RULE = PairRule(way_out=_LAYOUT)


def is_mapillary(root: Path) -> bool:
    """Tells whether a folder holds Mapillary Vistas: its splits with a version's folder, or with its instance masks."""
    for folder in _SPLITS.values():
        split = root / folder
        if (split / "images").is_dir() and any((split / version).is_dir() for version in ("v1.2", "v2.0")):
            return True
        if all((split / kind).is_dir() for kind in ("images", "labels", "instances")):
            return True
    return False


def read_mapillary(root: Path) -> DataSource:
    """Reads train and val with the labels of v1.2, and ``test`` (``testing/``) without masks.

    Raises:
        DataError: the layout is another, only v2.0 is here, the configuration lists another number of classes, or an
            image has no mask.
    """
    labels = LabelSpace.load("mapillary_v1.2")
    notes: tuple[str, ...] = ()
    splits: dict[str, tuple[Item, ...]] = {}
    for split, folder in _SPLITS.items():
        images = root / folder / "images"
        if not images.is_dir():
            continue
        masks = next((root / folder / inside for inside in _MASKS if (root / folder / inside).is_dir()), None)
        if masks is None:
            newer = (root / folder / "v2.0").is_dir()
            hint = " Only v2.0 with its 124 classes is here, which is not read." if newer else ""
            raise DataError(f"{root / folder}: no v1.2/labels/ and no labels/ here.{hint} {_LAYOUT}")
        splits[split], said = pair_named(images, masks, _RULE, split=split)
        notes += said
    if not splits:
        raise DataError(f"{root}: no training/images/ or validation/images/ here. {_LAYOUT}")
    if (root / "testing" / "images").is_dir():
        splits["test"] = unlabelled_items(root / "testing" / "images", _RULE, split="test")
    config = next((root / name for name in _CONFIGS if (root / name).is_file()), None)
    if config is not None:
        notes += _check_classes(config, labels)
    notes += count_note(splits, _COUNTS)
    return DataSource(format="mapillary", root=root, splits=splits, labels=labels, notes=notes)


def _check_classes(file: Path, labels: LabelSpace) -> tuple[str, ...]:
    """Compares the release's own list with v1.2: refuses another number of classes, says so where colours differ."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from error
    entries: Any = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{file}: must be a mapping whose 'labels' list the classes. {_LAYOUT}")
    wanted = [list(color) for color in (*labels.colors, labels.ignore_color)]
    if len(entries) != len(wanted):
        raise DataError(
            f"{file} lists {len(entries)} classes, v1.2 has {len(wanted)} with Unlabeled, and only v1.2 is read. For "
            "other classes give a list file of images and masks, and a label file (--labels)."
        )
    differing = [i for i, entry in enumerate(entries) if entry.get("color") != wanted[i]]
    if not differing:
        return ()
    return (f"{file.name} gives other colours than known to the ids {listed(differing)}; check what they mean",)
