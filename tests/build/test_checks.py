"""check_names: what only the models and losses know is found before a run starts, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import small_config

from perpixel.build import check_names
from perpixel.config import RunConfig, apply_overrides
from perpixel.errors import ConfigError
from perpixel.recipes import RECIPES, get_recipe


def problems(config: RunConfig) -> dict[str, tuple[Any, str]]:
    return {str(where): (value, message) for where, value, message in check_names(config)}


def test_check_names_of_a_good_configuration_finds_nothing() -> None:
    assert check_names(small_config("x")) == []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_check_names_of_every_recipe_finds_nothing(name: str) -> None:
    assert check_names(get_recipe(name)) == []


def test_check_names_finds_options_of_another_kind() -> None:
    config = small_config("x", model={"name": "fcn", "options": {"width": 2.5, "auxiliary": "perhaps"}})
    found = problems(config)
    assert found["stages.0.model.options.width"] == (2.5, "must be a whole number")
    assert found["stages.0.model.options.auxiliary"] == ("perhaps", "must be true or false")


def test_check_names_reports_everything_at_once() -> None:
    config = small_config(
        "x",
        start="nowhere/best",
        model={"name": "dfn", "options": {"widht": 3}, "backbone": {"name": "resnet81", "weights": "missing.pth"}},
        terms=[{"name": "main", "loss": "cross_entrpy"}, {"name": "border", "output": "border", "loss": "focl"}],
    )
    found = problems(config)
    assert set(found) == {
        "stages.0.start",
        "stages.0.model.options.widht",
        "stages.0.model.backbone.name",
        "stages.0.model.backbone.weights",
        "stages.0.terms.0.loss",
        "stages.0.terms.1.loss",
    }
    assert found["stages.0.model.options.widht"][0] == 3
    assert "did you mean 'width'?" in found["stages.0.model.options.widht"][1]
    assert (
        "did you mean 'resnet18'?" in found["stages.0.model.backbone.name"][1]
        or "resnet" in (found["stages.0.model.backbone.name"][1])
    )
    assert "did you mean 'cross_entropy'?" in found["stages.0.terms.0.loss"][1]
    assert found["stages.0.start"] == ("nowhere/best", "no such artifact or weight file")
    assert "no such weight file" in found["stages.0.model.backbone.weights"][1]


def test_check_names_unknown_model_offers_the_nearest() -> None:
    value, message = problems(small_config("x", model={"name": "dfm", "options": {}}))["stages.0.model.name"]
    assert value == "dfm"
    assert "did you mean 'dfn'?" in message
    assert "Known: adelaide, crf_rnn" in message


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        ({"model": {"options": {"width": 0}}}, "stages.0.model.options", "DFN width must be >= 1, got 0"),
        ({"model": {"backbone": {"stem": "deep48"}}}, "stages.0.model.backbone.stem", "unknown stem 'deep48'"),
        (
            {"terms": [{"name": "main", "loss": "focal", "options": {"gama": 2.0}}]},
            "stages.0.terms.0",
            "gama",
        ),
    ],
)
def test_check_names_wrong_values_name_their_key(changes: dict[str, Any], where: str, message: str) -> None:
    found = problems(small_config("x", **changes))
    assert list(found) == [where]
    assert message in found[where][1]


def test_check_names_option_of_the_wrong_kind_is_said_in_plain_words() -> None:
    found = problems(small_config("x", model={"options": {"width": "wide"}}))
    (message,) = [message for _, message in found.values()]
    assert "<module" not in message


def test_check_names_existing_start_and_weights_pass(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    assert check_names(small_config("x", start=str(file), model={"backbone": {"weights": str(file)}})) == []


def test_check_names_with_overrides_names_every_override() -> None:
    overrides = ["model.name=dnf", "model.backbone.name=resnet181"]
    with pytest.raises(ConfigError) as caught:
        apply_overrides(small_config("x"), overrides, checks=[check_names])
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(any(override in line for line in lines) for override in overrides)
