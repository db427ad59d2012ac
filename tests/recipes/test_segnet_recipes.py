"""Recipes of SegNet and DeconvNet hold the numbers of the releases."""

from __future__ import annotations

import re

import pytest
import torch

from perpixel.labels import LabelSpace
from perpixel.models import create_model
from perpixel.recipes import get_recipe
from perpixel.recipes.segnet import CAMVID_CLASS_WEIGHTS


@pytest.mark.parametrize(
    ("name", "rate", "steps"), [("segnet_camvid", 1e-3, 40_000), ("segnet_basic_camvid", 0.1, 10_000)]
)
def test_segnet_recipes_have_the_tutorials_solver(name: str, rate: float, steps: int) -> None:
    config = get_recipe(name)
    stage = config.stages[0]
    assert (config.data.crop_size, config.data.batch_size, config.data.flip) == ((360, 480), 4, 0.0)
    optimizer = stage.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", rate, 0.9, 5e-4)
    assert (stage.schedule.name, stage.steps) == ("constant", steps)
    assert stage.class_weights == CAMVID_CLASS_WEIGHTS
    assert stage.terms is not None and stage.terms[0].options == {"normalise": "pixels"}


def test_camvid_class_weights_are_the_tutorials_in_the_order_of_the_labels() -> None:
    names = LabelSpace.load("camvid11").names
    weights = dict(zip(names, CAMVID_CLASS_WEIGHTS, strict=True))
    assert (weights["Sky"], weights["Road"], weights["SignSymbol"], weights["Bicyclist"]) == (
        0.2595,
        0.1417,
        9.6446,
        7.3614,
    )


def test_deconvnet_recipe_has_the_releases_two_stages() -> None:
    config = get_recipe("deconvnet_voc")
    first, second = config.stages
    assert (first.steps, second.steps, second.start) == (20_000, 40_000, "previous")
    assert (first.schedule.milestones, second.schedule.milestones) == ((9000, 18_000), (10_000, 20_000, 30_000))
    assert all(stage.optimizer.lr == 0.01 and stage.optimizer.weight_decay == 5e-4 for stage in config.stages)
    assert config.data.batch_size * first.accumulate == 64
    assert config.data_of(0).crop_size == (224, 224)
    assert (config.data_of(0).class_crop, config.data_of(1).class_crop) == (1.0, 0.5)


@pytest.mark.parametrize("name", ["segnet_camvid", "segnet_basic_camvid", "deconvnet_voc"])
def test_bias_rule_finds_the_biases_of_convolutions_alone(name: str) -> None:
    config = get_recipe(name)
    with torch.device("meta"):
        network = create_model(config.model_of(0).name, num_classes=2)
    (rule,) = config.stages[0].groups
    found = {n for n, _ in network.named_parameters() if re.search(rule.pattern, n)}
    norms = {n for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    wanted = {n for n, _ in network.named_parameters() if n.endswith(".bias") and n.removesuffix(".bias") not in norms}
    assert found == wanted
    assert (rule.lr_factor, rule.weight_decay) == (2.0, 0.0)
