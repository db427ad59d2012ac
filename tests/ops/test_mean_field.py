from math import exp

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.ops import mean_field as module
from perpixel.ops.mean_field import (
    ExactFilter,
    bilateral_features,
    compatibility_gain,
    exact_filter,
    free_energy,
    mean_field,
    mean_field_,
    normalized,
    position_features,
)
from perpixel.ops.permutohedral import build_lattice


def random_scores(batch: int, pixels: int, classes: int) -> torch.Tensor:
    return torch.randn(batch, pixels, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sample_filter(batch: int = 1, pixels: int = 12) -> ExactFilter:
    generator = torch.Generator().manual_seed(1)
    return exact_filter(torch.randn(batch, pixels, 3, generator=generator, dtype=torch.float64))


def test_exact_filter_is_the_gaussian_of_the_distance() -> None:
    matrix = exact_filter(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]], dtype=torch.float64)).matrix[0]
    assert matrix.diagonal().tolist() == [1, 1]
    assert matrix[0, 1].item() == matrix[1, 0].item() == pytest.approx(exp(-12.5))


def test_mean_field_two_pixels_by_hand() -> None:
    scores = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    filter_ = ExactFilter(matrix=torch.tensor([[[1.0, 0.5], [0.5, 1.0]]], dtype=torch.float64))
    p = 1 / (1 + exp(-1))
    first = [1 + 2 * (p + 0.25), 2 * (1 - p + 0.25)]
    second = [2 * (0.5 * p + 0.5), 2 * (0.5 * (1 - p) + 0.5)]
    ours = mean_field(scores, [filter_], [2.0], iterations=1)[0]
    assert ours.tolist() == [pytest.approx(first), pytest.approx(second)]


def test_mean_field_no_update_returns_the_scores() -> None:
    scores = random_scores(1, 12, 3)
    assert mean_field(scores, [sample_filter()], [1.0], iterations=0) is scores


