"""variant: changed copies of a configuration, checked again."""

from __future__ import annotations

from typing import Any

import pytest

from perpixel.config import DataChoice, ModelChoice, OptimizerChoice, RunConfig, Stage, variant
from perpixel.errors import ConfigError

BASE = RunConfig(
    name="base",
    data=DataChoice(crop_size=(64, 96), scale_range=(0.5, 2.0)),
    stages=(Stage(model=ModelChoice(options={"width": 32}), optimizer=OptimizerChoice(name="sgd", lr=0.1), steps=100),),
)


def test_variant_without_changes_is_equal() -> None:
    assert variant(BASE) == BASE


def test_variant_mappings_merge_and_leave_the_base_alone() -> None:
    changed = variant(
        BASE, data={"batch_size": 2}, optimizer={"lr": 0.01}, model={"options": {"border_width": 4}}, seed=3
    )
    assert changed.data.batch_size == 2 and changed.data.crop_size == (64, 96)
    assert changed.stages[0].optimizer == OptimizerChoice(name="sgd", lr=0.01)
    assert changed.stages[0].model == ModelChoice(options={"width": 32, "border_width": 4})
    assert changed.seed == 3
    assert BASE.data.batch_size == 8 and BASE.stages[0].optimizer.lr == 0.1


def test_variant_models_and_plain_values_replace() -> None:
    changed = variant(BASE, model=ModelChoice(name="fcn"), data={"scale_range": None, "scales": (0.5, 1.0)}, name="new")
    assert changed.stages[0].model == ModelChoice(name="fcn")
    assert changed.data.scales == (0.5, 1.0) and changed.data.scale_range is None
    assert changed.name == "new"


def test_variant_nested_models_and_stages_are_taken() -> None:
    second = Stage(name="b", start="previous", steps=3)
    changed = variant(BASE, stages=(*BASE.stages, second))
    assert changed.stages == (*BASE.stages, second)
    assert variant(BASE, optimizer={"betas": (0.8, 0.9)}).stages[0].optimizer.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepps": 3}, "variant of 'base': key 'stepps': unknown key; did you mean 'steps'?"),
        ({"steps": 0}, "variant of 'base': key 'stages.0.steps' = 0: must be greater than or equal to 1"),
        ({"optimizer": {"lrr": 1}}, "key 'stages.0.optimizer.lrr' = 1: unknown key; did you mean 'lr'?"),
        ({"data": {"scales": [1.0]}}, "scales = [1.0] and scale_range = [0.5, 2.0] exclude each other"),
    ],
)
def test_variant_change_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        variant(BASE, **changes)
    assert message in str(caught.value)


def test_variant_stage_field_with_several_stages_is_refused() -> None:
    two = variant(BASE, stages=(*BASE.stages, Stage(name="b", steps=3)))
    with pytest.raises(ConfigError, match=r"there are 2 \(0 'main', 1 'b'\): write stages\.N\.steps"):
        variant(two, steps=3)
    assert variant(two, seed=9).seed == 9
