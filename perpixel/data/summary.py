"""What a split holds: pixels and images per class, what is ignored, sizes; and whether one can train on it.

Shapes: N images, K classes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.data.dataset import SegmentationDataset, Target
from perpixel.data.formats.item import Item, listed
from perpixel.data.picture import file_of
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = [
    "SplitCounter",
    "SplitSummary",
    "TargetCounts",
    "check_trainable",
    "count_target",
    "file_sizes",
    "fingerprint",
    "names_digest",
    "summarise",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitSummary:
    """Counts over the masks of one split at their original size."""

    images: int
    unlabelled: int
    """Images without mask."""
    pixels_per_class: tuple[int, ...]
    images_per_class: tuple[int, ...]
    pixels_of_images_with_class: tuple[int, ...]
    """All pixels, ignored ones too, of the images that hold the class."""
    ignored_pixels: int
    sizes: Mapping[tuple[int, int], int]
    """(height, width) -> number of images, the most frequent first."""
    all_ignored: tuple[str, ...]
    """Names of images whose mask ignores every pixel."""
    images_turned: tuple[str, ...]
    """Names of images that EXIF orientation turns or mirrors."""
    masks_turned: tuple[str, ...]
    """Those of them whose masks carry no orientation and were turned alike."""
    class_presence: NDArray[np.bool_]
    """(N, K): image holds class, in the order of the data set; what `make_split` takes."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts as plain values for data.json; sizes become ``[height, width, images]``."""
        return {
            "images": self.images,
            "unlabelled": self.unlabelled,
            "pixels_per_class": list(self.pixels_per_class),
            "images_per_class": list(self.images_per_class),
            "ignored_pixels": self.ignored_pixels,
            "sizes": [[height, width, count] for (height, width), count in self.sizes.items()],
            "all_ignored": list(self.all_ignored),
            "images_turned": list(self.images_turned),
            "masks_turned": list(self.masks_turned),
        }


class TargetCounts(NamedTuple):
    """What one mask holds; what is summed over a split."""

    name: str
    counts: NDArray[np.int64] | None
    """(256,) pixels per train id, 255 the ignored ones; None for an image without mask."""
    size: tuple[int, int]
    image_turned: bool
    mask_turned: bool


def count_target(name: str, target: Target) -> TargetCounts:
    """Counts the pixels of one mask."""
    counts = None if target.pixels is None else np.bincount(target.pixels.ravel(), minlength=256)
    return TargetCounts(name, counts, target.size, target.image_turned, target.mask_turned)


class SplitCounter:
    """Adds up `TargetCounts` in the order of the data set, keeping nothing of the masks."""

    def __init__(self, labels: LabelSpace) -> None:
        self._classes = labels.num_classes
        self._ignore_index = labels.ignore_index
        self._pixels = np.zeros(256, dtype=np.int64)
        self._pixels_of_images = np.zeros(labels.num_classes, dtype=np.int64)
        self._presence: list[NDArray[np.bool_]] = []
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._unlabelled = 0
        self._named: dict[str, list[str]] = {"all_ignored": [], "images_turned": [], "masks_turned": []}

    def add(self, row: TargetCounts) -> None:
        """Adds one image."""
        counts = np.zeros(256, dtype=np.int64) if row.counts is None else row.counts
        present = counts[: self._classes] > 0
        self._pixels += counts
        self._pixels_of_images += counts.sum() * present
        self._presence.append(present)
        self._sizes[row.size] += 1
        self._unlabelled += row.counts is None
        marks = {
            "all_ignored": row.counts is not None and not present.any(),
            "images_turned": row.image_turned,
            "masks_turned": row.mask_turned,
        }
        for key, holds in marks.items():
            if holds:
                self._named[key].append(row.name)

    def summary(self) -> SplitSummary:
        """Returns the sums so far."""
        presence = np.array(self._presence, dtype=bool).reshape(-1, self._classes)
        return SplitSummary(
            images=len(presence),
            unlabelled=self._unlabelled,
            pixels_per_class=tuple(self._pixels[: self._classes].tolist()),
            images_per_class=tuple(presence.sum(0).tolist()),
            pixels_of_images_with_class=tuple(self._pixels_of_images.tolist()),
            ignored_pixels=int(self._pixels[self._ignore_index]),
            sizes=dict(self._sizes.most_common()),
            class_presence=presence,
            **{key: tuple(names) for key, names in self._named.items()},
        )


