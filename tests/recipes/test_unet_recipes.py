"""U-Net's recipes hold the numbers that paper and code state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.build import load, train
from perpixel.build.datasets import augmentation
from perpixel.build.networks import build_criterion, build_network, check_batch_norm, in_channels
from perpixel.config import ModelChoice, variant
from perpixel.errors import InvalidValue
from perpixel.recipes import get_recipe, recipe_details


def test_recipe_isbi_has_what_the_paper_states() -> None:
    config = get_recipe("unet_isbi")
    stage, drawn = config.stages[0], augmentation(config.data)
    assert (drawn.crop_size, drawn.mirror, drawn.elastic, drawn.elastic_grid) == ((572, 572), 92, 10.0, 3)
    assert (drawn.rotation, drawn.flip) == (180.0, 0.0)
    assert (stage.optimizer.name, stage.optimizer.momentum, config.data.batch_size) == ("sgd", 0.99, 1)
    assert stage.model == ModelChoice(name="unet_original", options={"in_channels": 1})
    assert "Assumed: learning rate" in recipe_details("unet_isbi")


def test_recipe_isbi_loss_is_distance_weighted_and_leaves_the_margin_out() -> None:
    stage = variant(get_recipe("unet_isbi"), model={"options": {"width": 1}}).stages[0]
    assert stage.model is not None
    network = build_network(stage.model, 2)
    criterion = build_criterion(stage, network, None)
    assert [term.loss for term in criterion.terms] == ["distance_weighted"]
    assert criterion.margin == 92
    assert network.valid_size(*get_recipe("unet_isbi").data.crop_size) == (572, 572)


def test_recipe_carvana_has_the_numbers_of_the_published_code() -> None:
    config = get_recipe("unet_carvana")
    stage = config.stages[0]
    optimizer = stage.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.momentum) == ("rmsprop", 1e-5, 1e-8, 0.999)
    assert (stage.schedule.name, stage.schedule.patience, stage.clip_norm) == ("plateau", 5, 1.0)
    assert not stage.no_decay_norm_bias
    assert config.precision == "fp32"
    assert (stage.steps, config.evaluation.every, config.data.val_share) == (5 * 4580, 4580 // 5, 0.1)
    assert build_network(ModelChoice(name="unet", options={"widths": (2, 4)}), 2).default_terms()[1].loss == "dice"


def test_unet_original_without_options_reads_grey_images() -> None:
    assert in_channels(ModelChoice(name="unet_original")) == 1
    assert in_channels(ModelChoice(name="unet")) == 3


def test_unet_on_one_crop_without_a_second_coarsest_cell_is_refused_before_training() -> None:
    network = build_network(ModelChoice(name="unet", options={"widths": (2, 4, 4, 4, 4)}), 2)
    with pytest.raises(InvalidValue, match="in the coarsest map: take crops over 31 pixels"):
        check_batch_norm(network, (16, 31), 1, frozen=False)
    check_batch_norm(network, (16, 32), 1, frozen=False)


def write_cells(folder: Path, count: int) -> None:
    """Grey pictures of bright cells between dark membranes, with masks of 0 and 255."""
    for number in range(count):
        y, x = np.mgrid[:40, :50]
        cells = ((y + number) % 12 > 1) & ((x + 2 * number) % 14 > 1)
        noise = np.random.default_rng(number).integers(-20, 21, cells.shape)
        for kind, pixels in (("image", 60 + 120 * cells + noise), ("label", 255 * cells)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{number:02}.png")


def test_recipe_isbi_runs_from_folders_of_grey_slices_to_scores(tmp_path: Path) -> None:
    write_cells(tmp_path / "train", 2)
    write_cells(tmp_path / "val", 1)
    config = variant(
        get_recipe("unet_isbi"),
        steps=2,
        data={"source": str(tmp_path), "crop_size": (188, 188), "workers": 0},
        model={"options": {"width": 1}},
        evaluation={"every": 2, "save_predictions": False},
        device="cpu",
    )
    result = train(config, out=tmp_path / "run")
    assert [row["name"] for row in result.scores["per_class"]] == ["background", "foreground"]
    assert result.scores["pixels"] == 40 * 50
    segmented = load(result.folder)(tmp_path / "val" / "image" / "00.png")
    assert segmented.mask.shape == (40, 50)
