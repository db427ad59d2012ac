"""Class weights against hand-worked figures of each formula."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from perpixel.data.class_weighting import ClassWeighting, class_weights
from perpixel.data.summary import SplitSummary
from perpixel.errors import DataError, InvalidValue

METHODS = get_args(ClassWeighting)


def counts(pixels: list[int], of_images: list[int] | None = None, images: list[int] | None = None) -> SplitSummary:
    return SplitSummary(
        images=4,
        unlabelled=0,
        pixels_per_class=tuple(pixels),
        images_per_class=tuple(images or (int(p > 0) for p in pixels)),
        pixels_of_images_with_class=tuple(of_images or pixels),
        ignored_pixels=0,
        sizes={(2, 2): 4},
        all_ignored=(),
        images_turned=(),
        masks_turned=(),
        class_presence=np.ones((4, len(pixels)), dtype=bool),
    )


def test_class_weights_follow_the_formulas() -> None:
    summary = counts([10, 20, 80], [40, 40, 160], [1, 1, 4])
    assert class_weights(summary, "median_frequency") == pytest.approx((2, 1, 0.25))
    assert class_weights(summary, "median_frequency_eigen") == pytest.approx((2, 1, 1))
    assert class_weights(summary, "sqrt_median_frequency") == pytest.approx((2**0.5, 1, 0.5))
    assert class_weights(summary, "median_frequency", max_weight=1.5) == pytest.approx((1.5, 1, 0.25))
    assert class_weights(summary, "inverse_frequency") == pytest.approx((11 / 3, 11 / 6, 11 / 24))
    enet = [1 / math.log(1.02 + share) for share in (1 / 11, 2 / 11, 8 / 11)]
    assert class_weights(summary, "enet") == pytest.approx(enet)
    four = 0.001 / (1 - 0.999**4)
    mean = (2 + four) / 3
    assert class_weights(summary, "effective_number") == pytest.approx((1 / mean, 1 / mean, four / mean))


@pytest.mark.parametrize("method", METHODS)
def test_class_weights_absent_class_weighs_one_and_moves_no_other(method: ClassWeighting) -> None:
    weights = class_weights(counts([10, 0, 20, 80]), method)
    without = class_weights(counts([10, 20, 80]), method)
    assert weights == pytest.approx((without[0], 1, *without[1:]))


@pytest.mark.parametrize("method", METHODS)
def test_class_weights_of_permuted_classes_are_permuted(method: ClassWeighting) -> None:
    forward = class_weights(counts([10, 20, 80], [30, 60, 90], [3, 2, 4]), method)
    backward = class_weights(counts([80, 20, 10], [90, 60, 30], [4, 2, 3]), method)
    assert forward == pytest.approx(backward[::-1])


def test_class_weights_inverse_frequency_of_equal_classes_is_one() -> None:
    assert class_weights(counts([7, 7, 7]), "inverse_frequency") == pytest.approx((1, 1, 1))


def test_class_weights_bad_arguments_raise() -> None:
    with pytest.raises(InvalidValue, match="class weights by 'inverse' are not known; one of"):
        class_weights(counts([1]), "inverse")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="max_weight must be positive, got 0"):
        class_weights(counts([1]), "median_frequency", max_weight=0)
    with pytest.raises(DataError, match="class weights need a split with labelled pixels"):
        class_weights(counts([0, 0]), "median_frequency")
