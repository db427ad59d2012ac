"""Scores: the stored reference cases, worked examples, properties, and JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perpixel.errors import InvalidValue
from perpixel.metrics import confusion_matrix, scores, to_json

REFERENCE = Path(__file__).parents[1] / "reference" / "metrics"
EXPECTED = json.loads((REFERENCE / "expected.json").read_text(encoding="utf-8"))

confusions = st.integers(1, 5).flatmap(lambda k: hnp.arrays(np.int64, (k, k), elements=st.integers(0, 50)))


def undefined_as_nan(values):
    return [math.nan if value is None else value for value in values]


@pytest.fixture(scope="module")
def cases():
    with np.load(REFERENCE / "cases.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def label_pair(case, cases):
    target = cases[f"{case}_gt"]
    if case == "G_ade_zero_label":  # truth is stored one up and 0 is ignored: 0 wraps to 255
        target = target - np.uint8(1)
    return cases[f"{case}_pred"], target


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_scores_reference_case_equals_exact_fractions(case, cases):
    expected = EXPECTED[case]
    dataset = expected["dataset"]
    prediction, target = label_pair(case, cases)
    result = scores(confusion_matrix(prediction, target, expected["classes"], ignore_index=expected["ignore"]))
    assert result["confusion"] == dataset["confusion"]
    for key, reference in (
        ("pixel_accuracy", "pixel_accuracy"),
        ("mean_accuracy", "mean_accuracy_present_in_truth"),
        ("mean_iou", "miou_union_nonzero"),
        ("frequency_weighted_iou", "fwiou"),
    ):
        assert result[key] == pytest.approx(dataset[reference], abs=1e-12), key
    for key, reference in (
        ("iou", "iou"),
        ("accuracy", "class_accuracy"),
        ("precision", "class_precision"),
        ("dice", "dice"),
    ):
        values = [entry[key] for entry in result["per_class"]]
        np.testing.assert_allclose(values, undefined_as_nan(dataset[reference]), rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_scores_reference_case_per_image_equals_exact_fractions(case, cases):
    for prediction, target, expected in zip(*label_pair(case, cases), EXPECTED[case]["per_image"], strict=True):
        value = scores(confusion_matrix(prediction, target, EXPECTED[case]["classes"]))["mean_iou"]
        assert value == pytest.approx(math.nan if expected is None else expected, abs=1e-12, nan_ok=True)


def test_scores_worked_example_gives_hand_values():
    result = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert result["pixel_accuracy"] == 7 / 8
    assert result["mean_accuracy"] == (3 / 4 + 1) / 2
    assert result["mean_iou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert result["frequency_weighted_iou"] == pytest.approx((4 * 3 / 4 + 4 * 4 / 5) / 8)
    assert result["mean_dice"] == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert result["classes_averaged"] == 2
    assert result["pixels"] == 8
    absent = result["per_class"][2]
    assert absent["name"] == "c"
    assert absent["pixels"] == 0
    assert all(math.isnan(absent[key]) for key in ("iou", "accuracy", "precision", "dice"))


def test_scores_class_only_predicted_counts_as_zero():
    result = scores(np.array([[2, 2], [0, 0]]))
    assert result["classes_averaged"] == 2
    assert result["mean_iou"] == pytest.approx(0.25)
    assert result["mean_accuracy"] == 0.5


def test_scores_no_valid_pixel_is_undefined_everywhere():
    result = scores(np.zeros((2, 2), np.int64))
    assert result["classes_averaged"] == result["pixels"] == 0
    for key in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "mean_dice"):
        assert math.isnan(result[key]), key


@given(confusions)
@settings(max_examples=60, deadline=None)
def test_scores_any_matrix_lie_in_unit_interval(counts):
    result = scores(counts)
    for entry in result["per_class"]:
        for key in ("iou", "accuracy", "precision", "dice"):
            assert math.isnan(entry[key]) or 0 <= entry[key] <= 1
        if not math.isnan(entry["iou"]):
            assert entry["dice"] == pytest.approx(2 * entry["iou"] / (1 + entry["iou"]))


@given(confusions, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_scores_permuted_classes_leave_means_unchanged(counts, random):
    order = list(range(len(counts)))
    random.shuffle(order)
    first, second = scores(counts), scores(counts[np.ix_(order, order)])
    for key in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "mean_dice"):
        assert first[key] == pytest.approx(second[key], nan_ok=True)


def test_scores_tensor_equals_array():
    counts = np.array([[5, 2], [1, 7]])
    assert scores(torch.from_numpy(counts)) == scores(counts)


def test_scores_unpredicted_pixels_lower_accuracy_and_iou_of_their_class_only():
    result = scores(np.array([[3, 0], [0, 4]]), unpredicted=np.array([1, 0]))
    assert [entry["iou"] for entry in result["per_class"]] == [0.75, 1.0]
    assert result["pixel_accuracy"] == 7 / 8
    assert result["pixels"] == 8
    assert result["unpredicted"] == [1, 0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((2, 3), np.int64), r"square, \(K, K\), got shape \(2, 3\)"),
        (np.zeros((0, 0), np.int64), r"got shape \(0, 0\)"),
        (np.zeros((2, 2)), "whole numbers, got float64"),
        (np.array([[1, 0], [-3, 1]]), r"confusion\[1, 0\] is negative: -3"),
    ],
)
def test_scores_bad_matrix_refused(counts, message):
    with pytest.raises(InvalidValue, match=message):
        scores(counts)


def test_scores_wrong_number_of_names_refused():
    with pytest.raises(InvalidValue, match="1 class names for a confusion matrix of 2 classes"):
        scores(np.eye(2, dtype=np.int64), ["only"])


def test_scores_wrong_number_of_unpredicted_refused():
    with pytest.raises(InvalidValue, match=r"unpredicted has shape \(3,\)"):
        scores(np.eye(2, dtype=np.int64), unpredicted=np.zeros(3, np.int64))


def test_to_json_scores_survive_strict_json():
    text = json.dumps(to_json(scores(np.array([[3, 1], [0, 0]]))), allow_nan=False)
    assert json.loads(text)["per_class"][1]["accuracy"] is None


def test_to_json_numpy_torch_and_paths_become_plain():
    value = {
        "a": np.float32(0.5),
        "b": np.array([1, 2]),
        "c": torch.tensor([[math.nan]]),
        "d": (Path("x") / "y", math.inf, np.bool_(True), None, "text"),
        3: np.int64(4),
    }
    expected = {"a": 0.5, "b": [1, 2], "c": [[None]], "d": ["x/y", None, True, None, "text"], "3": 4}
    assert to_json(value) == expected


def test_to_json_unknown_type_refused():
    with pytest.raises(InvalidValue, match="a set cannot be written as JSON"):
        to_json({"a": {1}})
