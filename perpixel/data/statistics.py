"""What a data set is made of: classes and their company, sizes of regions, colours; counted in one pass.

Shapes: N images, K classes, C image channels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.image_files import read_image, to_channels
from perpixel.data.summary import SplitCounter, SplitSummary, TargetCounts, count_target
from perpixel.label_regions import label_regions
from perpixel.ops.normalize import FULL_SCALE

__all__ = ["MOST_COLOR_IMAGES", "ColorStatistics", "DataStatistics", "RegionStatistics", "describe_data"]

MOST_COLOR_IMAGES = 500
_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, kw_only=True)
class RegionStatistics:
    """Sizes of the connected regions of one class in pixels, at the masks' own size; pixels may touch at a corner."""

    regions: int
    smallest: int | None
    """This and the next are None for a class without a region."""
    tenth: int | None
    """A tenth of the regions are not larger."""
    median: int | None
    ninetieth: int | None
    largest: int | None


@dataclass(frozen=True, kw_only=True)
class ColorStatistics:
    """Mean and standard deviation of each channel over all pixels, as fractions of the full scale."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    """Images looked at, spread evenly over the data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataStatistics:
    """All that is counted of one split."""

    summary: SplitSummary
    co_occurrence: NDArray[np.int64]
    """(K, K) images that hold both classes; the diagonal counts the images of each."""
    regions: tuple[RegionStatistics, ...]
    colors: ColorStatistics

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Returns plain values for JSON; ``names`` are the classes' own."""
        counts = self.summary.to_dict()
        valid = max(1, sum(self.summary.pixels_per_class))
        classes = [
            {
                "name": name,
                "pixels": pixels,
                "share": pixels / valid,
                "images": images,
                "regions": asdict(regions),
            }
            for name, pixels, images, regions in zip(
                names, self.summary.pixels_per_class, self.summary.images_per_class, self.regions, strict=True
            )
        ]
        kept = ("images", "unlabelled", "ignored_pixels", "sizes", "all_ignored", "images_turned", "masks_turned")
        return {
            **{key: counts[key] for key in kept},
            "classes": classes,
            "co_occurrence": self.co_occurrence.tolist(),
            "colors": {"mean": list(self.colors.mean), "std": list(self.colors.std), "images": self.colors.images},
        }


class _Row(NamedTuple):
    counts: TargetCounts
    regions: Counter[tuple[int, int]]
    """(label, size) -> regions."""
    colors: _ColorSums | None


class _ColorSums(NamedTuple):
    """Sums over the pixels of one image, in fractions of the full scale."""

    pixels: int
    values: NDArray[np.float64]
    squares: NDArray[np.float64]


def describe_data(
    dataset: SegmentationDataset,
    *,
    color_images: int = MOST_COLOR_IMAGES,
    on_image: Callable[[int], None] | None = None,
) -> DataStatistics:
    """Reads every mask once, and the pixels of up to ``color_images`` images, with one thread per core.

    Args:
        dataset: The split.
        color_images: Images whose colours are counted, at least 1, spread evenly.
        on_image: Called with the number of images done.

    Raises:
        DataError: the first file, in the order of the data set, that cannot be used.
    """
    count = len(dataset)
    looked_at = set(np.linspace(0, count - 1, min(max(1, color_images), count)).round().astype(int).tolist())
    counter = SplitCounter(dataset.labels)
    sizes: list[Counter[int]] = [Counter() for _ in range(dataset.labels.num_classes)]
    colors: list[_ColorSums] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = pool.map(lambda index: _row(dataset, index, with_colors=index in looked_at), range(count))
        for done, row in enumerate(rows, start=1):
            counter.add(row.counts)
            for (label, size), number in row.regions.items():
                sizes[label][size] += number
            if row.colors is not None:
                colors.append(row.colors)
            if on_image is not None:
                on_image(done)
    summary = counter.summary()
    presence = summary.class_presence.astype(np.int64)
    return DataStatistics(
        summary=summary,
        co_occurrence=presence.T @ presence,
        regions=tuple(_region_statistics(counts) for counts in sizes),
        colors=_color_statistics(colors),
    )


def _row(dataset: SegmentationDataset, index: int, *, with_colors: bool) -> _Row:
    target = dataset.read_target(index)
    regions: Counter[tuple[int, int]] = Counter()
    if target.pixels is not None:
        found = label_regions(target.pixels)
        real = found.labels != dataset.labels.ignore_index
        regions.update(zip(found.labels[real].tolist(), found.sizes[real].tolist(), strict=True))
    item = dataset.items[index]
    return _Row(
        counts=count_target(item.name, target),
        regions=regions,
        colors=_color_sums(dataset, index) if with_colors else None,
    )


def _color_sums(dataset: SegmentationDataset, index: int) -> _ColorSums:
    source = dataset.items[index].image
    image = to_channels(read_image(source, max_pixels=dataset.max_pixels), dataset.in_channels, source=str(source))
    scale = FULL_SCALE[image.dtype]
    values = [np.bincount(channel.reshape(-1).numpy()) for channel in image]
    levels = [np.arange(len(counts)) / scale for counts in values]
    sums = [float(counts @ level) for counts, level in zip(values, levels, strict=True)]
    squares = [float(counts @ level**2) for counts, level in zip(values, levels, strict=True)]
    return _ColorSums(image[0].numel(), np.array(sums), np.array(squares))


def _color_statistics(sums: list[_ColorSums]) -> ColorStatistics:
    pixels = max(1, sum(row.pixels for row in sums))
    mean = np.sum([row.values for row in sums], axis=0) / pixels
    variance = np.sum([row.squares for row in sums], axis=0) / pixels - mean**2
    return ColorStatistics(
        mean=tuple(mean.tolist()), std=tuple(np.sqrt(np.maximum(variance, 0)).tolist()), images=len(sums)
    )


def _region_statistics(counts: Mapping[int, int]) -> RegionStatistics:
    """Quantiles of sizes that are counted: the smallest size that so many of the regions do not exceed."""
    if not counts:
        return RegionStatistics(regions=0, smallest=None, tenth=None, median=None, ninetieth=None, largest=None)
    sizes = np.array(sorted(counts))
    below = np.cumsum([counts[size] for size in sizes.tolist()])
    tenth, median, ninetieth = (int(sizes[np.searchsorted(below, share * below[-1])]) for share in _QUANTILES)
    return RegionStatistics(
        regions=int(below[-1]),
        smallest=int(sizes[0]),
        tenth=tenth,
        median=median,
        ninetieth=ninetieth,
        largest=int(sizes[-1]),
    )
