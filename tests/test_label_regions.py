"""Regions by runs are those of a flood fill per class."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from perpixel.errors import InvalidValue
from perpixel.label_regions import label_regions


def plainly(labels: NDArray[Any], connectivity: int) -> Counter[tuple[int, int]]:
    """(label, size) of every region, class by class."""
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    found: Counter[tuple[int, int]] = Counter()
    for value in np.unique(labels):
        components, count = ndimage.label(labels == value, structure)
        found.update((int(value), int((components == k + 1).sum())) for k in range(count))
    return found


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 5), (16, 24)])
def test_label_regions_of_random_maps_equal_flood_fill(size: tuple[int, int], connectivity: Literal[4, 8]) -> None:
    for seed in range(8):
        labels = np.random.default_rng(seed).integers(0, 3, size, dtype=np.uint8)
        regions = label_regions(labels, connectivity=connectivity)
        assert Counter(zip(regions.labels.tolist(), regions.sizes.tolist(), strict=True)) == plainly(
            labels, connectivity
        )


def test_label_regions_runs_lead_back_to_every_pixel() -> None:
    labels = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 2]], np.uint8)
    regions = label_regions(labels, connectivity=4)
    assert sorted(zip(regions.labels.tolist(), regions.sizes.tolist(), strict=True)) == [
        (0, 1),
        (0, 4),
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    lengths = np.diff(regions.starts, append=labels.size)
    assert np.array_equal(np.repeat(regions.labels[regions.region], lengths), labels.reshape(-1))


def test_label_regions_of_empty_map_are_none() -> None:
    assert label_regions(np.zeros((0, 4), np.uint8)).sizes.size == 0


def test_label_regions_of_another_shape_or_connectivity_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"labels are \(H, W\), got \(4,\)"):
        label_regions(np.zeros(4, np.uint8))
    with pytest.raises(InvalidValue, match="connectivity is 4 or 8, got 6"):
        label_regions(np.zeros((2, 2), np.uint8), connectivity=6)  # type: ignore[arg-type]