def summarise(dataset: SegmentationDataset) -> SplitSummary:
    """Reads every mask once, and of the images their headers, with one thread per core.

    Raises:
        DataError: the first file, in the order of the data set, that cannot be used.
    """

    def count(index: int) -> TargetCounts:
        return count_target(dataset.items[index].name, dataset.read_target(index))

    counter = SplitCounter(dataset.labels)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(count, range(len(dataset))):
            counter.add(row)
    return counter.summary()


def names_digest(items: Iterable[Item]) -> str:
    """Returns a SHA-256 over the names alone, in their order: which sample has which number."""
    return hashlib.sha256("\n".join(item.name for item in items).encode()).hexdigest()


def fingerprint(items: Iterable[Item]) -> str:
    """Returns a SHA-256 over the names and file sizes, which changes when files are added, removed or re-encoded.

    Contents are not read, so an edit that keeps a file's length is not seen.

    Raises:
        DataError: a file is not there.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.name}\t{file_sizes(item)}\n".encode())
    return digest.hexdigest()


def file_sizes(item: Item) -> str:
    """Returns the bytes of an item's image and mask, parted by a tab; ``-`` where there is no mask.

    Raises:
        DataError: a file is not there.
    """
    sizes = []
    for source in (item.image, item.mask):
        path = None if source is None else file_of(source)
        try:
            sizes.append("-" if path is None else str(path.stat().st_size))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return "\t".join(sizes)


def check_trainable(
    summary: SplitSummary, labels: LabelSpace, split: str, *, allow_absent_classes: bool = False
) -> tuple[str, ...]:
    """Makes sure that a split can be trained on (``train…``) or scored on (any other), and notes what is odd.

    Returns:
        Notes: absent classes, images that are ignored as a whole, images and masks turned by EXIF orientation.

    Raises:
        DataError: every pixel is ignored, or a training split has no pixel of a class and that was not allowed.
    """
    absent = [name for name, count in zip(labels.names, summary.pixels_per_class, strict=True) if count == 0]
    if len(absent) == labels.num_classes:
        raise DataError(
            f"split {split!r}: every pixel of its {summary.images} images is ignored or without mask, so nothing can "
            f"be learned or scored. Stored ids {list(labels.ignored_ids)} are ignored by label space {labels.name!r}; "
            "check that it is the one of these masks (--labels)."
        )
    notes = []
    if absent and split.startswith("train") and not allow_absent_classes:
        raise DataError(
            f"split {split!r} has no pixel of class {listed(absent)}: a network cannot learn what it never sees."
            f"{_foreground_hint(summary, labels)} Add such images, take the classes out of the label file, or set "
            "data.allow_absent_classes=true."
        )
    if absent:
        notes.append(f"split {split!r} has no pixel of {len(absent)} classes: {listed(absent)}")
    if summary.unlabelled:
        notes.append(f"split {split!r}: {summary.unlabelled} of {summary.images} images have no mask")
    if summary.all_ignored:
        count = len(summary.all_ignored)
        notes.append(f"split {split!r}: {count} masks ignore every pixel: {listed(summary.all_ignored)}")
    if summary.images_turned:
        count = len(summary.images_turned)
        notes.append(f"split {split!r}: {count} images are turned by EXIF orientation: {listed(summary.images_turned)}")
    if summary.masks_turned:
        count = len(summary.masks_turned)
        notes.append(
            f"split {split!r}: {count} masks without EXIF were turned like their images, whose stored pixels "
            f"they fit; look at one overlay: {listed(summary.masks_turned)}"
        )
    return tuple(notes)


def _foreground_hint(summary: SplitSummary, labels: LabelSpace) -> str:
    """Says so where 255 seems to mean foreground: it is ignored, occurs, and all else is class 0."""
    only_first = not any(summary.pixels_per_class[1:])
    if only_first and summary.ignored_pixels and labels.stored_to_train.get(255) == labels.ignore_index:
        return (
            f" The masks hold {summary.ignored_pixels} pixels that label space {labels.name!r} ignores; if they are "
            "255 and mean foreground, leave --labels away: 0 and 255 then become two classes."
        )
    return ""
