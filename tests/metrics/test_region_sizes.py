"""Recall by region size: hand-worked maps, plain loops, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.metrics.region_sizes import region_size_counts, region_size_scores

K = 3


def regions_by_flood_fill(target, connectivity):
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + ([(1, 1), (1, -1), (-1, 1), (-1, -1)] if connectivity == 8 else [])
    seen, found = set(), []
    for start in np.ndindex(target.shape):
        if start in seen or target[start] == 255:
            continue
        region, todo = [], [start]
        seen.add(start)
        while todo:
            row, column = todo.pop()
            region.append((row, column))
            for down, right in steps:
                place = (row + down, column + right)
                inside = 0 <= place[0] < target.shape[0] and 0 <= place[1] < target.shape[1]
                if inside and place not in seen and target[place] == target[start]:
                    seen.add(place)
                    todo.append(place)
        found.append((int(target[start]), region))
    return found


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_region_size_counts_any_map_equals_flood_fill(seed, connectivity):
    rng = np.random.default_rng(seed)
    target = rng.choice([0, 0, 1, 2, 255], (9, 11)).astype(np.uint8)
    prediction = rng.integers(0, K, target.shape).astype(np.uint8)
    wanted = np.zeros((K, 3, 3), dtype=np.int64)
    for label, region in regions_by_flood_fill(target, connectivity):
        size_class = (len(region) >= 3) + (len(region) >= 8)
        recalled = sum(int(prediction[place] == label) for place in region)
        wanted[label, size_class] += (1, len(region), recalled)
    counts = region_size_counts(prediction, target, K, thresholds=(3, 8), connectivity=connectivity)
    np.testing.assert_array_equal(counts, wanted)


def test_region_size_counts_corner_joins_by_eight_only():
    target = np.array([[1, 0], [0, 1]], np.uint8)
    four, eight = (
        region_size_counts(target, target, 2, thresholds=(2,), connectivity=connectivity) for connectivity in (4, 8)
    )
    assert four[1].tolist() == [[2, 2, 2], [0, 0, 0]]
    assert eight[1].tolist() == [[0, 0, 0], [1, 2, 2]]


def test_region_size_counts_size_on_the_threshold_is_the_larger_class():
    target = np.zeros((1, 32 * 32), np.uint8)
    assert region_size_counts(target, target, 1)[0].tolist() == [[0, 0, 0], [1, 1024, 1024], [0, 0, 0]]
    assert region_size_counts(target[:, 1:], target[:, 1:], 1)[0, 0].tolist() == [1, 1023, 1023]


def test_region_size_counts_ignored_pixels_part_a_region():
    target = np.array([[1, 255, 1]], np.uint8)
    assert region_size_counts(np.array([[1, 9, 0]], np.uint8), target, 2, thresholds=())[1].tolist() == [[2, 2, 1]]


def test_region_size_scores_hand_worked_over_two_images():
    """Class 1: small regions of 1 and 1 pixels, one found; a large one of 4, three found."""
    images = [([[1, 0, 0, 0]], [[1, 0, 1, 0]]), ([[1, 1, 1, 0]], [[1, 1, 1, 1]])]
    counts = sum(region_size_counts(np.array(p), np.array(t), 2, thresholds=(2,)) for p, t in images)
    got = region_size_scores(counts, ["ground", "thing"], thresholds=(2,))
    thing = got["per_class"][1]
    assert thing["name"] == "thing"
    small, large = thing["bins"]
    assert (small["name"], small["regions"], small["pixels"], small["recalled"], small["recall"]) == (
        "small",
        2,
        2,
        1,
        0.5,
    )
    assert (large["from_pixels"], large["to_pixels"], large["recall"]) == (2, None, 0.75)
    assert [part["regions"] for part in got["bins"]] == [4, 1]
    assert math.isnan(got["per_class"][0]["bins"][1]["recall"])


def test_region_size_scores_names_follow_the_number_of_sizes():
    for thresholds, names in (((), ["all"]), ((4, 9), ["small", "medium", "large"]), ((1, 2, 3), ["size 1", "size 2"])):
        counts = region_size_counts(np.zeros((2, 2), int), np.zeros((2, 2), int), 1, thresholds=thresholds)
        got = [part["name"] for part in region_size_scores(counts, thresholds=thresholds)["bins"]]
        assert got[: len(names)] == names


def test_region_size_counts_mirrored_maps_count_the_same():
    rng = np.random.default_rng(9)
    target, prediction = (rng.integers(0, K, (7, 8)).astype(np.uint8) for _ in range(2))
    plain = region_size_counts(prediction, target, K, thresholds=(4,))
    np.testing.assert_array_equal(plain, region_size_counts(prediction[::-1], target[::-1], K, thresholds=(4,)))


@pytest.mark.parametrize("num_classes", [255, 256, 300])
def test_region_size_counts_more_classes_than_a_byte_leaves_room_for_are_counted(num_classes):
    target = np.array([[0, 0, 255, 1], [44, 44, 255, 44]], np.uint8)
    counts = region_size_counts(target, target, num_classes, thresholds=())
    assert counts[[0, 1, 44], 0].tolist() == [[1, 2, 2], [1, 1, 1], [2, 3, 3]]
    assert counts.sum() == 4 + 6 + 6


def test_region_size_counts_tensors_equal_arrays():
    target, prediction = np.array([[1, 1, 0, 2]]), np.array([[1, 0, 0, 2]])
    tensors = (torch.from_numpy(labels) for labels in (prediction, target))
    np.testing.assert_array_equal(region_size_counts(*tensors, K), region_size_counts(prediction, target, K))


@pytest.mark.parametrize("thresholds", [(0,), (5, 5), (9, 4)])
def test_region_size_counts_thresholds_that_do_not_rise_refused(thresholds):
    with pytest.raises(InvalidValue, match="at least 1 and rising"):
        region_size_counts(np.zeros((2, 2), int), np.zeros((2, 2), int), 1, thresholds=thresholds)


def test_region_size_counts_bad_arguments_refused():
    zeros = np.zeros((2, 2), int)
    with pytest.raises(InvalidValue, match="connectivity is 4 or 8, got 6"):
        region_size_counts(zeros, zeros, 1, connectivity=6)
    with pytest.raises(InvalidValue, match=r"prediction \(2, 2\) and target \(2, 1\)"):
        region_size_counts(zeros, zeros[:, :1], 1)
    with pytest.raises(InvalidValue, match="prediction holds 3 on 4 valid pixels"):
        region_size_counts(zeros + 3, zeros, 1)
    with pytest.raises(InvalidValue, match="prediction must hold integer class ids, got float64"):
        region_size_counts(zeros + 0.5, zeros, 1)


def test_region_size_scores_counts_that_do_not_fit_refused():
    counts = np.zeros((2, 3, 3), np.int64)
    with pytest.raises(InvalidValue, match=r"shape \(2, 3, 3\) do not fit thresholds \(4,\)"):
        region_size_scores(counts, thresholds=(4,))
    with pytest.raises(InvalidValue, match="1 class names for counts of 2 classes"):
        region_size_scores(counts, ["a"])
