"""What every reader of a layout returns, and what they share: label files and messages about missing files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perpixel.data.picture import PixelSource, file_of
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = [
    "DataSource",
    "Item",
    "count_note",
    "distinct_names",
    "listed",
    "lost_links",
    "own_labels",
    "read_lines",
    "require_files",
]

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


def lost_links(folder: Path) -> list[Path]:
    """Returns the symbolic links directly in a folder that lead nowhere or to themselves, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_symlink() and not path.exists())


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


def count_note(splits: Mapping[str, Sequence[Item]], published: Mapping[str, int]) -> tuple[str, ...]:
    """Says where splits have other numbers of images than published, as after a download that broke off."""
    counts = {split: len(splits[split]) for split in published if split in splits}
    odd = [f"{split} {n} (published: {published[split]})" for split, n in counts.items() if n != published[split]]
    return (f"other numbers of images than in the published data set: {listed(odd)}",) if odd else ()


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Returns the lines of a text file that are not blank, without the blanks around them, and their numbers.

    Raises:
        DataError: the file cannot be read as text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # file names may hold other signs that end lines
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of names: {error}") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


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
        repeated = sorted(str(path) for path, count in Counter(paths).items() if count > 1)
        raise DataError(f"images are listed more than once: {listed(repeated)}. Remove the repeated lines.")
    # No root in a name: predictions are written under it.
    stems = [tuple(part for part in path.with_suffix("").parts if part != path.anchor) for path in paths]
    deepest = max((len(stem) for stem in stems), default=1)
    for depth in range(1, deepest + 1):
        names = ["__".join(stem[-depth:]) for stem in stems]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"images differ only in their extension, so they cannot be told apart: {listed(paths)}")
