"""Recipes of FCN: the numbers of the authors' release."""

from __future__ import annotations

import pytest

from perpixel.recipes import get_recipe


def test_recipe_fcn_voc_trains_32s_then_16s_then_8s() -> None:
    config = get_recipe("fcn_voc")
    assert [(s.name, s.start, s.steps) for s in config.stages] == [
        ("fcn32s", "scratch", 100_000),
        ("fcn16s", "previous", 100_000),
        ("fcn8s", "previous", 100_000),
    ]
    assert [config.model_of(i).options["stride"] for i in range(3)] == [32, 16, 8]
    assert [s.optimizer.lr for s in config.stages] == [1e-10, 1e-12, 1e-14]
    weights = [config.model_of(i).backbone for i in range(3)]
    assert [(b.name, b.weights) for b in weights if b is not None] == [
        ("vgg16", "timm"),
        ("vgg16", "none"),
        ("vgg16", "none"),
    ]


def test_recipe_fcn8s_at_once_has_one_stage_three_times_as_long() -> None:
    config = get_recipe("fcn8s_at_once_voc")
    (stage,) = config.stages
    assert (stage.optimizer.lr, stage.steps) == (1e-10, 300_000)
    assert config.model_of(0).options == {"stride": 8, "at_once": True}


@pytest.mark.parametrize("name", ["fcn_voc", "fcn8s_at_once_voc"])
def test_recipe_fcn_has_the_solver_of_the_release(name: str) -> None:
    config = get_recipe(name)
    assert (config.data.batch_size, config.data.flip, config.data.scales) == (1, 0.0, None)
    assert config.evaluation.every == 4000
    for stage in config.stages:
        optimizer = stage.optimizer
        assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.99, 5e-4)
        assert stage.schedule.name == "constant"
        assert stage.terms is None  # the network's own: summed
        (rule,) = stage.groups
        assert (rule.pattern, rule.lr_factor, rule.weight_decay) == (r"\.bias$", 2.0, 0.0)
