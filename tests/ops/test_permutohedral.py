from itertools import pairwise

import numpy as np
import pytest
import torch
from lattice_by_hand import filter_by_hand

from perpixel.errors import InvalidValue
from perpixel.ops import permutohedral
from perpixel.ops.mean_field import bilateral_features, exact_filter, normalized, position_features
from perpixel.ops.permutohedral import build_lattice


def points(batch: int, count: int, dims: int, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, dims, generator=generator, dtype=torch.float64) * spread


def textured_image(height: int, width: int, batch: int = 1) -> torch.Tensor:
    """Raw colours (B, 3, H, W): slow waves, an edge and noise."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    waves = torch.stack([100 + 60 * torch.sin(x / 9 + i) * torch.cos(y / 7) + 50 * (x > width // 2) for i in range(3)])
    noise = 4 * torch.randn(batch, 3, height, width, generator=generator)
    return (waves + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("dims", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_filter_random_points_equals_the_one_by_hand(dims: int, reverse: bool) -> None:
    features = points(1, 60, dims, spread=0.8)
    values = points(1, 60, 3, seed=1)
    ours = build_lattice(features).filter(values, reverse=reverse)[0].numpy()
    by_hand = filter_by_hand(features[0].numpy(), values[0].numpy(), reverse=reverse)
    np.testing.assert_allclose(ours, by_hand, atol=1e-12)


def test_filter_image_equals_the_one_by_hand() -> None:
    image = textured_image(9, 11)
    features = bilateral_features(image, 4.0, 12.0)
    values = points(1, 99, 2, seed=2)
    by_hand = filter_by_hand(features[0].numpy(), values[0].numpy())
    np.testing.assert_allclose(build_lattice(features).filter(values)[0].numpy(), by_hand, atol=1e-12)


def test_filter_points_on_lattice_ties_equal_the_one_by_hand() -> None:
    features = torch.zeros(1, 4, 2, dtype=torch.float64)
    features[0, 1] = 1.0
    features[0, 2] = -1.0
    values = torch.eye(4, dtype=torch.float64)[None]
    by_hand = filter_by_hand(features[0].numpy(), values[0].numpy())
    np.testing.assert_allclose(build_lattice(features).filter(values)[0].numpy(), by_hand, atol=1e-12)


def test_filter_batch_equals_loop_of_singles() -> None:
    features = points(3, 50, 5, spread=0.7)
    values = points(3, 50, 4, seed=1)
    together = build_lattice(features).filter(values)
    alone = [build_lattice(f[None]).filter(v[None])[0] for f, v in zip(features, values, strict=True)]
    assert torch.equal(together, torch.stack(alone))


def test_filter_one_lattice_serves_a_batch_of_values() -> None:
    lattice = build_lattice(points(1, 40, 2))
    values = points(3, 40, 5, seed=1)
    alone = torch.cat([lattice.filter(v[None]) for v in values])
    torch.testing.assert_close(lattice.filter(values), alone, rtol=0, atol=1e-14)


def test_filter_shuffled_points_give_shuffled_results() -> None:
    features, values = points(1, 80, 5), points(1, 80, 2, seed=1)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    shuffled = build_lattice(features[:, order]).filter(values[:, order])
    torch.testing.assert_close(shuffled, build_lattice(features).filter(values)[:, order], rtol=0, atol=1e-13)


def test_filter_reverse_is_the_transpose() -> None:
    lattice = build_lattice(points(2, 30, 4, spread=0.6))
    x, y = points(2, 30, 3, seed=1), points(2, 30, 3, seed=2)
    forward, backward = (lattice.filter(x) * y).sum(), (lattice.filter(y, reverse=True) * x).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-12)


def test_filter_many_channels_in_rounds_equal_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lattice = build_lattice(points(1, 50, 3))
    values = points(1, 50, 11, seed=1)
    at_once = lattice.filter(values)
    monkeypatch.setattr(permutohedral, "_TABLE_BYTES", (lattice.vertices + 1) * 8 * 3)
    assert torch.equal(lattice.filter(values), at_once)


@pytest.mark.parametrize("lattice_batch", [1, 2], ids=["lattice_for_all", "lattice_each"])
@pytest.mark.parametrize("channels_at_a_time", [1, 2, 4])
@pytest.mark.parametrize("gain", [-0.7, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)], ids=["number", "vector"])
def test_add_filtered_in_given_room_equals_the_filter(lattice_batch, channels_at_a_time, gain, monkeypatch) -> None:
    lattice = build_lattice(points(lattice_batch, 40, 4, spread=0.6))
    values, whole = points(2, 40, 3, seed=1), points(2, 40, 5, seed=2)
    expected = whole.clone()
    expected[..., 1:4] += lattice.filter(values) * gain
    monkeypatch.setattr(permutohedral, "_ROWS_AT_A_TIME", 7)
    room = torch.full((lattice.room_per_channel * channels_at_a_time,), torch.nan, dtype=torch.float64)
    lattice.add_filtered_(whole[..., 1:4], values, gain, room)
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-13)


def test_build_points_in_rounds_equal_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = points(2, 50, 5), points(2, 50, 3, seed=1)
    at_once = build_lattice(features).filter(values)
    monkeypatch.setattr(permutohedral, "_POINTS_AT_A_TIME", 7)
    assert torch.equal(build_lattice(features).filter(values), at_once)


def test_filter_rows_in_rounds_equal_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = points(2, 50, 5, spread=0.6), points(2, 50, 3, seed=1)
    at_once = build_lattice(features).filter(values)
    monkeypatch.setattr(permutohedral, "_ROWS_AT_A_TIME", 7)
    assert torch.equal(build_lattice(features).filter(values), at_once)


def test_filter_float32_is_near_float64_and_keeps_the_values_type() -> None:
    features, values = points(1, 200, 5, spread=0.5), points(1, 200, 3, seed=1)
    single = build_lattice(features, dtype=torch.float32).filter(values.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), build_lattice(features).filter(values), rtol=1e-5, atol=1e-5)
    assert build_lattice(features.float()).filter(values.bfloat16()).dtype == torch.bfloat16


def test_filter_one_point_gets_its_own_value_times_one_factor() -> None:
    lattice = build_lattice(torch.tensor([[[3.2, -1.0]]], dtype=torch.float64))
    values = torch.tensor([[[2.0, -4.0]]], dtype=torch.float64)
    factors = (lattice.filter(values) / values).flatten()
    assert lattice.vertices == 3
    assert factors[0] == factors[1] > 0


def test_filter_distant_points_do_not_see_each_other() -> None:
    features = torch.tensor([[[0.0, 0.0], [100.0, 0.0]]], dtype=torch.float64)
    result = build_lattice(features).filter(torch.eye(2, dtype=torch.float64)[None])[0]
    assert result[0, 1] == result[1, 0] == 0


@pytest.mark.parametrize("dims", [2, 5])
def test_filter_gradient_is_right_twice(dims: int) -> None:
    lattice = build_lattice(points(2, 6, dims, spread=0.5))
    values = points(2, 6, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lattice.filter, values)
    assert torch.autograd.gradgradcheck(lattice.filter, values)


@pytest.mark.parametrize("normalization", ["before", "after", "symmetric"])
def test_filter_scaled_gradient_is_right(normalization: str) -> None:
    lattice = normalized(build_lattice(points(2, 6, 5, spread=0.5)), normalization)
    assert torch.autograd.gradcheck(lattice.filter, points(2, 6, 2, seed=1).requires_grad_())


def test_scaled_equals_factors_around_the_filter() -> None:
    lattice = build_lattice(points(2, 30, 3))
    values, before, after = points(2, 30, 2, seed=1), points(2, 30, 1, seed=2), points(2, 30, 1, seed=3)
    wanted = lattice.filter(values * before) * after
    ours = lattice.scaled(before[..., 0], after[..., 0]).filter(values)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("features", "largest"),
    [(position_features(48, 64, 3.0), 0.013), (bilateral_features(textured_image(48, 64), 80.0, 13.0), 0.013)],
    ids=["position", "bilateral"],
)
def test_filter_normalised_is_near_the_exact_one(features: torch.Tensor, largest: float) -> None:
    """specs/classic.md, section 7: mean difference 0.001 to 0.013 on random values in [0, 1]."""
    values = torch.rand(1, features.shape[1], 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = normalized(build_lattice(features), "after").filter(values)
    exact = normalized(exact_filter(features), "after").filter(values)
    assert (ours - exact).abs().mean() <= largest
    assert (ours - exact).abs().max() > 0


def test_vertices_grow_at_most_with_the_points() -> None:
    counts = [build_lattice(bilateral_features(textured_image(32, side), 60.0, 3.0)).vertices for side in (16, 32, 64)]
    assert all(count <= 6 * 32 * side for count, side in zip(counts, (16, 32, 64), strict=True))
    assert all(second < 2.5 * first for first, second in pairwise(counts))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(5, 2), r"features must be \(B, N, D\) without empty sides, got \(5, 2\)"),
        (torch.zeros(1, 0, 2), r"without empty sides, got \(1, 0, 2\)"),
        (torch.tensor([[[0.0, float("nan")], [float("inf"), 1.0]]]), "2 of 4 features are not finite"),
        (torch.eye(9)[None] * 1e9, "more than 63 bits can number; take larger kernel widths"),
    ],
    ids=["shape", "empty", "not finite", "too far apart"],
)
def test_build_unusable_features_are_refused(features: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        build_lattice(features)


def test_build_half_precision_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"float32 or float64, got torch\.float16"):
        build_lattice(torch.zeros(1, 3, 2), dtype=torch.float16)


@pytest.mark.parametrize("shape", [(1, 4, 2), (5, 2), (3, 5, 1)])
def test_filter_values_of_other_points_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue, match=r"values must be \(B, N, C\) = \(2, 5, C\)"):
        build_lattice(torch.zeros(2, 5, 2)).filter(torch.zeros(shape))


def test_scaled_twice_is_refused() -> None:
    lattice = build_lattice(torch.zeros(1, 2, 2)).scaled(torch.ones(1, 2), None)
    with pytest.raises(InvalidValue, match="scaled already"):
        lattice.scaled(None, torch.ones(1, 2))


@pytest.mark.gpu
def test_filter_on_gpu_equals_cpu() -> None:
    features, values = points(2, 500, 5), points(2, 500, 7, seed=1)
    on_gpu = build_lattice(features.cuda()).filter(values.cuda())
    torch.testing.assert_close(on_gpu.cpu(), build_lattice(features).filter(values), rtol=0, atol=1e-12)
