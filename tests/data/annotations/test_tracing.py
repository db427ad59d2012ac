"""Outlines of bitmaps: by hand, and filled again they are the bitmap, in our rasteriser and in COCO's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_masks

from perpixel.data.annotations.rasterise import fill_polygon, fill_rings
from perpixel.data.annotations.tracing import outlines, regions, with_holes_joined

# The oracle calls NumPy in a way that NumPy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

bitmaps = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 1))


def test_outlines_of_a_box_are_its_four_corners() -> None:
    bitmap = np.zeros((5, 6), bool)
    bitmap[1:3, 2:5] = True
    ((row, column, region),) = regions(bitmap)
    assert (row, column, region.shape) == (1, 2, (2, 3))
    (ring,) = outlines(region)
    assert sorted(map(tuple, ring.tolist())) == [(0, 0), (0, 2), (3, 0), (3, 2)]


def test_outlines_outer_one_comes_first_and_holes_after_it() -> None:
    region = np.ones((5, 5), bool)
    region[1, 1] = region[2:4, 2:4] = False  # two holes that touch at a corner are one to an 8-connected outside
    rings = outlines(region)
    assert (rings[0].min(), rings[0].max()) == (0, 5)
    assert sum(len(ring) for ring in rings) == 4 + 8


def test_regions_that_touch_at_a_corner_are_two() -> None:
    assert [(row, column) for row, column, _ in regions(np.eye(3))] == [(0, 0), (1, 1), (2, 2)]


def test_with_holes_joined_is_one_ring_with_the_way_back() -> None:
    outer = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    hole = np.array([[1, 1], [1, 2], [2, 2], [2, 1]])
    expected = [[0, 0], [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [0, 0], [4, 0], [4, 4], [0, 4]]
    assert with_holes_joined([outer, hole]).tolist() == expected
    assert with_holes_joined([outer]) is outer


@settings(max_examples=150, deadline=None)
@given(bitmaps)
def test_outlines_filled_again_are_the_bitmap(bitmap: np.ndarray) -> None:
    with_rings, with_one, with_coco = (np.zeros_like(bitmap) for _ in range(3))
    for row, column, region in regions(bitmap):
        rings = [ring + np.array([column, row]) for ring in outlines(region)]
        for ring in rings:
            steps = ring != np.roll(ring, -1, axis=0)
            assert (steps.sum(axis=1) == 1).all(), "an edge is neither horizontal nor vertical"
        fill_rings(with_rings, rings, 1)
        joined = with_holes_joined(rings)
        fill_polygon(with_one, joined, 1)
        runs = coco_masks.frPyObjects([joined.reshape(-1).astype(float).tolist()], *bitmap.shape)
        with_coco |= coco_masks.decode(runs)[..., 0]
    np.testing.assert_array_equal(with_rings, bitmap)
    np.testing.assert_array_equal(with_one, bitmap)
    np.testing.assert_array_equal(with_coco, bitmap)