def test_mean_field_batch_equals_loop_of_singles() -> None:
    scores = random_scores(2, 12, 3)
    matrix = sample_filter(batch=2).matrix
    together = mean_field(scores, [ExactFilter(matrix=matrix)], [1.5], iterations=4)
    alone = [
        mean_field(s[None], [ExactFilter(matrix=m[None])], [1.5], iterations=4)
        for s, m in zip(scores, matrix, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-13)


MATRIX = torch.tensor([[0.5, -1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.3, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("gain", [1.5, MATRIX[1], MATRIX], ids=["number", "vector", "matrix"])
@pytest.mark.parametrize("classes_at_a_time", [1, 2, 3])
def test_mean_field_in_place_equals_the_differentiable_form(gain, classes_at_a_time, monkeypatch) -> None:
    scores, filters = random_scores(2, 12, 3), [sample_filter(), sample_filter()]
    q = mean_field(scores, filters, [gain, 0.5], iterations=3).softmax(-1)
    monkeypatch.setattr(module, "_BLOCK_BYTES", classes_at_a_time * 2 * 12 * 8)
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 5)
    asked: list[slice] = []

    def some(rows: slice) -> torch.Tensor:
        asked.append(rows)
        return scores[:, rows].clone()

    in_place = mean_field_(some, (2, 12, 3), filters, [gain, 0.5], iterations=3)
    torch.testing.assert_close(in_place, q, rtol=0, atol=1e-13)
    assert max(rows.stop - rows.start for rows in asked) == (12 if gain is MATRIX else 5)


@pytest.mark.parametrize("room", [1, 2**20])
def test_mean_field_in_place_on_lattices_equals_the_differentiable_form(room: int, monkeypatch) -> None:
    scores = random_scores(1, 12, 3)
    x = torch.linspace(0, 3, 12, dtype=torch.float64)[None, :, None]
    filters = [normalized(build_lattice(x * scale), "symmetric") for scale in (1.0, 0.3)]
    q = mean_field(scores, filters, [1.5, 0.5], iterations=3).softmax(-1)
    monkeypatch.setattr(module, "_ROOM_BYTES", room)
    in_place = mean_field_(lambda rows: scores[:, rows].clone(), (1, 12, 3), filters, [1.5, 0.5], iterations=3)
    torch.testing.assert_close(in_place, q, rtol=0, atol=1e-13)


def test_mean_field_scores_shifted_per_pixel_give_the_same_probabilities() -> None:
    scores = random_scores(1, 12, 3)
    shift = torch.linspace(-5, 5, 12, dtype=torch.float64)[None, :, None]
    q, shifted = (mean_field(s, [sample_filter()], [1.0], iterations=3).softmax(-1) for s in (scores, scores + shift))
    torch.testing.assert_close(q, shifted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("energies", [torch.full((3,), -1.7), -1.7 * torch.eye(3)], ids=["vector", "matrix"])
def test_mean_field_potts_number_equals_negative_energies(energies: torch.Tensor) -> None:
    scores = random_scores(1, 12, 3)
    potts = mean_field(scores, [sample_filter()], [compatibility_gain(1.7)], iterations=3)
    other = mean_field(scores, [sample_filter()], [compatibility_gain(energies.double())], iterations=3)
    torch.testing.assert_close(potts, other, rtol=0, atol=1e-6)


def test_compatibility_gain_takes_the_symmetric_part_of_a_matrix() -> None:
    gain = compatibility_gain(torch.tensor([[0.0, 4.0], [0.0, 2.0]]))
    assert isinstance(gain, torch.Tensor)
    assert gain.tolist() == [[0, -2], [-2, -2]]


def test_mean_field_gain_matrix_maps_filtered_classes_to_messages() -> None:
    scores = torch.zeros(1, 1, 2, dtype=torch.float64)
    one = ExactFilter(matrix=torch.ones(1, 1, 1, dtype=torch.float64))
    gain = torch.tensor([[1.0, 3.0], [0.0, 5.0]], dtype=torch.float64)
    assert mean_field(scores, [one], [gain], iterations=1)[0, 0].tolist() == [2, 2.5]


def test_normalized_after_averages_and_before_spreads() -> None:
    ones = torch.ones(1, 12, 1, dtype=torch.float64)
    after = normalized(sample_filter(), "after").filter(ones)
    torch.testing.assert_close(after, ones, rtol=0, atol=1e-12)
    before = normalized(sample_filter(), "before")
    assert isinstance(before, ExactFilter)
    torch.testing.assert_close(before.matrix.sum(dim=1), ones[..., 0], rtol=0, atol=1e-12)


def test_normalized_symmetric_stays_symmetric_and_none_is_the_filter_itself() -> None:
    plain = sample_filter()
    symmetric = normalized(plain, "symmetric")
    assert isinstance(symmetric, ExactFilter)
    torch.testing.assert_close(symmetric.matrix, symmetric.matrix.mT)
    assert not torch.allclose(symmetric.matrix, plain.matrix)
    assert normalized(plain, "none") is plain


def test_free_energy_falls_and_is_that_of_independent_pixels_without_kernels() -> None:
    scores = random_scores(1, 12, 3)
    filter_ = normalized(sample_filter(), "symmetric")
    energies = []
    for iterations in range(4):
        q = mean_field(scores, [filter_], [0.5], iterations=iterations).softmax(-1)
        energies.append(float(free_energy(q, scores, [filter_], [0.25])))
    assert energies == sorted(energies, reverse=True)
    alone = float(free_energy(scores.softmax(-1), scores, [], []))
    assert alone == pytest.approx(-float(scores.logsumexp(-1).sum()))


def test_mean_field_gradients_on_the_lattice_are_right() -> None:
    features = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    filter_ = normalized(build_lattice(features), "after")
    scores = random_scores(1, 6, 2).requires_grad_()
    gain = torch.tensor([[1.0, 0.3], [-0.2, 2.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, g: mean_field(s, [filter_], [g], iterations=2), (scores, gain))


def test_position_features_count_columns_first() -> None:
    features = position_features(2, 3, 2.0)
    assert features.tolist() == [[[0, 0], [0.5, 0], [1, 0], [0, 0.5], [0.5, 0.5], [1, 0.5]]]


def test_bilateral_features_append_every_channel() -> None:
    image = torch.arange(16, dtype=torch.uint8).reshape(2, 2, 2, 2)
    features = bilateral_features(image, 2.0, 4.0)
    assert features.shape == (2, 4, 4)
    assert features[1, 3].tolist() == [0.5, 0.5, 11 / 4, 15 / 4]


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_features_of_impossible_width_are_refused(sigma: float) -> None:
    with pytest.raises(InvalidValue, match=f"position width of a CRF kernel must be a positive number, got {sigma}"):
        position_features(2, 2, sigma)
    with pytest.raises(InvalidValue, match="the color width of a CRF kernel must be a positive number"):
        bilateral_features(torch.zeros(1, 3, 2, 2), 1.0, sigma)


@pytest.mark.parametrize(
    ("gains", "iterations", "message"),
    [
        ([1.0], -1, "iterations of mean field must be >= 0, got -1"),
        ([], 1, "one gain per filter, got 0 for 1"),
        ([torch.ones(2)], 1, r"a compatibility of 3 classes cannot have shape \(2,\)"),
        ([torch.ones(3, 2)], 1, r"of 3 classes cannot have shape \(3, 2\)"),
    ],
)
def test_mean_field_wrong_arguments_are_refused(gains: list, iterations: int, message: str) -> None:
    scores = random_scores(1, 12, 3)
    with pytest.raises(InvalidValue, match=message):
        mean_field(scores, [sample_filter()], gains, iterations=iterations)
    with pytest.raises(InvalidValue, match=message):
        mean_field_(lambda rows: scores[:, rows], (1, 12, 3), [sample_filter()], gains, iterations=iterations)


def test_compatibility_gain_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"a number, \(K,\) or \(K, K\), got \(2, 3\)"):
        compatibility_gain(torch.ones(2, 3))


def test_normalized_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidValue, match="normalization is one of none, before, after, symmetric, got 'both'"):
        normalized(sample_filter(), "both")


def test_exact_filter_of_a_large_image_is_refused() -> None:
    with pytest.raises(InvalidValue, match="16385 points needs a matrix of their square"):
        exact_filter(torch.zeros(1, 16385, 2))
