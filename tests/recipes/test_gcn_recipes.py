"""The recipes of GCN and of the U-Net on a classification network hold what is stated, and fit their networks."""

from __future__ import annotations

import torch

from perpixel.build.networks import build_network
from perpixel.recipes import get_recipe, recipe_details


def test_recipe_gcn_voc_has_what_the_paper_states() -> None:
    config = get_recipe("gcn_voc")
    first, second = config.stages
    assert (config.data.crop_size, config.data.batch_size, config.data.flip) == ((512, 512), 1, 0.5)
    assert [(s.optimizer.name, s.optimizer.momentum, s.optimizer.weight_decay) for s in config.stages] == [
        ("sgd", 0.99, 5e-4)
    ] * 2
    assert (config.data.train_split, second.data["train_split"], second.start) == ("train_aug", "train", "previous")
    assert first.model is not None and first.model.options == {"kernel_sizes": (15,)}
    assert "Assumed: learning rate" in recipe_details("gcn_voc")


def test_recipe_gcn_cityscapes_has_larger_kernels_and_crops() -> None:
    config = get_recipe("gcn_cityscapes")
    model = config.stages[0].model
    assert model is not None and model.options == {"kernel_sizes": (25,)}
    assert (config.data.crop_size, config.labels) == ((800, 800), "cityscapes")


def test_recipe_unet_backbone_camvid_reads_all_five_maps() -> None:
    config = get_recipe("unet_backbone_camvid")
    model = config.stages[0].model
    assert model is not None and model.backbone is not None
    offline = model.model_copy(update={"backbone": model.backbone.model_copy(update={"weights": "none"})})
    with torch.device("meta"):
        network = build_network(offline, 11)
    assert network.backbone is not None and network.backbone.strides == (2, 4, 8, 16, 32)
    assert network.valid_size(*config.data.crop_size) == config.data.crop_size
