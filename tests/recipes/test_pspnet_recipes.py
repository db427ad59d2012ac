"""PSPNet's recipes: the numbers that semseg trains with."""

from __future__ import annotations

import pytest

from perpixel.backbones import BackboneConfig
from perpixel.labels import LabelSpace
from perpixel.models import PSPNetConfig
from perpixel.recipes import get_recipe


@pytest.mark.parametrize(
    ("name", "trunk", "crop", "images", "epochs", "classes"),
    [
        ("pspnet_r50_ade20k", "resnet50", 473, 20_210, 100, 150),
        ("pspnet_r101_voc", "resnet101", 473, 10_582, 50, 21),
        ("pspnet_r101_cityscapes", "resnet101", 713, 2_975, 200, 19),
    ],
)
def test_pspnet_recipe_has_the_published_numbers(
    name: str, trunk: str, crop: int, images: int, epochs: int, classes: int
) -> None:
    config = get_recipe(name)
    (stage,) = config.stages
    assert config.data.crop_size == (crop, crop)
    assert (crop - 1) % 8 == 0
    assert (config.data.batch_size, config.data.scale_range, config.data.flip) == (16, (0.5, 2.0), 0.5)
    assert stage.steps == images // 16 * epochs
    assert (stage.optimizer.lr, stage.optimizer.momentum, stage.optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    assert (stage.schedule.name, stage.schedule.power, stage.new_layers_lr_factor) == ("poly", 0.9, 10.0)
    assert not stage.no_decay_norm_bias
    model = config.model_of(0)
    assert model.backbone is not None
    backbone = BackboneConfig(**{**model.backbone.model_dump(), "weights": "none"})
    assert (backbone.name, backbone.output_stride, backbone.dilation) == (trunk, 8, "full")
    assert config.labels is not None
    assert LabelSpace.load(config.labels).num_classes == classes
    network = PSPNetConfig(**model.options)
    assert (network.auxiliary, network.auxiliary_weight, network.bins) == (True, 0.4, (1, 2, 3, 6))


def test_pspnet_on_voc_trains_on_the_augmented_masks() -> None:
    assert get_recipe("pspnet_r101_voc").data.train_split == "train_aug"
