"""Intervals and the paired test: equal to plain loops, right on hand-made cases, and said in words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perpixel.errors import InvalidValue
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.image_counts import image_counts, scores_of_counts
from perpixel.metrics.resampling import bootstrap
from perpixel.metrics.scores import scores
from perpixel.metrics.statistics import (
    difference_intervals,
    intervals,
    mean_intervals,
    paired_test,
    ratio_intervals,
)

K = 3


def made_confusions(images=8, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(images):
        target = rng.integers(0, K, 40)
        prediction = np.where(rng.random(40) < rng.uniform(0.4, 0.9), target, rng.integers(0, K, 40))
        found.append(confusion_matrix(prediction, target, K))
    return found


def made_counts(images=8, seed=0):
    return np.stack([image_counts(confusion) for confusion in made_confusions(images, seed)])


def improved(counts, by=1):
    """The same truth, with ``by`` more pixels of class 0 right in each image."""
    better = counts.copy()
    better[:, 0, 0] += by
    better[:, 0, 2] += by
    better[:, 1, 2] -= by
    return better


# Counts


def test_scores_of_counts_equal_scores_of_the_confusion() -> None:
    for confusion in [*made_confusions(), np.array([[3, 0, 0], [0, 0, 0], [1, 0, 0]])]:
        expected, ours = scores(confusion), scores_of_counts(image_counts(confusion))
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_dice"):
            assert float(ours[name]) == pytest.approx(expected[name], abs=1e-15)
        for name in ("iou", "accuracy", "precision", "dice"):
            np.testing.assert_allclose(ours[name], [row[name] for row in expected["per_class"]], rtol=1e-15)


def test_image_counts_unpredicted_pixels_are_in_the_truth_alone() -> None:
    assert image_counts(np.array([[2, 1], [0, 3]]), np.array([4, 0])).tolist() == [[2, 7, 2], [3, 3, 4]]


def test_scores_of_counts_nothing_at_all_is_undefined() -> None:
    values = scores_of_counts(np.zeros((K, 3), dtype=np.int64))
    assert all(np.isnan(value).all() for value in values.values())


def test_scores_of_counts_other_shape_refused() -> None:
    with pytest.raises(InvalidValue, match=r"right, true and predicted pixels, got shape \(3, 2\)"):
        scores_of_counts(np.zeros((3, 2)))


# Bootstrap


def test_bootstrap_equals_a_loop_over_drawn_data_sets() -> None:
    counts = made_counts()
    drawn = bootstrap(counts, scores_of_counts, resamples=20, seed=3)["mean_iou"]
    weights = np.random.default_rng(3).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), 20)
    for row, value in zip(weights, drawn, strict=True):
        chosen = np.repeat(made_confusions(), row, axis=0)
        assert value == pytest.approx(scores(chosen.sum(axis=0))["mean_iou"], abs=1e-12)


def test_bootstrap_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(made_counts(), scores_of_counts, resamples=30)["iou"]
    monkeypatch.setattr("perpixel.metrics.resampling._BLOCK_VALUES", 72)
    np.testing.assert_array_equal(bootstrap(made_counts(), scores_of_counts, resamples=30)["iou"], whole)


def test_intervals_hold_the_score_and_narrow_with_more_images() -> None:
    few, many = intervals(made_counts(8)).summary["mean_iou"], intervals(made_counts(200)).summary["mean_iou"]
    for span in (few, many):
        assert 0 <= span.low < span.value < span.high <= 1
    assert many.high - many.low < few.high - few.low


def test_intervals_equal_images_have_no_width() -> None:
    found = intervals(np.repeat(made_counts(1), 5, axis=0))
    span = found.summary["pixel_accuracy"]
    assert (span.low, span.high) == pytest.approx((span.value, span.value))


def test_intervals_absent_class_is_undefined_and_left_out_of_the_mean() -> None:
    counts = made_counts()
    counts[:, 2] = 0
    found = intervals(counts, resamples=50)
    assert all(math.isnan(end) for end in (found.classes["iou"][2].low, found.classes["iou"][2].value))
    two = intervals(counts[:, :2], resamples=50)
    assert found.summary["mean_iou"] == two.summary["mean_iou"]


def test_intervals_one_image_says_nothing_about_others() -> None:
    span = intervals(made_counts(1)).summary["mean_iou"]
    assert math.isnan(span.low)
    assert not math.isnan(span.value)


def test_intervals_permuted_classes_permute_the_scores() -> None:
    order = [2, 0, 1]
    one, other = intervals(made_counts(), resamples=40), intervals(made_counts()[:, order], resamples=40)
    assert [one.classes["iou"][k] for k in order] == other.classes["iou"]
    assert one.summary["mean_iou"].low == pytest.approx(other.summary["mean_iou"].low, abs=1e-12)


def test_mean_intervals_undefined_values_are_left_out() -> None:
    values = np.array([[0.2, np.nan], [0.4, np.nan], [np.nan, np.nan], [0.6, np.nan]])
    first, second = mean_intervals(values, resamples=200)
    assert first.value == pytest.approx(0.4)
    assert 0.2 <= first.low < 0.4 < first.high <= 0.6
    assert math.isnan(second.value)
    assert math.isnan(second.low)


def test_ratio_intervals_divide_sums() -> None:
    counts = np.array([[[1, 2], [0, 0]], [[3, 6], [0, 0]]])
    mean, (first, second) = ratio_intervals(counts)
    assert (first.value, first.low, first.high) == (0.5, 0.5, 0.5)
    assert math.isnan(second.value)
    assert mean.value == 0.5


# Paired test


def test_paired_test_steady_gain_is_beyond_chance() -> None:
    counts = made_counts(20)
    found = paired_test(improved(counts, 2), counts)
    assert found.beyond_chance
    assert found.low > 0
    assert found.difference == pytest.approx(found.first - found.second)
    assert found.words.startswith(f"+{100 * found.difference:.2f} points of mean IoU is more than what chance does")
    assert "these 20 images" in found.words


def test_paired_test_mirrored_sides_give_the_mirrored_answer() -> None:
    counts = made_counts(9)
    better = improved(counts)
    one, other = paired_test(better, counts), paired_test(counts, better)
    assert other.difference == -one.difference
    assert other.p_value == one.p_value
    assert other.low == pytest.approx(-one.high, abs=1e-12)
    assert other.words.startswith("−")


def test_paired_test_noise_is_within_chance() -> None:
    counts = made_counts(12)
    noisy = counts.copy()
    noisy[::2] = improved(counts, 3)[::2]
    noisy[1::2] = improved(counts, -2)[1::2]
    found = paired_test(noisy, counts)
    assert not found.beyond_chance
    assert "is within what chance does between these 12 images" in found.words


def test_paired_test_few_images_tries_all_swaps_as_a_loop_does() -> None:
    first, second = made_counts(5, seed=1), made_counts(5, seed=0)
    first[..., 1], first[..., 2] = second[..., 1], second[..., 2]
    first[..., 0] = np.minimum(first[..., 0], second[..., 1])
    found = paired_test(first, second, score="pixel_accuracy")
    assert found.draws == 32
    reached = 0
    for swap in range(32):
        turned = np.array([swap >> i & 1 for i in range(5)], dtype=bool)[:, None, None]
        ours, theirs = np.where(turned, second, first), np.where(turned, first, second)
        accuracy = [side[..., 0].sum() / side[..., 1].sum() for side in (ours, theirs)]
        reached += abs(accuracy[0] - accuracy[1]) >= abs(found.difference) - 1e-12
    assert found.p_value == reached / 32


def test_paired_test_too_few_images_says_how_many_are_needed() -> None:
    counts = made_counts(4)
    found = paired_test(improved(counts), counts)
    assert not found.beyond_chance
    assert "p would be 0.125; score at least 6 images" in found.words


def test_paired_test_equal_sides_and_undefined_ones_are_said() -> None:
    counts = made_counts(7)
    assert paired_test(counts, counts).words.startswith("both have the same mean IoU, ")
    nothing = np.zeros_like(counts)
    assert "one side is undefined" in paired_test(nothing, nothing).words


def test_paired_test_of_one_class_names_it() -> None:
    counts = made_counts(10)
    found = paired_test(improved(counts), counts, score="iou", class_index=0, names=["sky", "b", "c"])
    assert found.score == "iou of sky"
    assert found.difference > 0


def test_paired_test_many_images_finds_the_smallest_p() -> None:
    counts = made_counts(1100)
    assert paired_test(improved(counts), counts, resamples=99).p_value == 1 / 100


def test_difference_intervals_are_of_each_class() -> None:
    counts = made_counts(10)
    first, second, third = difference_intervals(improved(counts), counts)
    assert first.low > 0
    assert third.value == third.low == third.high == 0
    assert second.value > 0  # fewer pixels are predicted as it


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda c: c[:-1], {}, "both sides need the same images and classes"),
        (
            lambda c: c + np.array([0, 1, 0]),
            {},
            "8 images have other true pixels on the two sides",
        ),
        (lambda c: c[..., :2], {}, r"second counts are \(N, K, 3\)"),
        (lambda c: c, {"score": "mean_iuo"}, "no score 'mean_iuo'; did you mean 'mean_iou'"),
        (lambda c: c, {"score": "iou"}, "score 'iou' with class_index None"),
        (lambda c: c, {"score": "iou", "class_index": 3}, r"class_index 3 is outside 0\.\.2"),
        (lambda c: c, {"resamples": 0}, "resamples must be at least 1, got 0"),
        (lambda c: c, {"confidence": 1.5}, r"confidence is a share in \(0, 1\), such as 0\.95, got 1\.5"),
    ],
)
def test_paired_test_bad_arguments_refused(change, options, message) -> None:
    counts = made_counts()
    with pytest.raises(InvalidValue, match=message):
        paired_test(counts, change(counts), **options)


def test_intervals_bad_arguments_refused() -> None:
    with pytest.raises(InvalidValue, match="there are no images to resample"):
        intervals(np.zeros((0, K, 3), dtype=np.int64))
    with pytest.raises(InvalidValue, match=r"values per image are \(N, K\), got shape \(4,\)"):
        mean_intervals(np.zeros(4))
    with pytest.raises(InvalidValue, match=r"counts of a ratio are \(N, K, 2\)"):
        ratio_intervals(np.zeros((2, K, 3), dtype=np.int64))
    with pytest.raises(InvalidValue, match="no score 'mean_iou' of one class"):
        difference_intervals(made_counts(), made_counts(), score="mean_iou")
