"""Trimaps: the stored reference confusions, the full distance transform as oracle, a hand-worked map, properties."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from perpixel.errors import InvalidValue
from perpixel.metrics import confusion_matrix, contours, scores, trimap_confusion, trimap_confusions
from perpixel.metrics.contours import edge_mask
from perpixel.metrics.trimap import squared_distances

REFERENCE = Path(__file__).parents[1] / "reference" / "metrics"
EXPECTED = json.loads((REFERENCE / "boundary_expected.json").read_text(encoding="utf-8"))
K = 4
SHAPES = [(1, 1), (1, 20), (23, 31), (90, 40)]


def label_pair(rng, shape, size=11):
    """Prediction and target (H, W): squares of some classes with void squares; 15 % wrong, anything on void."""
    cells = rng.choice([*rng.integers(0, K, 3), 255], (shape[0] // size + 1, shape[1] // size + 1))
    target = cells.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]]
    wrong = (rng.random(shape) < 0.15) | (target == 255)
    return np.where(wrong, rng.integers(0, K, shape), target), target


def confusion_within(prediction, target, width_px):
    """The definition, with the whole image's distance map."""
    edges = edge_mask(target, 255)
    near = distance_transform_edt(~edges) <= width_px if edges.any() else edges
    return confusion_matrix(prediction, np.where(near, target, 255), K)


@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_trimap_confusion_reference_case_equals_brute_force_distances(case):
    with np.load(REFERENCE / "cases.npz") as arrays:
        prediction, target = arrays[f"{case}_pred"], arrays[f"{case}_gt"]
    for expected in EXPECTED[case]["trimap"]:
        width, classes = expected["width"], EXPECTED[case]["classes"]
        counts = sum(trimap_confusion(p, t, classes, width_px=width) for p, t in zip(prediction, target, strict=True))
        assert counts.tolist() == expected["confusion"]
        assert counts.sum() == expected["pixels"]
        result = scores(counts)
        assert result["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-12)
        assert result["mean_iou"] == pytest.approx(expected["miou_union_nonzero"], abs=1e-12)
        assert [entry["iou"] for entry in result["per_class"]] == pytest.approx(expected["iou"], abs=1e-12)
        np.testing.assert_array_equal(trimap_confusion(prediction, target, classes, width_px=width), counts)


@pytest.mark.parametrize("band_pixels", [1 << 17, 50])
def test_trimap_confusions_any_widths_equal_distance_transform(band_pixels, monkeypatch):
    monkeypatch.setattr(contours, "_BAND_PIXELS", band_pixels)
    rng = np.random.default_rng(0)
    widths = [5, 0, 1, 2.5, math.sqrt(2), 1, 9.99, 41]
    for shape in SHAPES:
        pair = label_pair(rng, shape)
        counts = trimap_confusions(*pair, K, widths_px=widths)
        for width, found in zip(widths, counts, strict=True):
            np.testing.assert_array_equal(found, confusion_within(*pair, width), err_msg=f"{shape} {width}")
            np.testing.assert_array_equal(trimap_confusion(*pair, K, width_px=width), found)


@pytest.mark.parametrize("width", [127.5, 128, 300, math.inf])
def test_trimap_confusion_wide_trimap_equals_distance_transform(width):
    target = np.zeros((3, 400), np.uint8)
    target[:, 0] = 1
    prediction = np.zeros_like(target)
    prediction[:, 130:] = 2
    np.testing.assert_array_equal(
        trimap_confusions(prediction, target, K, widths_px=[2, width]),
        [confusion_within(prediction, target, 2), confusion_within(prediction, target, width)],
    )


def test_trimap_confusion_step_by_hand():
    """Two classes of 5 columns each, 4 rows: the edge pixels are columns 4 and 5, those within 1 px columns 3 to 6."""
    target = np.zeros((4, 10), np.uint8)
    target[:, 5:] = 1
    prediction = np.zeros_like(target)
    prediction[:, 6:] = 1
    curve = trimap_confusions(prediction, target, 2, widths_px=[0, 1, 2])
    assert curve.tolist() == [[[4, 0], [4, 0]], [[8, 0], [4, 4]], [[12, 0], [4, 8]]]


def test_trimap_confusion_truth_without_edge_is_zero():
    target = np.zeros((4, 9), np.uint8)
    target[:, 3] = 255
    assert trimap_confusion(np.ones_like(target), target, 2, width_px=math.inf).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 64, 100, 127])
def test_squared_distances_up_to_the_limit_are_exact(limit):
    rng = np.random.default_rng(limit)
    for shape, share in (((1, 1), 0.5), ((300, 2), 0.005), ((9, 270), 0.001), ((60, 50), 0.01)):
        edges = rng.random(shape) < share
        edges[0, 0] = True
        exact = np.rint(distance_transform_edt(~edges) ** 2).astype(int)
        found = squared_distances(edges, limit).astype(int)
        np.testing.assert_array_equal(np.minimum(found, limit**2 + 1), np.minimum(exact, limit**2 + 1))


def test_squared_distances_without_edge_are_beyond_the_limit():
    assert (squared_distances(np.zeros((5, 7), bool), 6) > 36).all()


@pytest.mark.parametrize("limit", [-1, 128])
def test_squared_distances_limit_out_of_range_refused(limit):
    with pytest.raises(InvalidValue, match=f"from 0 to 127, got {limit}"):
        squared_distances(np.zeros((2, 2), bool), limit)


def test_trimap_confusions_properties_hold_on_random_maps():
    rng = np.random.default_rng(1)
    widths = [1, 3, 6.5]
    for shape in SHAPES:
        prediction, target = label_pair(rng, shape)
        counts = trimap_confusions(prediction, target, K, widths_px=widths)
        assert (np.diff(counts, axis=0) >= 0).all()
        assert (counts <= confusion_matrix(prediction, target, K)).all()
        anything = np.where(target == 255, rng.integers(0, 256, shape), prediction)
        for changed in ((anything, target), (prediction[::-1], target[::-1]), (prediction[:, ::-1], target[:, ::-1])):
            np.testing.assert_array_equal(trimap_confusions(*changed, K, widths_px=widths), counts)
        table = np.arange(256)
        table[:K] = order = rng.permutation(K)
        permuted = trimap_confusions(table[prediction], table[target], K, widths_px=widths)
        np.testing.assert_array_equal(permuted[:, order][:, :, order], counts)
        perfect = trimap_confusions(target, target, K, widths_px=widths)
        assert perfect.sum() == np.trace(perfect, axis1=1, axis2=2).sum()


def test_trimap_confusion_tensors_equal_arrays():
    prediction, target = label_pair(np.random.default_rng(2), (20, 30))
    counts = trimap_confusion(torch.from_numpy(prediction), torch.from_numpy(target), K, width_px=2)
    np.testing.assert_array_equal(counts, trimap_confusion(prediction, target, K, width_px=2))


@pytest.mark.parametrize("widths", [[], [-1], [2, math.nan]])
def test_trimap_confusions_bad_widths_refused(widths):
    with pytest.raises(InvalidValue, match="a trimap's width is a distance in pixels, at least 0"):
        trimap_confusions(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), 2, widths_px=widths)


def test_trimap_confusion_label_out_of_range_refused():
    with pytest.raises(InvalidValue, match="target holds 7 on 1 valid pixels"):
        trimap_confusion(np.zeros((1, 2), int), np.array([[0, 7]]), 2, width_px=1)
