"""ICNet's recipes: the stated numbers, and the stages of prune and tune."""

from __future__ import annotations

from itertools import pairwise

import torch

from perpixel.build.networks import build_optimizer
from perpixel.models import create_model
from perpixel.recipes import get_recipe
from perpixel.weights import prune_into


def test_icnet_recipes_have_the_stated_steps_and_sizes() -> None:
    config = get_recipe("icnet_cityscapes")
    (stage,) = config.stages
    assert stage.steps == 30_000
    assert stage.terms is None  # the network's own: 0.16, 0.4 and 1
    assert config.model_of(0).options["width"] == 32
    with torch.device("meta"):
        network = create_model("icnet", num_classes=19)
    assert network.valid_size(*config.data.crop_size) == config.data.crop_size


def test_icnet_pruned_recipe_narrows_the_full_width_in_two_rounds() -> None:
    config = get_recipe("icnet_pruned_cityscapes")
    assert [(s.name, s.start) for s in config.stages] == [
        ("full", "scratch"),
        ("three_quarters", "pruned"),
        ("half", "pruned"),
    ]
    models = [config.model_of(i) for i in range(3)]
    assert [m.options["width"] for m in models] == [64, 48, 32]
    assert [m.backbone.weights for m in models if m.backbone is not None] == ["timm", "none", "none"]
    assert {m.options["stride_on_1x1"] for m in models} == {False}


def test_icnet_pruned_recipe_has_widths_that_follow_from_each_other() -> None:
    widths = [get_recipe("icnet_pruned_cityscapes").model_of(i).options["width"] for i in range(3)]
    networks = [create_model("icnet", {"width": width // 16}, num_classes=2) for width in widths]  # type: ignore[operator]
    reports = [prune_into(smaller, larger) for larger, smaller in pairwise(networks)]
    assert {round(g.kept / g.channels, 3) for g in reports[0].groups} == {0.75}
    assert {round(g.kept / g.channels, 3) for g in reports[1].groups} == {0.667}


def test_icnet_resnet50_recipe_has_the_numbers_of_that_code() -> None:
    config = get_recipe("icnet_resnet50_cityscapes")
    (stage,) = config.stages
    assert (config.data.crop_size, config.data.batch_size) == ((960, 960), 7)
    assert (stage.optimizer.lr, stage.new_layers_lr_factor, stage.steps) == (0.01, 10.0, 200 * 425)
    options = config.model_of(0).options
    network = create_model("icnet", {**options, "width": 2}, num_classes=2, backbone="resnet10t")
    assert {round(group["lr"], 3) for group in build_optimizer(stage, network).param_groups} == {0.01, 0.1}
    assert [term.weight for term in network.default_terms()] == [1.0, 0.4, 0.4]
