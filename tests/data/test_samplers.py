"""The order of samples: complete, repeatable, and rare classes as often as their factors ask."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from perpixel.data.samplers import SampleOrder, repeat_factors
from perpixel.errors import InvalidValue


def test_sample_order_without_factors_shows_each_sample_once_per_epoch() -> None:
    order = SampleOrder(7, seed=3)
    epochs = [[order[epoch * 7 + place] for place in range(7)] for epoch in range(3)]
    for number, draws in enumerate(epochs):
        assert sorted(draw.index for draw in draws) == list(range(7))
        assert {(draw.epoch, draw.occurrence) for draw in draws} == {(number, 0)}
    assert epochs[0] != epochs[1]


def test_sample_order_of_equal_factors_is_that_without() -> None:
    plain, weighted = SampleOrder(9, seed=1), SampleOrder(9, seed=1, factors=(2.0,) * 9)
    assert [plain[i] for i in range(20)] == [weighted[i] for i in range(20)]


@pytest.mark.parametrize("factors", [(1, 1, 1, 4), (1, 1, 2, 1, 1, 3.5, 1), (0.2, 5)])
def test_sample_order_draws_each_sample_as_often_as_its_factor_says(factors: tuple[float, ...]) -> None:
    count, epochs = len(factors), 400
    order = SampleOrder(count, seed=0, factors=factors)
    wanted = count * np.array(factors) / sum(factors)
    total: Counter[int] = Counter()
    for epoch in range(epochs):
        draws = [order[epoch * count + place] for place in range(count)]
        times = Counter(draw.index for draw in draws)
        assert all(abs(times[i] - wanted[i]) < 1 for i in range(count))
        assert len({(draw.index, draw.occurrence) for draw in draws}) == count
        assert all(draw.occurrence < times[draw.index] for draw in draws)
        total.update(times)
    assert np.array([total[i] for i in range(count)]) / epochs == pytest.approx(wanted, abs=0.1)


def test_sample_order_is_the_same_wherever_it_begins_and_differs_by_seed() -> None:
    factors = (1.0, 2.0, 3.0, 1.0)
    first, again = SampleOrder(4, seed=5, factors=factors), SampleOrder(4, seed=5, factors=factors)
    assert [first[i] for i in range(30)] == [again[i] for i in reversed(range(30))][::-1]
    other = SampleOrder(4, seed=6, factors=factors)
    assert [first[i] for i in range(30)] != [other[i] for i in range(30)]


def test_repeat_factors_follow_the_rarest_class_of_an_image() -> None:
    presence = np.zeros((100, 3), dtype=bool)
    presence[:, 0] = True
    presence[:4, 1] = True  # f = 0.04: sqrt(0.16 / 0.04) = 2
    presence[3, 2] = True  # f = 0.01: 4
    factors = repeat_factors(presence, 0.16)
    assert factors[:5] == pytest.approx((2, 2, 2, 4, 1))
    assert set(factors[4:]) == {1.0}


def test_repeat_factors_of_images_without_class_are_one() -> None:
    assert repeat_factors(np.zeros((3, 2), dtype=bool), 0.5) == (1, 1, 1)


def test_sample_order_and_factors_refuse_what_is_out_of_range() -> None:
    with pytest.raises(InvalidValue, match="at least one sample and a seed >= 0, got 0 and 1"):
        SampleOrder(0, 1)
    with pytest.raises(InvalidValue, match="factors are 3 positive numbers, one per sample"):
        SampleOrder(3, 1, factors=(1.0, 2.0))
    with pytest.raises(InvalidValue, match="factors are 2 positive numbers"):
        SampleOrder(2, 1, factors=(1.0, 0.0))
    with pytest.raises(InvalidValue, match=r"in \(0, 1\], got 0"):
        repeat_factors(np.ones((2, 2), dtype=bool), 0)
    with pytest.raises(InvalidValue, match=r"class_presence is \(images, classes\), got \(3,\)"):
        repeat_factors(np.ones(3, dtype=bool), 0.1)
