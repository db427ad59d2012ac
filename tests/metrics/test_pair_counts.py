"""pair_counts: both ways of counting agree with a loop."""

from __future__ import annotations

import numpy as np
import pytest

from perpixel.metrics.pair_counts import pair_counts


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16, np.uint16])
@pytest.mark.parametrize("noisy", [True, False])
def test_pair_counts_regions_and_noise_equal_a_loop(dtype, noisy) -> None:
    rng = np.random.default_rng(0)
    target, prediction = rng.integers(0, 256, (2, 6, 5)).astype(dtype)
    if not noisy:
        target, prediction = (labels.repeat(4, 0).repeat(7, 1) for labels in (target, prediction))
    expected = np.zeros((256, 256), dtype=np.int64)
    for truth, guess in zip(target.ravel(), prediction.ravel(), strict=True):
        expected[truth, guess] += 1
    np.testing.assert_array_equal(pair_counts(prediction, target), expected)


def test_pair_counts_one_class_and_nothing() -> None:
    assert pair_counts(np.zeros((3, 4), np.uint8), np.full((3, 4), 2, np.uint8))[2, 0] == 12
    assert pair_counts(np.zeros((0,), np.uint8), np.zeros((0,), np.uint8)).sum() == 0


def test_pair_counts_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(1).integers(0, 4, (2, 50)).repeat(5, 1).astype(np.int32)
    whole = pair_counts(*labels)
    monkeypatch.setattr("perpixel.metrics.pair_counts._CHUNK", 32)
    monkeypatch.setattr("perpixel.metrics.pair_counts._CACHED", 7)
    np.testing.assert_array_equal(pair_counts(*labels), whole)


@pytest.mark.parametrize("dtype", [np.int8, np.bool_])
def test_pair_counts_types_that_cannot_hold_255_are_counted(dtype) -> None:
    target, prediction = np.array([1, 0, 1], dtype), np.array([1, 1, 0], dtype)
    assert pair_counts(prediction, target)[:2, :2].tolist() == [[0, 1], [1, 1]]
    if dtype is np.int8:
        assert pair_counts(-prediction, target) is None


@pytest.mark.parametrize("value", [-1, 256, 70_000])
def test_pair_counts_other_values_are_left_to_the_caller(value) -> None:
    labels = np.array([0, 1, value])
    assert pair_counts(labels, np.zeros(3, np.int64)) is None
    assert pair_counts(np.zeros(3, np.int64), labels) is None
