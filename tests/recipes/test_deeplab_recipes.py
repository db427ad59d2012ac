"""The recipes of DeepLab: published numbers, and what they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perpixel.build.checks import check_names
from perpixel.build.networks import build_optimizer
from perpixel.config import RunConfig, variant
from perpixel.labels import LabelSpace
from perpixel.models import Network, create_model
from perpixel.recipes import get_recipe
from perpixel.weights import Artifact, transfer

NAMES = ("deeplab_largefov_voc", "deeplab_msc_largefov_voc", "deeplab_v2_voc", "deeplab_v2_vgg_voc")


def network_of(config: RunConfig, index: int = 0, **narrow: int) -> Network:
    model = config.model_of(index)
    assert model.backbone is not None
    return create_model(model.name, {**model.options, **narrow}, num_classes=21, backbone=model.backbone.name)


def factors(config: RunConfig, network: Network, index: int = 0) -> dict[str, tuple[float, float]]:
    """Name of every trained parameter → (factor of the rate, weight decay)."""
    stage = config.stages[index]
    groups: list[dict[str, Any]] = build_optimizer(stage, network).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(p)]: (group["lr"] / stage.optimizer.lr, group["weight_decay"])
        for group in groups
        for p in group["params"]
    }


@pytest.mark.parametrize("name", NAMES)
def test_deeplab_recipe_names_only_what_exists(name: str) -> None:
    assert check_names(get_recipe(name)) == []


def test_unknown_caffe_resnet_is_a_problem_with_the_nearest_name() -> None:
    changed = variant(get_recipe("deeplab_v2_voc"), model={"backbone": {"name": "cafe_resnet101"}})
    (problem,) = check_names(changed)
    assert problem[0] == "stages.0.model.backbone.name"
    assert "did you mean 'caffe_resnet101'" in problem[2]


def test_largefov_recipe_has_the_papers_numbers() -> None:
    config = get_recipe("deeplab_largefov_voc")
    (stage,) = config.stages
    assert (config.data.crop_size, config.data.batch_size, config.data.train_split) == ((321, 321), 20, "train_aug")
    assert config.data.scales is None and config.data.flip == 0.5
    assert (stage.optimizer.lr, stage.optimizer.momentum, stage.optimizer.weight_decay) == (1e-3, 0.9, 5e-4)
    assert (stage.schedule.name, stage.schedule.milestones, stage.schedule.gamma) == ("step", (2000, 4000), 0.1)
    assert stage.steps == 6000
    trained = factors(config, network_of(config, width=1, fc_width=2))
    assert trained["classifier.weight"] == (pytest.approx(10), 5e-4)
    assert trained["classifier.bias"] == (pytest.approx(20), 0.0)
    assert trained["backbone.fc6.weight"] == (pytest.approx(1), 5e-4)
    assert trained["backbone.conv1_1.bias"] == (pytest.approx(2), 0.0)


def test_msc_recipe_trains_the_branches_and_the_classifier_on_frozen_layers() -> None:
    config = get_recipe("deeplab_msc_largefov_voc")
    assert [stage.steps for stage in config.stages] == [6000, 8000]
    assert config.stages[1].start == "previous"
    trained = factors(config, network_of(config, 1, width=1, fc_width=2), 1)
    assert {name.split(".")[0] for name in trained} == {"branches", "classifier"}
    assert trained["branches.0.conv.weight"] == (pytest.approx(1), 5e-4)
    assert trained["branches.4.classifier.bias"] == (pytest.approx(2), 0.0)


def test_msc_stage_takes_over_all_of_largefov() -> None:
    config = get_recipe("deeplab_msc_largefov_voc")
    narrow = {"width": 4, "fc_width": 32}
    first, second = network_of(config, 0, **narrow), network_of(config, 1, **narrow, msc_width=8)
    labels = LabelSpace.load("voc")
    source = Artifact(network=first, labels=labels, provenance={}, preprocessing=first.preprocessing)
    report = transfer(second, labels, source)
    assert set(report.matched) == set(first.state_dict())
    assert report.left_over == ()
    state = second.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


def test_deeplab_v2_recipe_has_the_ports_numbers() -> None:
    config = get_recipe("deeplab_v2_voc")
    (stage,) = config.stages
    assert config.data.scales == (0.5, 0.75, 1.0, 1.25, 1.5)
    assert (config.data.crop_size, config.data.batch_size, stage.accumulate) == ((321, 321), 5, 2)
    assert (stage.optimizer.lr, stage.optimizer.momentum, stage.optimizer.weight_decay) == (2.5e-4, 0.9, 5e-4)
    assert (stage.schedule.name, stage.schedule.power, stage.schedule.every, stage.steps) == ("poly", 0.9, 10, 20_000)
    assert stage.freeze_batch_norm
    network = network_of(config, width=1)
    trained = factors(config, network)
    assert not any(".norm." in name for name in trained)
    assert trained["backbone.layer2.block1.reduce.conv.weight"] == (pytest.approx(1), 5e-4)
    assert trained["branches.3.classifier.weight"] == (pytest.approx(10), 5e-4)
    assert trained["branches.3.classifier.bias"] == (pytest.approx(20), 0.0)
    assert [term.name for term in network.default_terms()] == ["main", "scale1", "scale0.5", "scale0.75"]


def test_deeplab_v2_vgg_recipe_trains_one_scale_with_the_factors_of_v1() -> None:
    config = get_recipe("deeplab_v2_vgg_voc")
    network = network_of(config, width=1, branch_width=2)
    assert len(network.default_terms()) == 1
    trained = factors(config, network)
    assert trained["branches.0.classifier.weight"] == (pytest.approx(10), 5e-4)
    assert trained["branches.0.fc6.bias"] == (pytest.approx(2), 0.0)
    assert (config.stages[0].schedule.name, config.stages[0].steps, config.data.batch_size) == ("poly", 20_000, 10)
