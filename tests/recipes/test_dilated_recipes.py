"""DilatedNet's and ParseNet's recipes: their numbers, and what each stage starts from and trains."""

from __future__ import annotations

import pytest
import torch

from perpixel.build.networks import build_optimizer
from perpixel.labels import LabelSpace
from perpixel.models import create_model, network_description
from perpixel.recipes import get_recipe
from perpixel.types import Preprocessing
from perpixel.weights import Artifact, transfer

THIN = {"width": 2, "fc_width": 3}


def test_dilatednet_voc_has_the_published_stages() -> None:
    front, context, joint = get_recipe("dilatednet_voc").stages
    assert [stage.name for stage in (front, context, joint)] == ["front_end", "context", "joint"]
    assert [stage.start for stage in (front, context, joint)] == ["scratch", "previous", "previous"]
    assert [stage.optimizer.lr for stage in (front, context, joint)] == [1e-3, 1e-3, 1e-5]
    assert {(stage.optimizer.momentum, stage.optimizer.weight_decay) for stage in (front, context, joint)} == {
        (0.9, 5e-4)
    }
    assert front.steps == 60_000
    assert get_recipe("dilatednet_voc").data.crop_size == (501, 501)
    assert context.data["crop_size"] == [901, 901]
    assert context.model is not None and context.model.options["dropout"] == 0


def test_dilatednet_camvid_has_the_published_numbers() -> None:
    config = get_recipe("dilatednet_camvid")
    front, joint = config.stages
    assert (config.data.batch_size, front.optimizer.lr, front.optimizer.momentum, front.steps) == (
        8,
        1e-4,
        0.99,
        20_000,
    )
    assert (joint.data["batch_size"], joint.optimizer.lr, joint.optimizer.momentum) == (1, 1e-5, 0.9)
    assert config.data.crop_size == (629, 629)
    assert joint.data["crop_size"] == [360 + 372 + 1, 480 + 372 + 1]


def test_dilatednet_kitti_has_the_published_numbers() -> None:
    config = get_recipe("dilatednet_kitti")
    front, joint = config.stages
    assert (config.data.batch_size, config.data.crop_size, config.labels) == (8, (629, 629), None)
    assert [stage.optimizer.lr for stage in config.stages] == [1e-4, 1e-5]
    assert [stage.optimizer.momentum for stage in config.stages] == [0.99, 0.99]
    assert [stage.steps for stage in config.stages] == [10_000, 20_000]
    assert joint.data == {"batch_size": 1, "crop_size": [901, 901]}
    assert (front.start, joint.start) == ("scratch", "previous")
    assert joint.model is not None and joint.model.options["context_layers"] == 7


def test_dilatednet_cityscapes_has_the_published_stages() -> None:
    config = get_recipe("dilatednet_cityscapes")
    front, context, joint = config.stages
    assert (config.data.batch_size, config.data.crop_size, config.labels) == (8, (628, 628), "cityscapes")
    assert [stage.optimizer.lr for stage in config.stages] == [1e-4, 1e-4, 1e-5]
    assert {(s.optimizer.momentum, s.optimizer.weight_decay) for s in config.stages} == {(0.99, 5e-4)}
    assert [stage.steps for stage in config.stages] == [40_000, 24_000, 60_000]
    assert context.data["batch_size"] * context.accumulate == 100
    assert context.data["crop_size"] == [1024 + 372, 2048 + 372]
    assert joint.data == {"batch_size": 1, "crop_size": [1396, 1396]}
    assert (front.accumulate, joint.accumulate) == (1, 1)
    assert context.trainable == (r"^context\.",) and context.model is not None and context.model.options["dropout"] == 0
    assert joint.model is not None and joint.model.options["context_layers"] == 10


@pytest.mark.parametrize(
    ("name", "upsample"),
    [
        ("dilatednet_voc", False),
        ("dilatednet_camvid", False),
        ("dilatednet_kitti", False),
        ("dilatednet_cityscapes", True),
    ],
)
def test_dilatednet_windows_are_sizes_that_cells_fill(name: str, upsample: bool) -> None:
    config = get_recipe(name)
    for stage in config.stages:
        assert stage.model is not None
        assert stage.model.options.get("upsample", False) == upsample
        with torch.device("meta"):
            network = create_model("dilatednet", {**stage.model.options, **THIN}, num_classes=2)
        assert config.data.mirror == network.margin
        size = stage.data.get("crop_size", config.data.crop_size)
        assert network.valid_size(*size) == tuple(size)


def test_context_stage_keeps_the_front_end_and_trains_the_context_alone() -> None:
    labels = LabelSpace.numbered(3)
    front = create_model("dilatednet", {**THIN, "context": "none"}, num_classes=3)
    stage = get_recipe("dilatednet_voc").stages[1]
    network = create_model("dilatednet", {**THIN, "context": "basic"}, num_classes=3)
    source = Artifact(network=front, labels=labels, provenance={}, preprocessing=Preprocessing())
    report = transfer(network, labels, source)
    assert all(key.startswith("context.") for key, _ in report.reinitialised)
    for key, value in front.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
    optimizer = build_optimizer(stage, network)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert network.context is not None
    assert trained == {id(p) for p in network.context.parameters()}  # type: ignore[union-attr, operator]
    rates = {p.ndim: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {4: 1e-3, 1: 2e-3}


def test_parsenet_rates_are_those_of_largefov_and_scales_keep_the_trunks() -> None:
    (stage,) = get_recipe("parsenet_voc").stages
    network = create_model("parsenet", {"width": 2, "fc_width": 4}, num_classes=3)
    names = {id(p): name for name, p in network.named_parameters()}
    found = {
        names[id(p)]: (round(group["lr"] / 1e-3), group["weight_decay"])
        for group in build_optimizer(stage, network).param_groups
        for p in group["params"]
    }
    assert found["backbone.conv1_1.weight"] == (1, 5e-4)
    assert found["backbone.fc6.bias"] == (2, 0)
    assert found["head.classifier.weight"] == (10, 5e-4)
    assert found["head.classifier.bias"] == (20, 0)
    assert found["head.local_norm.weight"] == found["head.context_norm.weight"] == (1, 0)
    assert network_description(network)["options"]["fusion"] == "early"
