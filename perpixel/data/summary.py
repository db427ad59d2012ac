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
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.formats.item import Item, listed
from perpixel.data.picture import file_of
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

__all__ = ["ClassWeighting", "SplitSummary", "check_trainable", "class_weights", "fingerprint", "summarise"]

ClassWeighting = Literal["median_frequency", "median_frequency_eigen", "sqrt_median_frequency"]


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


def summarise(dataset: SegmentationDataset) -> SplitSummary:
    """Reads every mask once, and of the images their headers, with one thread per core.

    Raises:
        DataError: the first file, in the order of the data set, that cannot be used.
    """
    labels = dataset.labels

    def count(index: int) -> tuple[NDArray[np.int64] | None, tuple[int, int], bool, bool]:
        target = dataset.read_target(index)
        counts = None if target.pixels is None else np.bincount(target.pixels.ravel(), minlength=256)
        return counts, target.size, target.image_turned, target.mask_turned

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(count, range(len(dataset))))
    names = [item.name for item in dataset.items]
    empty = np.zeros(256, dtype=np.int64)
    counts = np.stack([empty if row[0] is None else row[0] for row in rows])  # (N, 256)
    per_class = counts[:, : labels.num_classes]
    presence = per_class > 0
    valid = per_class.sum(1)
    return SplitSummary(
        images=len(rows),
        unlabelled=sum(row[0] is None for row in rows),
        pixels_per_class=tuple(per_class.sum(0).tolist()),
        images_per_class=tuple(presence.sum(0).tolist()),
        pixels_of_images_with_class=tuple((counts.sum(1) @ presence).tolist()),
        ignored_pixels=int(counts[:, labels.ignore_index].sum()),
        sizes=dict(Counter(row[1] for row in rows).most_common()),
        all_ignored=tuple(n for n, row, v in zip(names, rows, valid, strict=True) if row[0] is not None and v == 0),
        images_turned=tuple(name for name, row in zip(names, rows, strict=True) if row[2]),
        masks_turned=tuple(name for name, row in zip(names, rows, strict=True) if row[3]),
        class_presence=presence,
    )


def fingerprint(items: Iterable[Item]) -> str:
    """Returns a SHA-256 over the names and file sizes, which changes when files are added, removed or re-encoded.

    Contents are not read, so an edit that keeps a file's length is not seen.

    Raises:
        DataError: a file is not there.
    """
    digest = hashlib.sha256()
    for item in items:
        sizes = []
        for source in (item.image, item.mask):
            path = None if source is None else file_of(source)
            try:
                sizes.append("-" if path is None else str(path.stat().st_size))
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        digest.update(f"{item.name}\t{sizes[0]}\t{sizes[1]}\n".encode())
    return digest.hexdigest()


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


def class_weights(
    summary: SplitSummary, method: ClassWeighting, *, max_weight: float | None = None
) -> tuple[float, ...]:
    """Weighs classes against their frequency, as the loss of a pixel is multiplied by its class's weight.

    With f the share of a class in all valid pixels, ``median_frequency`` is median(f) / f and ``sqrt_median_frequency``
    its square root. In ``median_frequency_eigen`` (Eigen and Fergus 2015, quoted by SegNet, Badrinarayanan et al. 2017)
    f is the share in all pixels of those images that hold the class. The median is over the classes that occur;
    classes that do not occur weigh 1.

    Args:
        summary: Counts of the training split.
        method: Which formula.
        max_weight: Larger weights are cut to this.

    Raises:
        InvalidValue: the method is unknown or ``max_weight`` not positive.
        DataError: no class occurs.
    """
    if method not in get_args(ClassWeighting):
        raise InvalidValue(f"class weights by {method!r} are not known; one of {get_args(ClassWeighting)}")
    if max_weight is not None and not max_weight > 0:
        raise InvalidValue(f"max_weight must be positive, got {max_weight}")
    pixels = np.array(summary.pixels_per_class, dtype=np.float64)
    present = pixels > 0
    if not present.any():
        raise DataError("class weights need a split with labelled pixels, and every pixel of this one is ignored")
    total = np.array(summary.pixels_of_images_with_class) if method == "median_frequency_eigen" else pixels.sum()
    frequency = pixels / np.maximum(total, 1)
    weights = np.ones_like(frequency)
    weights[present] = np.median(frequency[present]) / frequency[present]
    if method == "sqrt_median_frequency":
        weights = np.sqrt(weights)
    return tuple(np.minimum(weights, np.inf if max_weight is None else max_weight).tolist())


def _foreground_hint(summary: SplitSummary, labels: LabelSpace) -> str:
    """Says so where 255 seems to mean foreground: it is ignored, occurs, and all else is class 0."""
    only_first = not any(summary.pixels_per_class[1:])
    if only_first and summary.ignored_pixels and labels.stored_to_train.get(255) == labels.ignore_index:
        return (
            f" The masks hold {summary.ignored_pixels} pixels that label space {labels.name!r} ignores; if they are "
            "255 and mean foreground, leave --labels away: 0 and 255 then become two classes."
        )
    return ""
