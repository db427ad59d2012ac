"""The recipes of EncNet: published numbers, and what they train."""

from __future__ import annotations

import pytest
import torch

from perpixel.backbones import BackboneConfig
from perpixel.build.checks import check_names
from perpixel.build.networks import build_optimizer
from perpixel.config import RunConfig, Stage
from perpixel.models import Network, create_model
from perpixel.recipes import get_recipe

NAMES = ("encnet_pcontext", "encnet_ade20k", "encnet_r50_ade20k", "encnet_voc", "encnet_voc_finetune")


def stage_of(name: str) -> tuple[RunConfig, Stage]:
    config = get_recipe(name)
    (stage,) = config.stages
    return config, stage


def network_of(config: RunConfig) -> Network:
    model = config.model_of(0)
    assert model.backbone is not None
    trunk = BackboneConfig(**{**model.backbone.model_dump(), "weights": "none"})
    with torch.device("meta"):
        return create_model(model.name, model.options, num_classes=3, backbone=trunk)


@pytest.mark.parametrize("name", NAMES)
def test_encnet_recipe_names_only_what_exists_and_shares_the_codes_optimiser(name: str) -> None:
    config, stage = stage_of(name)
    assert check_names(config) == []
    assert (stage.optimizer.name, stage.optimizer.momentum, stage.optimizer.weight_decay) == ("sgd", 0.9, 1e-4)
    assert (stage.schedule.name, stage.schedule.power, config.data.batch_size) == ("poly", 0.9, 16)
    assert (stage.model and stage.model.backbone and stage.model.backbone.output_stride) == 8
    assert config.evaluation.every is not None and stage.steps % config.evaluation.every == 0


@pytest.mark.parametrize(
    ("name", "lr", "crop", "steps"),
    [
        ("encnet_pcontext", 1e-3, 480, 80 * 312),
        ("encnet_ade20k", 1e-2, 576, 120 * 1263),
        ("encnet_r50_ade20k", 1e-2, 480, 120 * 1263),
        ("encnet_voc", 1e-3, 480, 80 * 661),
        ("encnet_voc_finetune", 1e-4, 480, 50 * 91),
    ],
)
def test_encnet_recipe_has_the_codes_numbers(name: str, lr: float, crop: int, steps: int) -> None:
    config, stage = stage_of(name)
    assert (stage.optimizer.lr, config.data.crop_size, stage.steps) == (lr, (crop, crop), steps)


def test_images_of_pascal_get_long_sides_from_half_to_twice_the_base() -> None:
    for name in ("encnet_pcontext", "encnet_voc", "encnet_voc_finetune"):
        config, stage = stage_of(name)
        assert config.data.scale_range is not None
        assert [500 * factor for factor in config.data.scale_range] == pytest.approx([260, 1040])
        assert stage.model is not None and stage.model.options == {"lateral": True}
    assert stage_of("encnet_ade20k")[1].model.options == {"lateral": False}  # type: ignore[union-attr]


def test_new_layers_learn_ten_times_as_fast_and_everything_decays() -> None:
    config, stage = stage_of("encnet_pcontext")
    network = network_of(config)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = build_optimizer(stage, network).param_groups
    factors = {names[id(p)]: group["lr"] / stage.optimizer.lr for group in groups for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {1e-4}
    assert len(factors) == len(names)
    for name, factor in factors.items():
        assert factor == pytest.approx(1 if name.startswith("backbone.") else 10), name
    assert {"context.semantics.encoding.scale", "lateral.0.conv.weight"} <= set(factors)
