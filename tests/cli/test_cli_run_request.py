"""Which run a command line asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.cli.run_request import RunRequest, resolve, sort_tokens
from perpixel.config import dump_config
from perpixel.errors import ConfigError
from perpixel.recipes import get_recipe


def test_sort_tokens_overrides_anywhere_are_told_apart() -> None:
    request = sort_tokens(["a=1", "images", "stages.0.optimizer.lr=[1, 2]", "masks", "seed=2"])
    assert request.folders == (Path("images"), Path("masks"))
    assert request.overrides == ("a=1", "stages.0.optimizer.lr=[1, 2]", "seed=2")


@pytest.mark.parametrize("name", ["run.yaml", "a/b.YML", "x=1.d/config.yml"])
def test_sort_tokens_yaml_name_is_a_configuration(name: str) -> None:
    tokens = [name] if "=" not in name else [f"./{name}"]
    assert sort_tokens(tokens).config == Path(tokens[0])


def test_sort_tokens_path_with_equals_sign_is_no_override() -> None:
    assert sort_tokens(["/d/lr=1/images", "/d/lr=1/masks"]).folders is not None


@pytest.mark.parametrize(
    "tokens, message",
    [
        ([], "nothing says what to run"),
        (["seed=1"], "nothing says what to run"),
        (["a", "b", "c"], "cannot tell what to run from 'a b c'"),
        (["one"], "cannot tell what to run from 'one'"),
        (["a.yaml", "b.yaml"], "cannot tell what to run"),
        (["optimizer lr=1"], "without spaces"),
    ],
)
def test_sort_tokens_other_tokens_show_the_three_forms(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sort_tokens(tokens)
    for form in ("--recipe NAME", "CONFIG.yaml", "IMAGES MASKS"):
        assert form in str(caught.value)


def test_sort_tokens_single_folder_points_to_data_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write --data"):
        sort_tokens([str(tmp_path)])


def test_sort_tokens_recipe_and_file_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"both --recipe dfn_demo and a\.yaml say what to run"):
        sort_tokens(["a.yaml"], recipe="dfn_demo")


def test_sort_tokens_folders_and_data_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="both the folders a b and --data d are given"):
        sort_tokens(["a", "b"], data="d")


def test_resolve_recipe_with_data_labels_and_overrides() -> None:
    request = RunRequest(recipe="dfn_demo", data="camvid:/d", labels="camvid11", overrides=("steps=40", "seed=3"))
    config = resolve(request).config
    assert (config.data.source, config.data.scenes, config.labels) == ("camvid:/d", None, "camvid11")
    assert (config.stages[0].steps, config.seed) == (40, 3)


def test_resolve_number_of_classes_becomes_a_number() -> None:
    assert resolve(RunRequest(recipe="dfn_demo", labels="7")).config.labels == 7


def test_resolve_own_override_wins_over_option() -> None:
    assert resolve(RunRequest(recipe="dfn_demo", labels="7", overrides=("labels=8",))).config.labels == 8


def test_resolve_file_equals_what_was_dumped(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(get_recipe("dfn_voc")), encoding="utf-8")
    config = resolve(RunRequest(config=path, data="voc:/v")).config
    assert config.data.source == "voc:/v"
    assert config.stages == get_recipe("dfn_voc").stages


def test_resolve_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'dfn_demo'"):
        resolve(RunRequest(recipe="dfn_dem"))


def test_resolve_runs_the_checks() -> None:
    with pytest.raises(ConfigError, match="seed' = 0: is not liked"):
        resolve(RunRequest(recipe="dfn_demo"), checks=[lambda config: [("seed", config.seed, "is not liked")]])


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1))
def test_resolve_any_data_text_arrives_unchanged(text: str) -> None:
    assert resolve(RunRequest(recipe="dfn_demo", data=text)).config.data.source == text
