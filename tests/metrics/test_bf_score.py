"""BF score: the stored reference values, one class at a time as oracle, hand-worked maps and properties."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, generate_binary_structure

from perpixel.errors import InvalidValue
from perpixel.metrics import bf_score

REFERENCE = Path(__file__).parents[1] / "reference" / "metrics"
EXPECTED = json.loads((REFERENCE / "boundary_expected.json").read_text(encoding="utf-8"))
VARIANTS = {
    "theta_0.0075_diag": {},
    "theta_0.0075_diag_strict": {"strict": True},
    "theta_2px": {"tolerance_px": 2},
    "theta_2px_strict": {"tolerance_px": 2, "strict": True},
    "theta_2px_8conn": {"tolerance_px": 2, "connectivity": 8},
    "theta_2px_border_counts": {"tolerance_px": 2, "border_is_contour": True},
}
K = 5
SHAPES = [(1, 1), (1, 20), (24, 31), (64, 40)]


def blobs(rng, shape, size=7, void=0.0):
    """Labels (H, W) that are constant on squares of some classes only, with void squares."""
    cells = rng.choice(rng.integers(0, K, 3), (shape[0] // size + 1, shape[1] // size + 1))
    cells[rng.random(cells.shape) < void] = 255
    return cells.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]].astype(np.uint8)


def moved(rng, target):
    """A prediction: the target shifted, with one wrong square, anything on void."""
    prediction = np.roll(target, rng.integers(-2, 3, 2), (0, 1))
    prediction = np.where(prediction == 255, rng.integers(0, K), prediction).astype(np.uint8)
    row, column = (int(rng.integers(0, side)) for side in target.shape)
    prediction[row : row + 6, column : column + 6] = rng.integers(0, K)
    prediction[(target == 255) & (rng.random(target.shape) < 0.5)] = 200
    return prediction


def contour_of(mask, is_void, connectivity, border, void):
    structure = generate_binary_structure(2, 1 if connectivity == 4 else 2)
    contour = mask & ~binary_erosion(mask, structure, border_value=not border)
    return contour & ~binary_dilation(is_void, structure) if void == "dropped" else contour


def largest_matching(near):
    """Pairs rows and columns of (N, M) by augmenting paths; returns which of each are paired."""
    partner = np.full(near.shape[1], -1)

    def augment(row, seen):
        for column in np.flatnonzero(near[row] & ~seen):
            seen[column] = True
            if partner[column] < 0 or augment(partner[column], seen):
                partner[column] = row
                return True
        return False

    paired = [augment(row, np.zeros(near.shape[1], bool)) for row in range(near.shape[0])]
    return np.array(paired), partner >= 0


def bf_per_class(
    prediction, target, tolerance, strict=False, connectivity=4, border=False, void="copied", matching="nearest"
):
    """The definition, with full-size masks and distance maps of each class."""
    is_void = target == 255
    prediction = np.where(is_void, 255, prediction)
    result = []
    for c in range(K):
        masks = [labels == c for labels in (prediction, target)]
        if not all(mask.any() for mask in masks):
            result.append(0.0 if any(mask.any() for mask in masks) else math.nan)
            continue
        guess, truth = (contour_of(mask, is_void, connectivity, border, void) for mask in masks)
        if not guess.any() or not truth.any():
            result.append(float(not guess.any() and not truth.any() and (masks[0] == masks[1]).all()))
            continue
        if matching == "nearest":
            distances = distance_transform_edt(~truth)[guess], distance_transform_edt(~guess)[truth]
            shares = [(d < tolerance if strict else d <= tolerance).mean() for d in distances]
        else:
            a, b = np.argwhere(guess), np.argwhere(truth)
            distance = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
            paired = largest_matching(distance < tolerance if strict else distance <= tolerance)
            shares = [side.mean() for side in paired]
        result.append(2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0)
    return result


@pytest.fixture(scope="module")
def cases():
    with np.load(REFERENCE / "cases.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_bf_score_reference_case_equals_brute_force_distances(case, variant, cases):
    expected = EXPECTED[case]["bf"][variant]
    pairs = list(zip(cases[f"{case}_pred"], cases[f"{case}_gt"], strict=True))
    table = np.array([bf_score(p, t, EXPECTED[case]["classes"], **VARIANTS[variant]) for p, t in pairs])
    stored = np.array(expected["per_image_class"], dtype=float)
    np.testing.assert_allclose(table, stored, rtol=0, atol=1e-12)
    in_truth = [np.isin(np.arange(table.shape[1]), t) for _, t in pairs]
    truth_means = [np.nanmean(row[present]) for row, present in zip(table, in_truth, strict=True)]
    for key, values in (
        ("per_image", np.nanmean(table, axis=1)),
        ("per_class", np.nanmean(table, axis=0)),
        ("mean_over_images", np.nanmean(table, axis=1).mean()),
        ("mean_over_images_truth_classes", np.mean(truth_means)),
        ("mean_over_classes", np.nanmean(table, axis=0).mean()),
    ):
        np.testing.assert_allclose(values, expected[key], rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("void", ["copied", "dropped"])
@pytest.mark.parametrize(("connectivity", "border"), [(4, False), (8, False), (4, True), (8, True)])
def test_bf_score_any_maps_equals_one_class_at_a_time(void, connectivity, border):
    rng = np.random.default_rng(connectivity + 2 * border)
    for shape in SHAPES:
        for tolerance, strict in ((0, False), (1, True), (2, False), (9, False)):
            target = blobs(rng, shape, void=0.15)
            prediction = moved(rng, target)
            scores = bf_score(
                prediction,
                target,
                K,
                tolerance_px=tolerance,
                strict=strict,
                connectivity=connectivity,
                border_is_contour=border,
                void=void,
            )
            expected = bf_per_class(prediction, target, tolerance, strict, connectivity, border, void)
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0, 1.5, 4])
def test_bf_score_one_to_one_equals_augmenting_paths(tolerance):
    rng = np.random.default_rng(3)
    for shape in SHAPES[:3]:
        target = blobs(rng, shape, void=0.1)
        prediction = moved(rng, target)
        scores = bf_score(prediction, target, K, tolerance_px=tolerance, matching="one_to_one")
        expected = bf_per_class(prediction, target, tolerance, matching="one_to_one")
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


def test_bf_score_shifted_edge_by_hand():
    """One row: contours of the target at columns 2 | 3, of the prediction at 0 | 1 and 3 | 4, classes 1 0 0 0 1 1."""
    target = np.array([[0, 0, 0, 1, 1, 1]])
    prediction = np.array([[1, 0, 0, 0, 1, 1]])
    # Class 0: {1, 3} against {2}, all within 1. Class 1: {0, 4} against {3}: P = 1/2, R = 1.
    assert bf_score(prediction, target, 3, tolerance_px=1).tolist() == pytest.approx([1, 2 / 3, math.nan], nan_ok=True)
    # At most one of class 0's two pixels has a partner.
    paired = bf_score(prediction, target, 3, tolerance_px=1, matching="one_to_one")
    assert paired.tolist() == pytest.approx([2 / 3, 2 / 3, math.nan], nan_ok=True)
    assert bf_score(prediction, target, 3, tolerance_px=1, strict=True).tolist()[:2] == [0, 0]


def test_bf_score_undefined_cases_are_as_stated():
    full, other = np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint8)
    assert bf_score(full, full, 2).tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert bf_score(other, full, 2).tolist() == [0, 0]
    half = full.copy()
    half[:, 2:] = 1
    assert bf_score(full, half, 2).tolist() == [0, 0]
    assert np.isnan(bf_score(full, np.full((4, 5), 255, np.uint8), 2)).all()


def test_bf_score_void_dropped_needs_equal_masks_where_no_contour_is_left():
    target = np.array([[0, 0, 255, 1, 1]] * 2, np.uint8)
    assert bf_score(target, target, 2, void="dropped").tolist() == [1, 1]
    swapped = np.array([[1, 1, 7, 0, 0]] * 2, np.uint8)
    assert bf_score(swapped, target, 2, void="dropped").tolist() == [0, 0]


def test_bf_score_default_tolerance_is_a_share_of_the_diagonal():
    target = np.zeros((300, 400), np.uint8)
    target[:, 200:] = 1
    prediction = np.roll(target, 3, axis=1)
    prediction[:, :3] = 0
    assert bf_score(prediction, target, 2).tolist() == [1, 1]  # 3.75 px
    assert bf_score(prediction, target, 2, tolerance_diagonal=0.006).tolist() == [1, 1]  # 3 px exactly
    assert bf_score(prediction, target, 2, tolerance_diagonal=0.006, strict=True).tolist() == [0, 0]


@pytest.mark.parametrize("matching", ["nearest", "one_to_one"])
def test_bf_score_properties_hold_on_random_maps(matching):
    rng = np.random.default_rng(5)
    for shape in SHAPES[:3]:
        target = blobs(rng, shape, void=0.1)
        prediction = moved(rng, target)
        options = {"tolerance_px": 2.3, "matching": matching}
        scores = bf_score(prediction, target, K, **options)
        defined = scores[~np.isnan(scores)]
        assert ((defined >= 0) & (defined <= 1)).all()
        perfect = bf_score(np.where(target == 255, 0, target), target, K, **options)
        assert (perfect[~np.isnan(perfect)] == 1).all()
        anything = np.where(target == 255, rng.integers(0, 256, shape), prediction)
        np.testing.assert_array_equal(bf_score(anything, target, K, **options), scores)
        for mirror in (np.flipud, np.fliplr):
            np.testing.assert_array_equal(bf_score(mirror(prediction), mirror(target), K, **options), scores)
        order = rng.permutation(K)
        table = np.arange(256)
        table[:K] = order
        np.testing.assert_array_equal(bf_score(table[prediction], table[target], K, **options)[order], scores)


def test_bf_score_tensors_equal_arrays():
    rng = np.random.default_rng(6)
    target = blobs(rng, (20, 30))
    prediction = moved(rng, target)
    scores = bf_score(torch.from_numpy(prediction), torch.from_numpy(target).long(), K, tolerance_px=2)
    np.testing.assert_array_equal(scores, bf_score(prediction, target, K, tolerance_px=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance_px": -1}, "tolerance_px is a distance in pixels, at least 0, got -1"),
        ({"tolerance_px": math.nan}, "got nan"),
        ({"tolerance_diagonal": -0.1}, "share of the image's diagonal, at least 0, got -0.1"),
        ({"tolerance_px": 0, "strict": True}, "no distance is smaller than a tolerance of 0"),
        ({"connectivity": 5}, "4 or 8, got 5"),
        ({"void": "kept"}, "void is 'copied' or 'dropped', got 'kept'"),
        ({"matching": "best"}, "matching is 'nearest' or 'one_to_one', got 'best'"),
    ],
)
def test_bf_score_bad_option_refused(options, message):
    with pytest.raises(InvalidValue, match=message):
        bf_score(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), 2, **options)


def test_bf_score_several_images_refused():
    with pytest.raises(InvalidValue, match="one image at a time"):
        bf_score(np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8), 2)
