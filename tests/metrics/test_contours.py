"""Contours of all classes at once against masks of one class at a time, and nearest contours against all distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure

from perpixel.errors import InvalidValue
from perpixel.metrics import contours
from perpixel.metrics.contours import contour_mask, contour_pixels, edge_mask, label_pairs, near_contour, offsets_within

VOID = 255
SHAPES = [(1, 1), (1, 9), (13, 1), (17, 23), (40, 12)]


def blobs(rng, shape, num_classes, size=5, void=0.0):
    """Labels (H, W) that are constant on squares, with single wrong pixels and void squares."""
    cells = rng.integers(0, num_classes, (shape[0] // size + 1, shape[1] // size + 1))
    cells[rng.random(cells.shape) < void] = VOID
    labels = cells.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]]
    noise = rng.random(shape) < 0.02
    return np.where(noise, rng.integers(0, num_classes, shape), labels).astype(np.uint8)


def contour_per_class(labels, connectivity, border, drop):
    """The same by eroding the mask of each class; beyond the image is outside only where the border is contour."""
    structure = generate_binary_structure(2, 1 if connectivity == 4 else 2)
    contour = np.zeros(labels.shape, bool)
    for c in set(np.unique(labels)) - {VOID}:
        mask = labels == c
        contour |= mask & ~binary_erosion(mask, structure, border_value=not border)
    return contour & ~binary_dilation(labels == VOID, structure) if drop else contour


@pytest.fixture(params=[1 << 17, 40])
def band_pixels(request, monkeypatch):
    """All rows in one band, or bands of few rows."""
    monkeypatch.setattr(contours, "_BAND_PIXELS", request.param)


@pytest.mark.usefixtures("band_pixels")
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("drop", [False, True])
def test_contour_mask_any_labels_equals_erosion_per_class(connectivity, border, drop):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        labels = blobs(rng, shape, 4, void=0.2)
        found = contour_mask(labels, VOID, connectivity=connectivity, border_is_contour=border, drop_beside_void=drop)
        np.testing.assert_array_equal(found, contour_per_class(labels, connectivity, border, drop), err_msg=str(shape))


def test_contour_mask_square_in_the_middle_marks_both_sides():
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 2] = 1
    four = contour_mask(labels, VOID)
    assert four.astype(int).tolist() == [[0] * 5, [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0] * 5]
    assert contour_mask(labels, VOID, connectivity=8).sum() == 9


def test_contour_mask_other_connectivity_refused():
    with pytest.raises(InvalidValue, match="4 or 8, got 6"):
        contour_mask(np.zeros((2, 2), np.uint8), VOID, connectivity=6)


@pytest.mark.usefixtures("band_pixels")
def test_edge_mask_any_labels_equals_loops():
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        labels = blobs(rng, shape, 3, void=0.3)
        expected = np.zeros(shape, bool)
        for row, column in np.ndindex(shape):
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                r, c = row + down, column + right
                if 0 <= r < shape[0] and 0 <= c < shape[1] and labels[row, column] != VOID:
                    expected[row, column] |= labels[r, c] not in (VOID, labels[row, column])
        np.testing.assert_array_equal(edge_mask(labels, VOID), expected, err_msg=str(shape))


def test_offsets_within_counts_by_hand_nearest_first():
    assert [len(offsets_within(t, strict=False)) for t in (0, 0.9, 1, 1.5, 2)] == [1, 1, 5, 9, 13]
    assert [len(offsets_within(t, strict=True)) for t in (0.9, 1, 1.5, 2)] == [1, 1, 9, 9]
    distances = np.hypot(*offsets_within(6.3, strict=False).T)
    assert distances[0] == 0
    assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5, 6.0, 7.3, 17.0, 33.0])
@pytest.mark.parametrize("num_classes", [2, 40, 150])
def test_near_contour_any_tolerance_equals_all_distances(tolerance, num_classes):
    rng = np.random.default_rng(round(tolerance) + num_classes)
    for shape in ((1, 1), (60, 90), (130, 7)):
        maps = [blobs(rng, shape, num_classes, size=11) for _ in range(2)]
        maps[1] = np.where(rng.random(shape) < 0.3, maps[0], maps[1])
        margin = math.floor(tolerance)
        one, other = (contour_pixels(m, rng.random(shape) < 0.05, VOID, margin) for m in maps)
        found = near_contour(one, other, offsets_within(tolerance, strict=False))
        places = [np.stack(np.divmod(pixels.place, shape[1] + 2 * margin), 1) for pixels in (one, other)]
        distance = np.sqrt(((places[0][:, None] - places[1][None]) ** 2).sum(-1))
        near = (distance <= tolerance) & (one.label[:, None] == other.label[None])
        np.testing.assert_array_equal(found, near.any(axis=1), err_msg=str(shape))


def test_contour_pixels_padded_map_holds_the_marked_labels():
    labels = np.array([[3, 4], [5, 6]], np.uint8)
    pixels = contour_pixels(labels, np.array([[True, False], [False, True]]), VOID, 1)
    assert pixels.label.tolist() == [3, 6]
    assert pixels.place.tolist() == [5, 10]
    assert pixels.padded[1:3, 1:3].tolist() == [[3, VOID], [VOID, 6]]
    assert (pixels.padded[[0, -1]] == VOID).all()


@pytest.mark.usefixtures("band_pixels")
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_label_pairs_void_of_the_truth_is_copied_into_the_prediction(dtype):
    target = np.array([[0, 255, 2]] * 30, dtype)
    prediction = np.array([[1, 77, 2]] * 30, dtype)
    (pair,) = label_pairs(prediction, target, 3, ignore_index=255)
    assert pair.void == 255
    assert pair.target.dtype == pair.prediction.dtype == np.uint8
    assert pair.target.tolist() == [[0, 255, 2]] * 30
    assert pair.prediction.tolist() == [[1, 255, 2]] * 30


def test_label_pairs_ignored_class_is_void_but_may_be_predicted():
    (pair,) = label_pairs(np.array([[0, 1, 0]]), np.array([[0, 0, 1]]), 2, ignore_index=0)
    assert pair.target.tolist() == [[255, 255, 1]]
    assert pair.prediction.tolist() == [[255, 255, 0]]


def test_label_pairs_many_classes_tensors_and_batches_keep_their_labels():
    target = torch.tensor([[[0, 299, -1]], [[255, 256, 1]]])
    first, second = label_pairs(target.clamp(min=0), target, 300, ignore_index=-1)
    assert first.void == 65535
    assert first.target.tolist() == first.prediction.tolist() == [[0, 299, 65535]]
    assert second.target.tolist() == [[255, 256, 1]]


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"prediction \(2, 3\) and target \(3, 2\).*one shape"),
        (np.zeros(4, np.uint8), np.zeros(4, np.uint8), r"\(H, W\) or \(B, H, W\)"),
        (np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), r"no pixel: shape \(0, 4\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.uint8), "prediction must hold integer class ids, got float64"),
        (np.zeros((2, 2), np.uint8), [[0, 0], [0, 0]], "target must be a torch tensor or a NumPy array, got list"),
        (np.array([[0, 9]]), np.array([[0, 1]]), r"prediction holds 9 on 1 valid pixels \(first at \(0, 1\)"),
        (np.array([[0, -1]]), np.array([[0, 1]]), "prediction holds -1 on 1 valid pixels"),
        (np.array([[0, 1]]), np.array([[7, 1]]), "target holds 7 on 1 valid pixels"),
    ],
)
def test_label_pairs_bad_maps_refused(prediction, target, message):
    with pytest.raises(InvalidValue, match=message):
        label_pairs(prediction, target, 3, ignore_index=255)


@pytest.mark.parametrize("num_classes", [0, 65536])
def test_label_pairs_number_of_classes_out_of_range_refused(num_classes):
    with pytest.raises(InvalidValue, match=f"from 1 to 65535, got {num_classes}"):
        label_pairs(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), num_classes, ignore_index=255)
