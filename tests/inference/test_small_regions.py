"""Small regions: worked by hand, against a plain twin, and what must hold for every label map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from perpixel.errors import InvalidValue
from perpixel.inference.small_regions import remove_small_regions

IGNORE = 255


def noisy_map(seed: int, *, classes: int = 4, size: tuple[int, int] = (9, 12), ignored: bool = True) -> NDArray[Any]:
    """Blobs with noise: regions of all sizes."""
    random = np.random.default_rng(seed)
    smooth = ndimage.uniform_filter(random.random((classes, *size)), (0, 3, 3)).argmax(0)
    labels = np.where(random.random(size) < 0.2, random.integers(0, classes, size), smooth).astype(np.uint8)
    if ignored:
        labels[random.random(size) < 0.05] = IGNORE
    return labels


def plain_removal(
    labels: NDArray[Any], least: int, connectivity: int, scores: NDArray[Any] | None = None
) -> tuple[NDArray[Any], bool]:
    """The definition, region by region with everything counted anew; tells whether a tie had to be broken."""
    labels, tied = labels.copy(), False
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    while True:
        candidates = []
        for value in set(labels.ravel().tolist()) - {IGNORE}:
            regions, count = ndimage.label(labels == value, structure)
            for index in range(1, count + 1):
                mask = regions == index
                outside = ndimage.binary_dilation(mask, structure) & ~mask & (labels != IGNORE)
                if mask.sum() < least and outside.any():
                    candidates.append((int(mask.sum()), int(np.flatnonzero(mask)[0]), mask, outside))
        if not candidates:
            return labels, tied
        _, _, mask, outside = min(candidates, key=lambda c: c[:2])
        votes = {int(v): float((labels[outside] == v).sum()) for v in set(labels[outside].tolist())}
        if scores is not None:
            votes = {v: float(scores[v][mask].sum()) for v in votes}
        best = max(votes.values())
        tied |= list(votes.values()).count(best) > 1
        labels[mask] = min(v for v, vote in votes.items() if vote == best)


def test_small_region_takes_the_most_frequent_class_that_touches_it() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 2, 1, 1], [0, 1, 1, 1]], np.uint8)
    # The 2 touches 0 above and left, 1 right and below: a tie, which goes to the lower class.
    assert remove_small_regions(labels, 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    # By corners too it touches 0 three times and, with one more 1, 1 five times.
    labels[2, 0] = 1
    assert remove_small_regions(labels, 2, connectivity=8).tolist() == [[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


def test_border_pixel_that_touches_twice_counts_once() -> None:
    labels = np.array([[2, 2, 1, 1, 1], [2, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], np.uint8)
    # The three 2s are touched by two 1s and by one 0 from two sides, which would tie if it counted twice.
    expected = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert remove_small_regions(labels, 4).tolist() == expected


def test_smallest_region_goes_first_and_may_save_a_neighbour() -> None:
    labels = np.array([[0, 0, 0, 1, 1, 2, 3, 3, 3]], np.uint8)
    # The single 2 melts into the 1s, which then are three pixels and stay.
    assert remove_small_regions(labels, 3).tolist() == [[0, 0, 0, 1, 1, 1, 3, 3, 3]]


def test_scores_choose_among_the_classes_that_touch() -> None:
    labels = np.array([[0, 0, 1, 2, 2]], np.uint8)
    scores = np.zeros((4, 1, 5))
    scores[:, 0, 2] = [0.1, 0.4, 0.2, 0.3]
    assert remove_small_regions(labels, 2, scores=scores).tolist() == [[0, 0, 2, 2, 2]]  # class 3 touches nowhere
    assert remove_small_regions(labels, 2).tolist() == [[0, 0, 0, 2, 2]]


def test_ignored_pixels_have_no_say_and_stay() -> None:
    labels = np.array([[255, 255, 255, 1], [255, 3, 255, 1], [255, 255, 2, 1]], np.uint8)
    expected = np.array([[255, 255, 255, 1], [255, 3, 255, 1], [255, 255, 1, 1]], np.uint8)
    assert np.array_equal(remove_small_regions(labels, 2), expected)


def test_corners_join_regions_only_with_connectivity_8() -> None:
    labels = np.zeros((4, 4), np.uint8)
    labels[1, 1] = labels[2, 2] = 1
    assert not remove_small_regions(labels, 2, connectivity=4).any()
    assert np.array_equal(remove_small_regions(labels, 2, connectivity=8), labels)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("with_scores", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_regions_equal_the_plain_twin(seed: int, connectivity: Any, with_scores: bool) -> None:
    labels = noisy_map(seed)
    scores = np.random.default_rng(seed).random((4, *labels.shape)) if with_scores else None
    for least in (2, 4, 9, 1000):
        expected, _ = plain_removal(labels, least, connectivity, scores)
        assert np.array_equal(
            remove_small_regions(labels, least, connectivity=connectivity, scores=scores), expected
        ), least


@pytest.mark.parametrize("connectivity", [4, 8])
def test_removal_is_idempotent_and_of_size_1_changes_nothing(connectivity: Any) -> None:
    changed = 0
    for seed in range(8):
        labels = noisy_map(seed)
        once = remove_small_regions(labels, 6, connectivity=connectivity)
        changed += int((once != labels).any())
        assert np.array_equal(remove_small_regions(once, 6, connectivity=connectivity), once)
        assert np.array_equal(remove_small_regions(labels, 1, connectivity=connectivity), labels)
        assert np.array_equal(once == IGNORE, labels == IGNORE)
    assert changed == 8


def test_permuted_classes_give_permuted_regions_where_nothing_is_tied() -> None:
    checked = 0
    for seed in range(12):
        labels = noisy_map(seed, size=(9, 9))
        scores = np.random.default_rng(seed).random((4, 9, 9))
        order = np.random.default_rng(seed).permutation(4).astype(np.uint8)
        table = np.concatenate([order, np.full(252, IGNORE, np.uint8)])
        moved = np.empty_like(scores)
        moved[order] = scores
        by_scores = remove_small_regions(labels, 3, scores=scores)
        assert np.array_equal(remove_small_regions(table[labels], 3, scores=moved), table[by_scores])
        if not plain_removal(labels, 2, 4)[1]:
            checked += 1
            assert np.array_equal(remove_small_regions(table[labels], 2), table[remove_small_regions(labels, 2)])
    assert checked


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_type_and_input_are_kept(dtype: Any) -> None:
    labels = noisy_map(1).astype(dtype)
    before = labels.copy()
    assert remove_small_regions(labels, 5).dtype == dtype
    assert np.array_equal(labels, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((2, 2, 2), np.uint8)}, r"labels are whole numbers \(H, W\), got \(2, 2, 2\)"),
        ({"labels": np.zeros((2, 2))}, "got .* float64"),
        ({"labels": np.full((2, 2), -1)}, "labels are class numbers >= 0, got -1"),
        ({"min_pixels": 0}, "min_pixels is at least 1, got 0"),
        ({"connectivity": 6}, "connectivity is 4 or 8, got 6"),
        ({"ignore_index": -1}, "ignore_index is a label >= 0, got -1"),
        ({"scores": np.zeros((3, 2, 3))}, r"scores are floats \(K, H, W\) of labels \(2, 2\), got \(3, 2, 3\)"),
        ({"scores": np.zeros((1, 2, 2))}, "label 1 has no scores; they are of 1 classes"),
        ({"scores": np.full((2, 2, 2), np.nan)}, "8 scores are not finite"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"labels": np.array([[0, 1], [1, 1]], np.uint8), "min_pixels": 2, **changes}
    with pytest.raises(InvalidValue, match=message):
        remove_small_regions(given.pop("labels"), given.pop("min_pixels"), **given)
