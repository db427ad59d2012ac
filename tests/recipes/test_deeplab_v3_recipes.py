"""The recipes of DeepLab v3 and v3+: published numbers, and what they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perpixel.build.checks import check_names
from perpixel.build.networks import build_optimizer
from perpixel.config import RunConfig, variant
from perpixel.models import Network, create_model
from perpixel.recipes import get_recipe

NAMES = (
    "deeplab_v3_voc",
    "deeplab_v3_voc_test",
    "deeplab_v3_cityscapes",
    "deeplab_v3plus_voc",
    "deeplab_v3plus_cityscapes",
    "deeplab_v3plus_resnet_voc",
)


def network_of(config: RunConfig, index: int = 0) -> Network:
    model = config.model_of(index)
    assert model.backbone is not None
    with torch.device("meta"):
        return create_model(model.name, {**model.options, "width": 4}, num_classes=3, backbone="resnet50")


def trained(config: RunConfig, index: int = 0) -> dict[str, float]:
    """Name of every parameter that trains -> factor of the rate."""
    stage = config.stages[index]
    network = network_of(config, index)
    groups: list[dict[str, Any]] = build_optimizer(stage, network).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: group["lr"] / stage.optimizer.lr for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", NAMES)
def test_recipe_names_only_what_exists(name: str) -> None:
    assert check_names(get_recipe(name)) == []


def test_unknown_trunk_beside_timms_is_a_problem_with_the_nearest_name() -> None:
    changed = variant(get_recipe("deeplab_v3plus_voc"), model={"backbone": {"name": "vainf_mobilenetv2_10"}})
    (problem,) = check_names(changed)
    assert "did you mean 'vainf_mobilenetv2_100'" in problem[2]


@pytest.mark.parametrize("name", ["deeplab_v3_voc", "deeplab_v3plus_voc"])
def test_voc_recipes_have_the_numbers_of_the_authors_code(name: str) -> None:
    config = get_recipe(name)
    (stage,) = config.stages
    assert (config.data.crop_size, config.data.batch_size, config.data.train_split) == ((513, 513), 16, "train_aug")
    assert config.data.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    assert (stage.optimizer.lr, stage.optimizer.momentum, stage.steps) == (0.007, 0.9, 30_000)
    assert stage.optimizer.weight_decay == (1e-4 if name == "deeplab_v3_voc" else 4e-5)
    assert (stage.schedule.name, stage.schedule.power) == ("poly", 0.9)
    assert stage.model is not None and stage.model.options["norm_momentum"] == 3e-4


def test_cityscapes_recipes_take_larger_windows_and_more_steps() -> None:
    for name in ("deeplab_v3_cityscapes", "deeplab_v3plus_cityscapes"):
        config = get_recipe(name)
        assert (config.data.crop_size, config.stages[0].steps) == ((769, 769), 90_000)


def test_second_stage_halves_the_stride_doubles_the_rates_and_leaves_batch_norms_alone() -> None:
    config = get_recipe("deeplab_v3_voc_test")
    first, second = config.model_of(0), config.model_of(1)
    assert first.backbone is not None and second.backbone is not None
    assert (first.backbone.output_stride, second.backbone.output_stride) == (16, 8)
    assert first.backbone.multi_grid == second.backbone.multi_grid == (1, 2, 4)
    assert (first.options["atrous_rates"], second.options["atrous_rates"]) == ((6, 12, 18), (12, 24, 36))
    assert (config.stages[1].optimizer.lr, config.stages[1].start) == (1e-3, "previous")
    assert config.data_of(1).train_split == "trainval"
    norms = {
        n for n in trained(config, 0) if any(part in n for part in (".norm.", "bn1", "bn2", "bn3", "downsample.1"))
    }
    assert len(norms) == 2 * (53 + 6)
    assert trained(config, 1).keys() == trained(config, 0).keys() - norms


def test_port_recipe_trains_the_backbone_a_tenth_as_fast() -> None:
    config = get_recipe("deeplab_v3plus_resnet_voc")
    network = network_of(config)
    assert {m.momentum for m in network.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}  # type: ignore[union-attr]
    assert {m.momentum for m in network.aspp.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}  # type: ignore[union-attr]
    factors = trained(config)
    assert factors["classifier.weight"] == pytest.approx(10)
    assert factors["backbone.net.conv1.weight"] == pytest.approx(1)
    assert config.stages[0].optimizer.lr == 1e-3
