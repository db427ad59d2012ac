"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.engine.schedules import SCHEDULES, ScheduleOptions, create_schedule
from perpixel.errors import InvalidValue


def factor(name: str, step: int, **options: Any) -> float:
    return create_schedule(name, ScheduleOptions(**{"steps": 100, **options})).factor(step)


def test_poly_torchseg_dfn_iterations_equal_its_schedule() -> None:
    # Recorded from TorchSeg's PolyLR(8e-4, 0.9, 39600), float64.
    recorded = {
        0: 0.0008,
        1: 0.0007999818181588611,
        100: 0.0007981815884005613,
        19800: 0.0004287093850145173,
        39599: 5.823235040141661e-08,
    }
    for iteration, rate in recorded.items():
        assert 8e-4 * factor("poly", iteration, steps=39600) == pytest.approx(rate, rel=1e-14)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 10_000), st.data(), st.floats(0.1, 3))
def test_poly_any_step_equals_its_formula_exactly(steps: int, data: st.DataObject, power: float) -> None:
    step = data.draw(st.integers(0, steps))
    assert factor("poly", step, steps=steps, power=power) == (1 - step / steps) ** power


def test_poly_every_holds_the_factor_between_multiples() -> None:
    assert factor("poly", 19, every=10) == factor("poly", 10) == factor("poly", 10, every=10)
    assert factor("poly", 20, every=10) == factor("poly", 20)


def test_poly_beyond_the_end_stays_zero() -> None:
    assert factor("poly", 150) == 0


def test_step_drops_at_each_milestone() -> None:
    found = [factor("step", step, milestones=(10, 50), gamma=0.5) for step in (9, 10, 49, 50, 99)]
    assert found == [1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_has_its_known_values() -> None:
    found = [factor("cosine", step) for step in (0, 50, 100, 200)]
    assert found == pytest.approx([1, 0.5, 0, 0], abs=1e-15)


def test_warmup_ramps_linearly_and_then_leaves_the_schedule_alone() -> None:
    found = [factor("constant", step, warmup_steps=10, warmup_factor=0.2) for step in (0, 5, 10, 11)]
    assert found == pytest.approx([0.2, 0.6, 1, 1])
    assert factor("poly", 10, warmup_steps=10) == factor("poly", 10)
    assert factor("poly", 5, warmup_steps=10, warmup_factor=0) == factor("poly", 5) * 0.5


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_min_factor_is_a_floor(name: str) -> None:
    schedule = create_schedule(name, ScheduleOptions(steps=10, min_factor=0.3, milestones=(1, 2), patience=0))
    for _ in range(5):
        schedule.observe(0.0)
    assert min(schedule.factor(step) for step in range(11)) >= 0.3
    assert schedule.factor(0) <= 1


def test_plateau_drops_after_patience_without_gain() -> None:
    schedule = create_schedule("plateau", ScheduleOptions(steps=100, gamma=0.5, patience=1, threshold=0.01))
    found = []
    for score in (0.5, 0.505, 0.6, math.nan, 0.6, 0.6, 0.6):
        schedule.observe(score)
        found.append(schedule.factor(0))
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.25]


def test_plateau_state_round_trip_continues() -> None:
    options = ScheduleOptions(steps=100, gamma=0.5, patience=1)
    first, second = create_schedule("plateau", options), create_schedule("plateau", options)
    for score in (0.5, 0.4, 0.4, 0.4):
        first.observe(score)
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.observe(0.4)
    assert first.state_dict() == second.state_dict()
    assert second.factor(3) == 0.25


def test_schedule_other_than_plateau_ignores_scores() -> None:
    schedule = create_schedule("constant", ScheduleOptions(steps=10, patience=0))
    for _ in range(4):
        schedule.observe(0.0)
    assert schedule.factor(5) == 1


def test_schedule_unknown_name_raises_with_nearest() -> None:
    with pytest.raises(InvalidValue, match=r"unknown schedule 'polly'; known: poly, .*did you mean 'poly'"):
        create_schedule("polly", ScheduleOptions(steps=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("power", -1),
        ("every", 0),
        ("milestones", (5, 3)),
        ("gamma", 0),
        ("patience", -1),
        ("warmup_steps", -1),
        ("warmup_factor", 2),
        ("min_factor", -0.1),
    ],
)
def test_schedule_option_out_of_range_raises_with_the_value(name: str, value: Any) -> None:
    with pytest.raises(
        InvalidValue, match=rf"schedule: {name} must be .*got {str(value).replace('(', '.').replace(')', '.')}"
    ):
        ScheduleOptions(**{"steps": 5, name: value})
