"""The recipes of HRNet and OCRNet: published numbers, and what they train."""

from __future__ import annotations

import pytest

from perpixel.build.checks import check_names
from perpixel.build.networks import build_optimizer
from perpixel.config import RunConfig
from perpixel.models import Network, create_model
from perpixel.recipes import get_recipe
from perpixel.recipes.hrnet import CITYSCAPES_CLASS_WEIGHTS

SETS = ("cityscapes", "pascal_context", "lip", "ade20k", "coco_stuff")
NAMES = [f"{model}_{data}" for model in ("hrnet", "ocrnet") for data in SETS]


def thin(config: RunConfig) -> Network:
    model = config.model_of(0)
    assert model.backbone is not None
    narrow = {"width": 2, "stem_width": 2, "bottleneck_width": 1, "num_modules": (1, 1, 1), "num_blocks": 1}
    return create_model(model.name, {**model.options, **narrow}, num_classes=19, backbone=model.backbone.name)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_of_hrnet_names_only_what_exists(name: str) -> None:
    assert check_names(get_recipe(name)) == []


@pytest.mark.parametrize(
    ("data", "crop", "batch", "lr", "decay", "steps", "largest", "labels"),
    [
        ("cityscapes", (512, 1024), 12, 0.01, 5e-4, 484 * (2975 // 12), 2.1, "cityscapes"),
        ("pascal_context", (520, 520), 16, 0.001, 1e-4, 200 * (4998 // 16), 2.1, None),
        ("lip", (473, 473), 40, 0.007, 5e-4, 150 * (30462 // 40), 1.6, None),
        ("ade20k", (520, 520), 16, 0.02, 1e-4, 120 * (20210 // 16), 1.6, "ade20k150"),
        ("coco_stuff", (520, 520), 16, 0.001, 1e-4, 110 * (9000 // 16), 2.1, None),
    ],
)
def test_recipe_of_hrnet_has_the_numbers_of_the_published_code(
    data: str,
    crop: tuple[int, int],
    batch: int,
    lr: float,
    decay: float,
    steps: int,
    largest: float,
    labels: str | None,
) -> None:
    for model in ("hrnet", "ocrnet"):
        config = get_recipe(f"{model}_{data}")
        (stage,) = config.stages
        assert (config.data.crop_size, config.data.batch_size, config.labels) == (crop, batch, labels)
        scales = config.data.scales
        assert scales is not None
        assert (scales[0], scales[1], scales[-1], len(scales)) == (0.5, 0.6, largest, round(10 * largest) - 4)
        optimizer = stage.optimizer
        assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", lr, 0.9, decay)
        assert (stage.schedule.name, stage.schedule.power, stage.steps) == ("poly", 0.9, steps)
        assert config.model_of(0).backbone.name == "hrnet_w48"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["ocrnet_pascal_context", "ocrnet_cityscapes"])
def test_recipe_of_ocrnet_trains_new_layers_faster_where_published_and_decays_all(name: str) -> None:
    config = get_recipe(name)
    network, stage = thin(config), config.stages[0]
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    rates = {
        names[id(p)]: (group["lr"] / stage.optimizer.lr, group["weight_decay"])
        for group in build_optimizer(stage, network).param_groups
        for p in group["params"]
    }
    factor = 10 if name == "ocrnet_pascal_context" else 1
    decay = stage.optimizer.weight_decay
    assert rates["backbone.conv1.weight"] == (pytest.approx(1), decay)
    assert rates["backbone.bn1.bias"] == (pytest.approx(1), decay)
    for key in ("classifier.weight", "auxiliary_head.mix.bias", "context.query.0.norm.weight", "pixels.conv.weight"):
        assert rates[key] == (pytest.approx(factor), decay)


def test_recipes_of_hrnet_differ_in_alignment_class_weights_and_hard_pixels() -> None:
    assert [thin(get_recipe(name)).align_corners for name in NAMES] == [False] * 3 + [True] * 7
    weighted = {name for name in NAMES if get_recipe(name).stages[0].class_weights == CITYSCAPES_CLASS_WEIGHTS}
    assert weighted == {"hrnet_cityscapes", "ocrnet_cityscapes"}
    assert len(CITYSCAPES_CLASS_WEIGHTS) == 19
    mined = {name for name in NAMES if thin(get_recipe(name)).default_terms()[0].loss == "ohem"}
    assert mined == {"ocrnet_ade20k", "ocrnet_coco_stuff"}
    assert {name for name in NAMES if get_recipe(name).data.flip == 0} == {"hrnet_lip", "ocrnet_lip"}
