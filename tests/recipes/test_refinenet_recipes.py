"""The recipes of RefineNet and its light-weight form: published numbers, and what they train."""

from __future__ import annotations

import pytest

from perpixel.build.checks import check_names
from perpixel.build.networks import build_optimizer
from perpixel.models import Network, RefineNetLWConfig, create_model
from perpixel.recipes import get_recipe

NAMES = ("refinenet_voc", "refinenet_cityscapes", "refinenet_lw_nyud", "refinenet_lw_mbv2_voc")


def rates(name: str, network: Network, index: int = 0) -> dict[str, tuple[float, float]]:
    """Name of every trained parameter → (learning rate, weight decay)."""
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in build_optimizer(get_recipe(name).stages[index], network).param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("name", NAMES)
def test_refinenet_recipe_names_only_what_exists(name: str) -> None:
    assert check_names(get_recipe(name)) == []


@pytest.mark.parametrize(("name", "crop"), [("refinenet_voc", (400, 400)), ("refinenet_cityscapes", (600, 600))])
def test_refinenet_recipes_have_the_numbers_of_the_authors_demo(name: str, crop: tuple[int, int]) -> None:
    config = get_recipe(name)
    (stage,) = config.stages
    assert (config.data.crop_size, config.data.batch_size) == (crop, 1)
    assert config.data.scales == (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    assert (stage.optimizer.momentum, stage.schedule.name, stage.schedule.gamma) == (0.9, "step", 0.1)
    assert stage.freeze_batch_norm
    assert stage.model is not None and stage.model.options == {"scales": (1.2,)}
    network = create_model("refinenet", {"width": 4, "coarse_width": 4}, num_classes=3, backbone="test_resnet")
    found = rates(name, network)
    assert found["blocks.0.inputs.0.project.weight"] == (pytest.approx(5e-4), 5e-4)
    assert found["classifier.weight"] == (pytest.approx(5e-4), 5e-4)
    assert found["backbone.net.layer1.0.conv1.weight"] == (pytest.approx(5e-5), 5e-4)


def test_light_recipe_has_the_three_stages_of_its_code() -> None:
    config = get_recipe("refinenet_lw_nyud")
    assert [stage.optimizer.lr for stage in config.stages] == [5e-4, 2.5e-4, 1e-4]
    assert [stage.start for stage in config.stages] == ["scratch", "previous", "previous"]
    assert {stage.steps for stage in config.stages} == {100 * 132}
    assert all(stage.freeze_batch_norm and stage.optimizer.weight_decay == 1e-5 for stage in config.stages)
    assert (config.data.batch_size, config.data.crop_size) == (6, (500, 500))
    assert config.data.scale_range is not None and config.data.scale_range[0] * 480 == pytest.approx(350)
    network = create_model("refinenet_lw", {"width": 4, "coarse_width": 4}, num_classes=3, backbone="test_resnet")
    found = rates("refinenet_lw_nyud", network, 1)
    assert found["levels.0.laterals.0.project.weight"] == (pytest.approx(2.5e-3), 1e-5)
    assert found["backbone.net.layer1.0.conv1.weight"] == (pytest.approx(2.5e-4), 1e-5)


def test_mobilenet_recipe_builds_the_published_form() -> None:
    for index in range(3):
        model = get_recipe("refinenet_lw_mbv2_voc").model_of(index)
        assert model.backbone is not None and model.backbone.name == "drsleep_mobilenet_v2"
        assert RefineNetLWConfig(**model.options) == RefineNetLWConfig.mobilenet_v2()
