"""V_Rand and V_Info: cells that are joined, cut and moved, worked by hand, and pairs of pixels counted one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.metrics.neuron_segmentation import NeuronSegmentation, neuron_segmentation_scores

TWO_CELLS = np.array([[1, 1, 0, 1, 1]])
"""Two cells of two pixels, a membrane of one."""
ONE_CELL = np.array([[1, 1, 1, 1, 1]])


def test_neuron_scores_same_cells_score_one():
    assert set(neuron_segmentation_scores(TWO_CELLS, TWO_CELLS).values()) == {1.0}


def test_neuron_scores_joined_cells_hand_worked():
    """p² = ¼ + ¼, s² = 1, t² = ½; I = 0 of H(S) = 0 and H(T) = ln 2."""
    got = neuron_segmentation_scores(ONE_CELL, TWO_CELLS)
    assert got["v_rand_split"] == pytest.approx(1)
    assert got["v_rand_merge"] == pytest.approx(1 / 2)
    assert got["v_rand"] == pytest.approx(2 / 3)
    assert (got["v_info_split"], got["v_info_merge"], got["v_info"]) == (1, 0, 0)


def test_neuron_scores_cut_cell_hand_worked():
    """Five true pixels, of which one is predicted membrane, alone: shares 2/5, 1/5, 2/5 of one true cell."""
    got = neuron_segmentation_scores(TWO_CELLS, ONE_CELL)
    squares = (4 + 1 + 4) / 25
    assert got["v_rand_split"] == pytest.approx(squares)
    assert got["v_rand_merge"] == pytest.approx(1)
    assert got["v_rand"] == pytest.approx(2 * squares / (squares + 1))
    assert (got["v_info_split"], got["v_info_merge"]) == (0, 1)


def test_neuron_scores_information_hand_worked():
    """Cells of 2 and 2 true pixels; predicted 1, 1 (membrane alone) and 2: H(S) = 1.5 ln 2, H(T) = I = ln 2."""
    got = neuron_segmentation_scores(np.array([[1, 0, 0, 1, 1]]), TWO_CELLS)
    assert got["v_info_split"] == pytest.approx(1 / 1.5)
    assert got["v_info_merge"] == pytest.approx(1)
    assert got["v_info"] == pytest.approx(2 / 2.5)
    assert got["v_rand"] == pytest.approx(2 * (6 / 16) / (6 / 16 + 8 / 16))


def test_neuron_scores_rand_equals_pairs_of_pixels():
    """Σ p² counts ordered pairs of pixels, with themselves, that lie in one segment of both maps."""
    rng = np.random.default_rng(0)
    target, prediction = ((rng.random((6, 7)) < 0.6).astype(int) for _ in range(2))

    def components(cells):
        names = np.arange(1, cells.size + 1).reshape(cells.shape) * cells
        for _ in range(cells.size):
            for (a, b), (c, d) in itertools.permutations(np.argwhere(cells).tolist(), 2):
                if abs(a - c) + abs(b - d) == 1:
                    names[a, b] = max(names[a, b], names[c, d])
        return names

    true, guess = components(target), components(prediction)
    guess[guess == 0] = -np.arange(1, np.count_nonzero(guess == 0) + 1)
    pixels = [(true[place], guess[place]) for place in zip(*np.nonzero(target), strict=True)]
    both = sum(a == c and b == d for (a, b), (c, d) in itertools.product(pixels, repeat=2))
    in_truth = sum(a == c for (a, _), (c, _) in itertools.product(pixels, repeat=2))
    in_guess = sum(b == d for (_, b), (_, d) in itertools.product(pixels, repeat=2))
    got = neuron_segmentation_scores(prediction, target)
    assert got["v_rand_split"] == pytest.approx(both / in_truth)
    assert got["v_rand_merge"] == pytest.approx(both / in_guess)
    assert got["v_rand"] == pytest.approx(2 * both / (in_truth + in_guess))


def test_neuron_scores_thick_membrane_costs_nothing_when_thinned():
    target = np.ones((5, 9), int)
    target[:, 4] = 0
    thick = np.ones((5, 9), int)
    thick[:, 3:6] = 0
    assert neuron_segmentation_scores(thick, target)["v_rand"] < 0.9
    assert set(neuron_segmentation_scores(thick, target, thin=True).values()) == {1.0}


def test_neuron_scores_all_membrane_cannot_be_thinned():
    empty = np.zeros((1, 5), int)
    thinned = neuron_segmentation_scores(empty, TWO_CELLS, thin=True)
    assert thinned == neuron_segmentation_scores(empty, TWO_CELLS)
    assert thinned["v_rand_split"] == pytest.approx((4 / 16) / (8 / 16))


def test_neuron_scores_corner_joins_by_eight_only():
    corner = np.array([[1, 0], [0, 1]])
    assert neuron_segmentation_scores(np.ones((2, 2), int), corner)["v_rand_merge"] == pytest.approx(1 / 2)
    assert neuron_segmentation_scores(np.ones((2, 2), int), corner, connectivity=8)["v_rand_merge"] == 1


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("under_void", [0, 1, 255])
def test_neuron_scores_ignored_pixels_between_cells_never_matter(under_void, thin):
    target = np.array([[1, 255, 1, 0, 1, 1]])
    prediction = np.array([[1, under_void, 1, 0, 1, 0]])
    assert neuron_segmentation_scores(np.where(target == 255, under_void, target), target)["v_rand"] == 1
    expected = neuron_segmentation_scores(np.array([[1, 7, 1, 0, 1, 0]]), target, thin=thin)
    assert neuron_segmentation_scores(prediction, target, thin=thin) == expected
    assert (expected["v_rand_split"] < 1) is not thin


def test_neuron_scores_other_membrane_id_is_taken():
    assert neuron_segmentation_scores(1 - ONE_CELL, 1 - TWO_CELLS, membrane=1) == neuron_segmentation_scores(
        ONE_CELL, TWO_CELLS
    )


def test_neuron_scores_mirrored_maps_score_the_same():
    rng = np.random.default_rng(3)
    target, prediction = ((rng.random((9, 8)) < 0.7).astype(int) for _ in range(2))
    plain, mirrored = (neuron_segmentation_scores(prediction[:, ::s], target[:, ::s]) for s in (1, -1))
    assert plain == pytest.approx(mirrored, abs=1e-12)
    assert all(0 <= value <= 1 for value in plain.values())


def test_neuron_segmentation_mean_leaves_out_images_without_cells():
    first, second = NeuronSegmentation(), NeuronSegmentation()
    first.add(neuron_segmentation_scores(TWO_CELLS, TWO_CELLS))
    first.add(neuron_segmentation_scores(TWO_CELLS, np.zeros_like(TWO_CELLS)))
    second.add(neuron_segmentation_scores(ONE_CELL, TWO_CELLS))
    first.merge(second)
    assert first.images == 2
    assert first.result()["v_rand"] == pytest.approx((1 + 2 / 3) / 2)
    assert first.result()["v_info_merge"] == pytest.approx(1 / 2)


def test_neuron_segmentation_without_an_image_is_undefined():
    assert all(math.isnan(value) for value in NeuronSegmentation().result().values())


def test_neuron_scores_bad_arguments_refused():
    with pytest.raises(InvalidValue, match=r"prediction \(1, 5\) and target \(1, 4\)"):
        neuron_segmentation_scores(ONE_CELL, TWO_CELLS[:, 1:])
    with pytest.raises(InvalidValue, match="connectivity is 4 or 8, got 3"):
        neuron_segmentation_scores(ONE_CELL, TWO_CELLS, connectivity=3)
    with pytest.raises(InvalidValue, match="prediction must hold integer class ids, got float64"):
        neuron_segmentation_scores(ONE_CELL / 2, TWO_CELLS)


def test_neuron_scores_tensors_equal_arrays():
    tensors = (torch.from_numpy(labels) for labels in (ONE_CELL, TWO_CELLS))
    assert neuron_segmentation_scores(*tensors) == neuron_segmentation_scores(ONE_CELL, TWO_CELLS)
