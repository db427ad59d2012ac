"""Recipes: each one loads back, names itself and fits the network it configures."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpixel.backbones import BackboneConfig
from perpixel.config import dump_config, load_config, variant
from perpixel.errors import ConfigError
from perpixel.labels import known_label_spaces
from perpixel.models import MODELS
from perpixel.recipes import RECIPES, get_recipe, recipe_details, recipe_summary


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_dumped_and_loaded_is_equal(name: str, tmp_path: Path) -> None:
    config = get_recipe(name)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert variant(config) == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_names_itself_and_known_things(name: str) -> None:
    config = get_recipe(name)
    assert (config.name, config.recipe) == (name, name)
    assert config.labels is None or config.labels in known_label_spaces()
    for index in range(len(config.stages)):
        model = config.model_of(index)
        if model.backbone is not None:
            BackboneConfig(**model.backbone.model_dump())
        MODELS[model.name].config(**model.options)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_docstring_states_command_hardware_time_and_score(name: str) -> None:
    details = recipe_details(name)
    assert recipe_summary(name) == details.splitlines()[0]
    assert recipe_summary(name).endswith(".") and len(recipe_summary(name)) <= 120
    for word in ("Command: ``perpixel ", "Hardware: ", "Time: ", "Score: "):
        assert word in details, word
    assert name in details


def test_recipe_voc_has_the_numbers_of_the_published_code() -> None:
    config = get_recipe("dfn_voc")
    stage = config.stages[0]
    assert (config.data.crop_size, config.data.batch_size, config.data.train_split) == ((512, 512), 32, "train_aug")
    assert config.data.scales == (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
    assert (stage.optimizer.lr, stage.optimizer.weight_decay, stage.optimizer.momentum) == (8e-4, 1e-5, 0.9)
    assert (stage.schedule.name, stage.schedule.power, stage.new_layers_lr_factor) == ("poly", 0.9, 10.0)
    assert stage.steps == 120 * (10582 // 32)
    assert stage.no_decay_norm_bias


def test_recipe_voc_paper_differs_where_the_paper_does() -> None:
    config = get_recipe("dfn_voc_paper")
    assert config.data.scales == (0.5, 0.75, 1.0, 1.5, 1.75)
    assert (config.stages[0].optimizer.lr, config.stages[0].optimizer.weight_decay) == (4e-3, 1e-4)
    assert "Assumed: crop" in recipe_details("dfn_voc_paper")


def test_recipe_cityscapes_has_the_numbers_of_the_published_code() -> None:
    config = get_recipe("dfn_cityscapes")
    assert (config.data.crop_size, config.data.batch_size, config.stages[0].steps) == ((800, 800), 16, 80_000)
    assert (config.stages[0].optimizer.lr, config.stages[0].optimizer.weight_decay) == (7e-4, 1e-4)


def test_get_recipe_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no recipe 'dfn_vok'; did you mean 'dfn_voc'\\? Known: dfn_demo, "):
        get_recipe("dfn_vok")
    with pytest.raises(ConfigError, match="no recipe"):
        recipe_summary("xyz")
