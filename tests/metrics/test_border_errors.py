"""Border errors against plain loops over all pairs of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perpixel.errors import InvalidValue
from perpixel.metrics import border_error_counts

K = 3


def counted_by_loops(prediction, target, width_px):
    height, width = target.shape
    border = [
        (row, column)
        for row in range(height)
        for column in range(width)
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= row + down < height
        and 0 <= column + right < width
        and target[row, column] != 255
        and target[row + down, column + right] not in (255, target[row, column])
    ]
    counts = np.zeros((K, 4), dtype=np.int64)
    for row, column in np.ndindex(height, width):
        truth = target[row, column]
        if truth == 255:
            continue
        near = any(math.hypot(row - r, column - c) <= width_px for r, c in border)
        counts[truth, 2 if near else 3] += 1
        if prediction[row, column] != truth:
            counts[truth, 0 if near else 1] += 1
    return counts


@given(
    hnp.arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 0, 0, 1, 2, 255])),
    hnp.arrays(np.uint8, (7, 9), elements=st.integers(0, K - 1)),
    st.sampled_from([0, 1, 1.5, 2, 5]),
)
@settings(max_examples=40, deadline=None)
def test_border_error_counts_any_labels_equal_loops(target, prediction, width_px):
    counts = border_error_counts(prediction, target, K, width_px=width_px)
    np.testing.assert_array_equal(counts, counted_by_loops(prediction, target, width_px))


def test_border_error_counts_two_halves_split_at_the_width():
    target = np.zeros((4, 10), np.uint8)
    target[:, 5:] = 1
    prediction = 1 - target
    counts = border_error_counts(prediction, target, K, width_px=1)
    assert counts.tolist() == [[8, 12, 8, 12], [8, 12, 8, 12], [0, 0, 0, 0]]


def test_border_error_counts_without_border_is_all_inside():
    target = np.full((3, 3), 1, np.uint8)
    assert border_error_counts(target * 0, target, K, width_px=100).tolist() == [[0] * 4, [0, 9, 0, 9], [0] * 4]


def test_border_error_counts_edge_of_ignored_region_is_no_border():
    target = np.zeros((3, 5), np.uint8)
    target[:, 2] = 255
    assert border_error_counts(target * 0, target, K, width_px=5)[0].tolist() == [0, 0, 0, 12]


def test_border_error_counts_batch_is_the_sum_of_its_images():
    rng = np.random.default_rng(0)
    target = rng.integers(0, K, (3, 8, 8)).astype(np.uint8)
    prediction = rng.integers(0, K, (3, 8, 8)).astype(np.uint8)
    total = sum(border_error_counts(p, t, K, width_px=1) for p, t in zip(prediction, target, strict=True))
    np.testing.assert_array_equal(border_error_counts(prediction, target, K, width_px=1), total)


def test_border_error_counts_tensors_equal_arrays():
    target, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 0]])
    tensors = (torch.from_numpy(labels) for labels in (prediction, target))
    np.testing.assert_array_equal(
        border_error_counts(*tensors, K, width_px=0), border_error_counts(prediction, target, K, width_px=0)
    )


def test_border_error_counts_negative_width_refused():
    with pytest.raises(InvalidValue, match="at least 0, got -1"):
        border_error_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), K, width_px=-1)


def test_border_error_counts_shapes_differ_refused():
    with pytest.raises(InvalidValue, match=r"prediction \(2, 2\) and target \(2, 3\)"):
        border_error_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), K, width_px=1)


def test_border_error_counts_label_out_of_range_refused():
    with pytest.raises(InvalidValue, match="prediction holds 9 on 1 valid pixels"):
        border_error_counts(np.array([[9, 0]], np.uint8), np.zeros((1, 2), np.uint8), K, width_px=1)
