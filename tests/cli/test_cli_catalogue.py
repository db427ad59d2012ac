"""``perpixel models``, ``recipes`` and ``config``: what there is, and what a run would use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import Done

from perpixel.config import RunConfig, config_from_dict, load_config
from perpixel.recipes import RECIPES, get_recipe

Cli = Callable[..., Done]


def test_models_table_has_every_network_with_its_parameters(run_cli: Cli) -> None:
    done = run_cli("models", "--json", "m.json")
    listed = {model["name"]: model for model in json.loads(Path("m.json").read_text())}
    assert set(listed) >= {"dfn", "fcn"}
    line = next(line for line in done.out.splitlines() if line.startswith("dfn "))
    assert "CVPR 2018" in line and f"{listed['dfn']['parameters']:,}" in line


def test_models_name_shows_options_with_defaults(run_cli: Cli) -> None:
    done = run_cli("models", "dfn")
    assert "  width = 512" in done.out
    assert "  name = resnet101" in done.out


def test_models_json_counts_what_the_network_holds(run_cli: Cli) -> None:
    from perpixel.models import create_model

    network = create_model("dfn", num_classes=21)
    assert run_cli("models", "dfn", "--json", "-").json["parameters"] == sum(p.numel() for p in network.parameters())


def test_models_unknown_name_gives_the_nearest(run_cli: Cli) -> None:
    done = run_cli("models", "dfm")
    assert done.code == 2
    assert "unknown model 'dfm'; did you mean 'dfn'?" in done.err


def test_recipes_table_has_every_recipe(run_cli: Cli) -> None:
    done = run_cli("recipes", "--json", "r.json")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == list(RECIPES)
    assert [recipe["name"] for recipe in json.loads(Path("r.json").read_text())] == list(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_prints_a_file_that_train_reads(run_cli: Cli, name: str) -> None:
    done = run_cli("recipes", name)
    assert done.out.startswith("# ")
    Path("again.yaml").write_text(done.out, encoding="utf-8")
    assert load_config("again.yaml") == get_recipe(name)


def test_recipes_name_json_holds_the_configuration(run_cli: Cli) -> None:
    values = run_cli("recipes", "dfn_voc", "--json", "-").json
    assert config_from_dict(values["config"]) == get_recipe("dfn_voc")


def test_config_show_prints_the_resolved_run(run_cli: Cli) -> None:
    done = run_cli("config", "show", "--recipe", "dfn_demo", "steps=40", "--data", "camvid:/d")
    assert done.code == 0, done.err
    Path("c.yaml").write_text(done.out, encoding="utf-8")
    config: RunConfig = load_config("c.yaml")
    assert (config.stages[0].steps, config.data.source) == (40, "camvid:/d")
    assert run_cli("config", "show", "c.yaml").out == done.out


def test_config_show_refuses_unknown_names(run_cli: Cli) -> None:
    done = run_cli("config", "show", "--recipe", "dfn_demo", "model.name=dfnn", "sed=1")
    assert done.code == 2
    assert "did you mean 'dfn'" in done.err
    assert "did you mean 'seed'" in done.err


def test_config_schema_describes_every_key(run_cli: Cli) -> None:
    schema = run_cli("config", "schema").json
    assert set(schema["properties"]) == set(RunConfig.model_fields)
