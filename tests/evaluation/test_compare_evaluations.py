"""compare_evaluations: tests, classes and images of two sides, matched by name."""

from __future__ import annotations

import numpy as np
import pytest

from perpixel.build.score_values import comparison_values
from perpixel.errors import DataError
from perpixel.evaluation import Evaluation, Measures, Totals, compare_evaluations
from perpixel.evaluation.pixel_measures import measure
from perpixel.labels import LabelSpace

K = 3


def evaluation(wrong, images=8, skip=(), void=()):
    """Images of random targets, ``wrong(index)`` pixels of each mispredicted; those in ``void`` are ignored."""
    rng = np.random.default_rng(0)
    totals = Totals(K, Measures())
    for index in range(images):
        target = rng.integers(0, K, (6, 6)).astype(np.uint8)
        prediction = target.copy()
        prediction.reshape(-1)[: wrong(index)] = (prediction.reshape(-1)[: wrong(index)] + 1) % K
        if index in void:
            target[:] = 255
        if index not in skip:
            totals.add(measure(prediction, target, K, Measures(), index=index, name=f"image {index}"))
    return Evaluation(totals=totals, seconds=0)


def test_compare_evaluations_steady_gain_is_beyond_chance_and_sorted_by_change() -> None:
    found = compare_evaluations(evaluation(lambda i: 2), evaluation(lambda i: 6 + i))
    assert found.tests[0].score == "mean_iou"
    assert all(test.beyond_chance for test in found.tests)
    assert [image.name for image in found.images] == [f"image {i}" for i in reversed(range(8))]
    changes = [image.change for image in found.images]
    assert changes == sorted(changes, reverse=True)
    assert all(span.value > 0 for span in found.class_iou)


def test_compare_evaluations_images_of_one_side_are_left_out_and_named() -> None:
    found = compare_evaluations(evaluation(lambda i: 3, skip=(2,)), evaluation(lambda i: 3, skip=(5,)))
    assert found.left_out == ("image 2", "image 5")
    assert len(found.images) == 6


def test_compare_evaluations_void_images_are_counted_not_compared() -> None:
    one, other = (evaluation(lambda i, n=n: n, void=(0,)) for n in (2, 4))
    found = compare_evaluations(one, other)
    assert found.undefined == 1
    assert "image 0" not in {image.name for image in found.images}


def test_compare_evaluations_without_common_images_refused() -> None:
    with pytest.raises(DataError, match="no common image, so there is nothing to compare"):
        compare_evaluations(evaluation(lambda i: 1, 2, skip=(0,)), evaluation(lambda i: 1, 2, skip=(1,)))


def test_comparison_values_hold_the_words_and_strict_json() -> None:
    labels = LabelSpace.numbered(K)
    found = compare_evaluations(evaluation(lambda i: 2), evaluation(lambda i: 6 + i))
    values = comparison_values(found, labels)
    assert values["tests"][0]["words"].startswith("+")
    assert values["tests"][0]["interval"][0] > 0
    assert [row["name"] for row in values["per_class"]] == list(labels.names)
    assert values["images"][0]["change"] == pytest.approx(found.images[0].first - found.images[0].second)
