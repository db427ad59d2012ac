"""What every reader of a layout returns, and what they share: label files and messages about missing files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perpixel.data.picture import PixelSource, file_of
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["DataSource", "Item", "distinct_names", "listed", "own_labels", "require_files"]

LABEL_FILE = "labels.yaml"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image and its mask: two files, or places in files."""

    name: str
    """Differs from every other name of the split; predictions are written under it."""
    image: PixelSource
    mask: PixelSource | None
    """None for an image without labels, such as those of a test server."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set as it lies on disk: files per split, and the label space when the data set brings one."""

    format: str
    root: Path
    splits: Mapping[str, tuple[Item, ...]]
    """By name: ``train``, ``val``, ``test`` and what the format has beside; undivided data is the one split ``all``."""
    labels: LabelSpace | None
    notes: tuple[str, ...] = ()
    """What was recognised, adapted or left out, one sentence each, for the user to see."""


def listed(names: Sequence[object], limit: int = 10) -> str:
    """Joins the first names with commas and says how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def own_labels(folder: Path) -> tuple[LabelSpace | None, tuple[str, ...]]:
    """Reads the ``labels.yaml`` of a data folder where there is one, and says so.

    Raises:
        ConfigError: the file does not describe a label space.
    """
    file = folder / LABEL_FILE
    if not file.is_file():
        return None, ()
    labels = LabelSpace.load(str(file))
    return labels, (f"classes come from {file}: {labels.num_classes} classes",)


def require_files(items: Sequence[Item], *, split: str, way_out: str) -> None:
    """Makes sure that every file of a split is there.

    Raises:
        DataError: names the first ten missing files and the way out.
    """
    sources = [source for item in items for source in (item.image, item.mask) if source is not None]
    missing = [file for file in dict.fromkeys(file_of(source) for source in sources) if not file.is_file()]
    if missing:
        raise DataError(f"split {split!r} lists {len(missing)} files that are not there: {listed(missing)}. {way_out}")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names files by their stem, with as many parent folders before it as make all names differ.

    Raises:
        DataError: a file is given twice.
    """
    if len(set(paths)) < len(paths):
        repeated = sorted({str(path) for path in paths if paths.count(path) > 1})
        raise DataError(f"images are listed more than once: {listed(repeated)}. Remove the repeated lines.")
    stems = [path.with_suffix("") for path in paths]
    deepest = max((len(stem.parts) for stem in stems), default=1)
    for depth in range(1, deepest + 1):
        names = ["__".join(stem.parts[-depth:]) for stem in stems]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"images differ only in their extension, so they cannot be told apart: {listed(paths)}")
