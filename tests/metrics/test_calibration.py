"""Calibration: hand-worked bins, plain loops, sums that add up, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.metrics import calibration as calibration_file
from perpixel.metrics.calibration import Calibration


def random_image(seed, num_classes=3, size=(5, 7)):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.5] * num_classes, size).transpose(2, 0, 1)
    target = rng.integers(0, num_classes, size).astype(np.uint8)
    target[rng.random(size) < 0.2] = 255
    return probabilities, target


def error_by_loops(confidences, rights, bins):
    error = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidences) if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)]
        if inside:
            accuracy = sum(rights[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            error += len(inside) / len(confidences) * abs(accuracy - confidence)
    return error


def test_calibration_top_label_hand_worked():
    """Bin (0.5, 0.75]: 0.6 right, 0.7 wrong: |1/2 - 0.65|. Bin (0.75, 1]: 0.9 and 1.0, both right: 0.05."""
    calibration = Calibration(2, bins=4)
    top = np.array([[0.6, 0.7, 0.9, 1.0, 0.8]])
    calibration.add(np.stack([top, 1 - top]), np.array([[0, 1, 0, 0, 255]]))
    got = calibration.result()
    assert got["ece"] == pytest.approx(2 / 4 * 0.15 + 2 / 4 * 0.05)
    assert got["pixels"] == 4
    assert [part["pixels"] for part in got["bins"]] == [0, 0, 2, 2]
    assert got["bins"][2] == pytest.approx({"low": 0.5, "high": 0.75, "confidence": 0.65, "accuracy": 0.5, "pixels": 2})
    assert math.isnan(got["bins"][0]["accuracy"])


def test_calibration_class_wise_hand_worked():
    """Class 0 has 0.25 (right) and 0.75 (wrong) in one bin: |1/2 - 1/2| = 0; in two: (0.75 + 0.75) / 2."""
    values = np.array([[[0.25, 0.75]], [[0.75, 0.25]]])
    target = np.array([[0, 1]])
    for bins, wanted in ((1, 0.0), (2, 0.75)):
        calibration = Calibration(2, bins=bins)
        calibration.add(values, target)
        got = calibration.result(["sky", "road"])
        assert got["class_wise_ece"] == pytest.approx(wanted)
        assert [(entry["name"], entry["ece"]) for entry in got["per_class"]] == [("sky", wanted), ("road", wanted)]


def test_calibration_bin_edges_belong_to_the_lower_bin():
    calibration = Calibration(2, bins=10)
    calibration.add(np.array([[[0.7, 0.0]], [[0.3, 1.0]]]), np.array([[0, 1]]))
    assert [part["pixels"] for part in calibration.result()["bins"]] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 1]
    per_class = calibration.result()["per_class"]
    assert [part["pixels"] for part in per_class[0]["bins"]][:1] == [1]


@pytest.mark.parametrize(("bins", "band"), [(1, 1 << 20), (7, 40), (15, 1)])
def test_calibration_any_image_equals_loops(monkeypatch, bins, band):
    monkeypatch.setattr(calibration_file, "_BAND_VALUES", band)
    probabilities, target = random_image(bins)
    calibration = Calibration(3, bins=bins)
    calibration.add(probabilities, target)
    valid = target != 255
    chosen, truth = probabilities[:, valid], target[valid]
    got = calibration.result()
    top = error_by_loops(chosen.max(axis=0).tolist(), (chosen.argmax(axis=0) == truth).tolist(), bins)
    assert got["ece"] == pytest.approx(top, abs=1e-12)
    for k, entry in enumerate(got["per_class"]):
        assert entry["ece"] == pytest.approx(error_by_loops(chosen[k].tolist(), (truth == k).tolist(), bins), abs=1e-12)


def test_calibration_merged_parts_equal_the_whole():
    whole, first, second = (Calibration(3) for _ in range(3))
    for seed, part in ((0, first), (1, second), (2, second)):
        image = random_image(seed, size=(4, 4 + seed))
        whole.add(*image)
        part.add(*image)
    first.merge(second)
    np.testing.assert_allclose(first.top, whole.top, rtol=1e-12)
    assert first.result()["ece"] == pytest.approx(whole.result()["ece"], abs=1e-12)


def test_calibration_ignored_pixels_never_matter():
    probabilities, target = random_image(4)
    other = probabilities.copy()
    other[:, target == 255] = math.nan
    got = [Calibration(3) for _ in range(2)]
    got[0].add(probabilities, target)
    got[1].add(other, target)
    assert got[0].result()["ece"] == got[1].result()["ece"]


def test_calibration_certain_and_right_has_no_error_and_wrong_all():
    certain = np.zeros((3, 2, 2))
    certain[1] = 1
    for label, wanted in ((1, 0.0), (2, 1.0)):
        calibration = Calibration(3)
        calibration.add(certain, np.full((2, 2), label))
        assert calibration.result()["ece"] == wanted


def test_calibration_tensors_in_bfloat16_are_taken():
    calibration = Calibration(3)
    probabilities, target = random_image(6)
    calibration.add(torch.from_numpy(probabilities).bfloat16(), torch.from_numpy(target))
    assert calibration.result()["pixels"] == int((target != 255).sum())


def test_calibration_without_a_pixel_is_undefined():
    calibration = Calibration(2)
    calibration.add(np.full((2, 1, 1), 0.5), np.array([[255]]))
    assert math.isnan(calibration.result()["ece"])


@pytest.mark.parametrize("values", [[0.5, 0.2], [1.5, -0.5], [math.nan, 0.5], [3.0, -2.0]])
def test_calibration_values_that_are_no_probabilities_refused(values):
    calibration = Calibration(2)
    probabilities = np.array([[[0.5], [values[0]]], [[0.5], [values[1]]]])
    with pytest.raises(InvalidValue, match=r"row 1, column 0 holds no probabilities.*softmax"):
        calibration.add(probabilities, np.zeros((2, 1), np.uint8))
    assert calibration.top.sum() == 0


def test_calibration_target_out_of_range_refused():
    with pytest.raises(InvalidValue, match=r"target holds 2 on valid pixels; allowed is 0\.\.1 or 255"):
        Calibration(2).add(np.full((2, 1, 1), 0.5), np.array([[2]]))


def test_calibration_truth_of_bools_counts_as_zeros_and_ones():
    probabilities = np.array([[[0.9, 0.6]], [[0.1, 0.4]]])
    sums = []
    for target in (np.array([[False, True]]), np.array([[0, 1]])):
        calibration = Calibration(2, bins=2)
        calibration.add(probabilities, target)
        sums.append(calibration.classes)
    np.testing.assert_array_equal(*sums)


def test_calibration_target_of_fractions_refused():
    with pytest.raises(InvalidValue, match="target must hold integer class ids, got float64"):
        Calibration(2).add(np.full((2, 1, 1), 0.5), np.array([[0.5]]))


def test_calibration_shapes_that_do_not_fit_refused():
    with pytest.raises(InvalidValue, match=r"K = 3, got float64 \(2, 1, 1\) and \(1, 1\)"):
        Calibration(3).add(np.full((2, 1, 1), 0.5), np.array([[0]]))


def test_calibration_arguments_out_of_range_refused():
    with pytest.raises(InvalidValue, match="at least 2 classes, got 1"):
        Calibration(1)
    with pytest.raises(InvalidValue, match="bins must be at least 1, got 0"):
        Calibration(2, bins=0)
    with pytest.raises(InvalidValue, match=r"\(2, 10, 255\) to one of \(2, 15, 255\)"):
        Calibration(2).merge(Calibration(2, bins=10))
    with pytest.raises(InvalidValue, match="3 class names for 2 classes"):
        Calibration(2).result(["a", "b", "c"])
