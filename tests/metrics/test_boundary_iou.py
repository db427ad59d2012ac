"""Boundary IoU: the stored reference counts, erosion of one class at a time as oracle, hand-worked maps, properties."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from perpixel.errors import InvalidValue
from perpixel.metrics import boundary_iou_counts, contours

REFERENCE = Path(__file__).parents[1] / "reference" / "metrics"
EXPECTED = json.loads((REFERENCE / "boundary_expected.json").read_text(encoding="utf-8"))
K = 4
SHAPES = [(1, 1), (1, 20), (23, 31), (64, 40)]


def label_pair(rng, shape, num_classes=K, size=9):
    """Prediction and target (H, W): squares of some classes, shifted, with void squares under any prediction."""
    cells = rng.choice(rng.integers(0, num_classes, 3), (shape[0] // size + 1, shape[1] // size + 1))
    whole = cells.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]]
    void = (rng.random(cells.shape) < 0.15).repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]]
    target = np.where(void, 255, whole)
    prediction = np.where(void, rng.integers(0, 256, shape), np.roll(whole, 1, (0, 1)))
    return prediction, target


def counts_per_class(prediction, target, width_px, num_classes=K):
    """The definition: each mask less its erosion, with nothing beyond the image."""
    counts = np.zeros((2, num_classes), np.int64)
    for c in range(num_classes):
        bands = []
        for labels in (prediction, target):
            mask = (labels == c) & (target != 255)
            bands.append(mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=width_px, border_value=0))
        counts[:, c] = (bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()
    return counts


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_boundary_iou_counts_reference_case_equals_published_form(case):
    expected = EXPECTED[case]["boundary_iou_0.02"]
    with np.load(REFERENCE / "cases.npz") as arrays:
        prediction, target = arrays[f"{case}_pred"], arrays[f"{case}_gt"]
    summed = np.zeros((2, EXPECTED[case]["classes"]), np.int64)
    for pair in zip(prediction, target, strict=True):
        summed += boundary_iou_counts(*pair, summed.shape[1])
    assert summed.tolist() == [expected["intersection"], expected["union"]]
    iou = summed[0] / summed[1]
    assert [*iou, iou.mean()] == pytest.approx([*expected["iou"], expected["mean"]], abs=1e-12)
    np.testing.assert_array_equal(boundary_iou_counts(prediction, target, summed.shape[1]), summed)


@pytest.mark.parametrize("band_pixels", [1 << 17, 60])
@pytest.mark.parametrize("width_px", [1, 2, 3, 5, 12])
def test_boundary_iou_counts_any_maps_equal_erosion_per_class(width_px, band_pixels, monkeypatch):
    monkeypatch.setattr(contours, "_BAND_PIXELS", band_pixels)
    rng = np.random.default_rng(width_px)
    for shape in SHAPES:
        pair = label_pair(rng, shape)
        counts = boundary_iou_counts(*pair, K, dilation_ratio=width_px / math.hypot(*shape))
        np.testing.assert_array_equal(counts, counts_per_class(*pair, width_px), err_msg=str(shape))


def test_boundary_iou_counts_many_classes_equal_erosion_per_class():
    prediction, target = label_pair(np.random.default_rng(0), (40, 50), 300)
    pair = np.where(target == 255, 0, prediction), target
    counts = boundary_iou_counts(*pair, 300, dilation_ratio=0.03)
    np.testing.assert_array_equal(counts, counts_per_class(*pair, 2, 300))


def test_boundary_iou_counts_shifted_square_by_hand():
    """A 4x4 square in 9x9 pixels, moved by one column, with bands of one pixel: rings of 12 pixels."""
    target = np.zeros((9, 9), np.uint8)
    target[2:6, 2:6] = 1
    intersections, unions = boundary_iou_counts(np.roll(target, 1, axis=1), target, 2)
    # The rings' inner and outer columns are one off: in common are 3 pixels of the top row and 3 of the bottom row.
    assert (intersections[1], unions[1]) == (6, 12 + 12 - 6)


@pytest.mark.parametrize(("side", "width_px"), [(53, 1), (54, 2), (88, 2), (89, 3)])
def test_boundary_iou_counts_width_is_the_rounded_share_of_the_diagonal(side, width_px):
    # 0.02 · side · √2 is 1.499, 1.527, 2.489 and 2.517.
    full = np.zeros((side, side), np.uint8)
    intersections, unions = boundary_iou_counts(full, full, 1)
    assert intersections.tolist() == unions.tolist() == [side**2 - (side - 2 * width_px) ** 2]


def test_boundary_iou_counts_half_is_rounded_to_even():
    full = np.zeros((30, 40), np.uint8)  # diagonal 50
    assert boundary_iou_counts(full, full, 1, dilation_ratio=0.05)[1].tolist() == [30 * 40 - 26 * 36]  # 2.5 -> 2


def test_boundary_iou_counts_properties_hold_on_random_maps():
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        prediction, target = label_pair(rng, shape)
        counts = np.stack(boundary_iou_counts(prediction, target, K, dilation_ratio=0.05))
        assert (counts[0] >= 0).all()
        assert (counts[0] <= counts[1]).all()
        perfect = boundary_iou_counts(target, target, K, dilation_ratio=0.05)
        np.testing.assert_array_equal(*perfect)
        anything = np.where(target == 255, rng.integers(0, 256, shape), prediction)
        for changed in ((anything, target), (prediction[::-1], target[::-1]), (prediction[:, ::-1], target[:, ::-1])):
            np.testing.assert_array_equal(boundary_iou_counts(*changed, K, dilation_ratio=0.05), counts)
        table = np.arange(256)
        table[:K] = order = rng.permutation(K)
        permuted = np.stack(boundary_iou_counts(table[prediction], table[target], K, dilation_ratio=0.05))
        np.testing.assert_array_equal(permuted[:, order], counts)


def test_boundary_iou_counts_tensors_equal_arrays():
    prediction, target = label_pair(np.random.default_rng(3), (20, 30))
    counts = boundary_iou_counts(torch.from_numpy(prediction), torch.from_numpy(target), K)
    np.testing.assert_array_equal(counts, boundary_iou_counts(prediction, target, K))


@pytest.mark.parametrize("ratio", [-0.1, math.nan, math.inf])
def test_boundary_iou_counts_bad_ratio_refused(ratio):
    with pytest.raises(InvalidValue, match=f"share of the image's diagonal, at least 0, got {ratio}"):
        boundary_iou_counts(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), 2, dilation_ratio=ratio)


def test_boundary_iou_counts_shapes_differ_refused():
    with pytest.raises(InvalidValue, match=r"prediction \(3, 3\) and target \(3, 4\) must share one shape"):
        boundary_iou_counts(np.zeros((3, 3), np.uint8), np.zeros((3, 4), np.uint8), 2)
