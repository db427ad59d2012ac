"""Runs of a mask: regions against SciPy's labelling, the grid that misses them, and noise by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from perpixel.data.inspection.runs import count_regions, mask_runs, sampled


def plain_regions(ids, rows, columns):
    """One class at a time, one region at a time."""
    counts = {}
    grid = rows[:, None] & columns[None]
    for value in np.unique(ids):
        label, number = ndimage.label(ids == value)
        missed = sum(not (grid & (label == region)).any() for region in range(1, number + 1))
        counts[int(value)] = (number, missed)
    return counts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_count_regions_agrees_with_plain_labelling(seed: int, stride: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    ids = np.repeat(rng.integers(0, 4, shape), 1 + seed % 3, axis=1).astype(np.uint8)
    rows, columns = (sampled(side, max(1, side // stride)) for side in ids.shape)
    assert count_regions(ids, mask_runs(ids), rows, columns) == plain_regions(ids, rows, columns)


def test_sampled_takes_the_centres_of_equal_cells() -> None:
    assert np.flatnonzero(sampled(16, 2)).tolist() == [4, 12]
    assert sampled(5, 5).all()
    assert np.flatnonzero(sampled(3, 1)).tolist() == [1]


def test_noise_counts_runs_inside_rows_single_pixels_and_ids_in_between() -> None:
    row = np.array([[0, 0, 1, 2, 2, 9, 2, 2, 2, 2, 0, 0]], dtype=np.uint8)  # inner runs: 1, 22, 9, 2222
    assert mask_runs(row).noise() == (4, 2, 2)  # single: 1 and 9; between: 1 of 0..2, and 2, 2 of 1..9
    assert mask_runs(np.zeros((3, 4), np.uint8)).noise() == (0, 0, 0)
