"""Reading, writing and overriding of configurations: every mistake at once, with its line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perpixel.config import (
    BackboneChoice,
    DataChoice,
    ModelChoice,
    OptimizerChoice,
    RunConfig,
    SceneChoice,
    ScheduleChoice,
    Stage,
    TermChoice,
    apply_overrides,
    config_from_dict,
    dump_config,
    json_schema,
    load_config,
)
from perpixel.errors import ConfigError

BASE = RunConfig(name="base", stages=(Stage(model=ModelChoice(), steps=100),))
TWO = RunConfig(stages=(Stage(name="a", model=ModelChoice(), steps=5), Stage(name="b", start="previous", steps=7)))

SMALL = """\
labels: camvid11
data: {source: camvid:/d, crop_size: [64, 96]}
stages:
  - model: {name: dfn, options: {width: 64}}
    optimizer: {lr: 1e-3}
    steps: 50
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def error_lines(call: Callable[[], Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value).splitlines()


def test_load_config_small_file_fills_in_the_defaults(write: Write) -> None:
    config = load_config(write(SMALL))
    assert config.data.crop_size == (64, 96)
    assert config.stages[0].optimizer.lr == 1e-3
    assert config.stages[0].model == ModelChoice(name="dfn", options={"width": 64})
    assert config.stages[0].schedule == ScheduleChoice()


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("5E+2", 500.0), ("-.5e1", -5.0), ("1e5", 1e5)])
def test_load_config_number_with_exponent_is_a_number_even_in_options(write: Write, text: str, value: float) -> None:
    config = load_config(write(SMALL.replace("width: 64", f"width: {text}")))
    assert config.stages[0].model is not None
    assert config.stages[0].model.options == {"width": value}


def test_load_config_every_mistake_is_reported_with_its_line(write: Write) -> None:
    path = write(
        """\
labels: camvid11
data:
  crop_size: [0, 256]
  scales: [0.5, 1]
  flipp: 0.5
stages:
  - model:
      name: dfn
      backbone: {output_stride: 12}
    optimizer:
      lr: much
      lrr: 0.1
      name: adam
    terms: [{name: a, index: 2}]
    class_weights: median
    data: {batch_sizee: 3}
    steps: 1.5
  - steps: 10
    class_weights: [1, -2]
sed: 1
"""
    )
    assert error_lines(lambda: load_config(path)) == [
        f"{path}:3: key 'data.crop_size.0' = 0: must be greater than or equal to 1",
        f"{path}:5: key 'data.flipp' = 0.5: unknown key; did you mean 'flip'?",
        f"{path}:9: key 'stages.0.model.backbone.output_stride' = 12: must be 8, 16 or 32",
        f"{path}:11: key 'stages.0.optimizer.lr' = 'much': must be a number",
        f"{path}:12: key 'stages.0.optimizer.lrr' = 0.1: unknown key; did you mean 'lr'?",
        f"{path}:13: key 'stages.0.optimizer.name' = 'adam': must be 'sgd', 'adamw' or 'rmsprop'; "
        "did you mean 'adamw'?",
        f"{path}:14: key 'stages.0.terms.0' = {{'name': 'a', 'index': 2}}: term 'a': there is no logits[2]",
        f"{path}:15: key 'stages.0.class_weights' = 'median': must be 'none', 'median_frequency', "
        "'median_frequency_eigen', 'sqrt_median_frequency', 'inverse_frequency', 'enet' or 'effective_number', or must "
        "be a list; did you mean 'median_frequency'?",
        f"{path}:16: key 'stages.0.data.batch_sizee' = 3: unknown key; did you mean 'batch_size'?",
        f"{path}:17: key 'stages.0.steps' = 1.5: must be a whole number",
        f"{path}:19: key 'stages.1.class_weights.1' = -2: must be greater than or equal to 0",
        f"{path}:20: key 'sed' = 1: unknown key; did you mean 'seed'?",
    ]


def test_load_config_mistakes_of_schema_conflict_check_and_override_come_together(write: Write) -> None:
    path = write(SMALL + "    data: {images: other}\nsed: 1\n")
    lines = error_lines(
        lambda: load_config(
            path,
            ["data.flip=2", "stages.4.steps=1", "lrr=1"],
            checks=[lambda config: [("stages.0.model.name", config.model_of(0).name, "no such network")]],
        )
    )
    assert lines == [
        "override 'data.flip=2': key 'data.flip' = 2: must be less than or equal to 1",
        f"{path}:4: key 'stages.0.model.name' = 'dfn': no such network",
        f"{path}:7: key 'stages.0.data.images' = 'other': needs data.masks beside it: the folder of the other half of "
        "each pair",
        f"{path}:8: key 'sed' = 1: unknown key; did you mean 'seed'?",
        "override 'stages.4.steps=1': key 'stages.4.steps' = 1: 'stages' is a list with 1 entries: give an index in "
        "[0, 0]",
        "override 'lrr=1': key 'lrr' = 1: unknown key; `perpixel config schema` lists the keys of a run and a stage",
    ]


def test_load_config_conflict_that_may_come_from_a_wrong_neighbour_is_left_out(write: Write) -> None:
    path = write(SMALL.replace("source: camvid:/d", "images: 3, masks: b"))
    assert error_lines(lambda: load_config(path)) == [
        f"{path}:2: key 'data.images' = 3: must be text; put it in quotes"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "a configuration is a mapping"),
        ("", "a configuration is a mapping"),
        ("a: [1\nb: 2\n", r"run\.yaml:2: not YAML"),
        ("a: 1\n---\nb: 2\n", r"run\.yaml:2: not YAML"),
        ("a: &x 1\nb: *x\n", r"run\.yaml:2: not YAML that can be read: the alias \*x is not read here"),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            r"run\.yaml:1: not YAML .* could not determine a constructor",
        ),
        ("{[1]: 2}: 3\n", r"run\.yaml:1: not YAML .* unhashable"),
        ("[" * 3000, "nested too deeply"),
        ("a: \x00\n", "not YAML that can be read"),
        (
            SMALL + "labels: voc\n",
            r"run\.yaml:7: key 'labels': the key stands twice, on lines 1 and 7; keep one",
        ),
        (SMALL + "3: voc\n", r"run\.yaml:7: key '3' = 'voc': a key must be text"),
        (SMALL.replace("    steps: 50\n", ""), r"run\.yaml:4: key 'stages.0.steps': the key is required and missing"),
        (SMALL.replace("[64, 96]", "[64]"), r"run\.yaml:2: key 'data.crop_size.1': an entry is missing"),
        (SMALL.replace("[64, 96]", "64"), r"run\.yaml:2: key 'data.crop_size' = 64: must be a list"),
        (SMALL.replace("{lr: 1e-3}", "adamw"), "'adamw': must be a mapping with keys among name, lr, weight_decay"),
        (SMALL.replace("{lr: 1e-3}", "{xyzzy: 1}"), "unknown key; known here: name, lr, weight_decay"),
        (
            SMALL.replace("{width: 64}", "{width: {a: 1}}"),
            r"run\.yaml:4: key 'stages.0.model.options.width' = {'a': 1}",
        ),
        (SMALL + "    class_weights: []\n", r"run\.yaml:7: key 'stages.0.class_weights' = \[\]: "),
        (SMALL.replace("labels: camvid11", "labels: yes"), r"run\.yaml:1: key 'labels' = True: must be text"),
        (SMALL + f"recipe: {'x' * 200}\nseed: -1\n", r"run\.yaml:8: key 'seed' = -1: must be greater"),
        ("labels: camvid11\n", r"run\.yaml: key 'stages': the key is required and missing"),
    ],
)
def test_load_config_file_that_describes_no_run_is_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(text))


def test_load_config_missing_large_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="1048577 bytes"):
        load_config(large)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 text \\(byte 3\\)"):
        load_config(binary)


def test_load_config_long_value_is_shortened_in_the_message(write: Write) -> None:
    [line] = error_lines(lambda: load_config(write(SMALL.replace("1e-3", "x" * 500))))
    assert len(line) < 300 and "…" in line


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("optimizer.lr=1e-2", lambda c: c.stages[0].optimizer.lr == 1e-2),
        ("steps=7", lambda c: c.stages[0].steps == 7),
        ("stages.0.steps=8", lambda c: c.stages[0].steps == 8),
        ("model.options.width=64", lambda c: c.stages[0].model.options == {"width": 64}),
        ("model.options.sizes=[1, 2]", lambda c: c.stages[0].model.options == {"sizes": (1, 2)}),
        ("model.backbone.name=resnet50", lambda c: c.stages[0].model.backbone == BackboneChoice(name="resnet50")),
        ("schedule.power=1", lambda c: c.stages[0].schedule.power == 1.0),
        ("data.crop_size=[256, 320]", lambda c: c.data.crop_size == (256, 320)),
        ("data.crop_size.1=320", lambda c: c.data.crop_size == (256, 320)),
        ("data.source=a=b", lambda c: c.data.source == "a=b"),
        ("data.source=scenes", lambda c: c.data.scenes == SceneChoice()),
        ("data.scenes.train=3", lambda c: c.data.scenes == SceneChoice(train=3)),
        ("stages.0.data.batch_size=3", lambda c: c.data_of(0).batch_size == 3),
        ("labels=null", lambda c: c.labels is None),
        ("labels=5", lambda c: c.labels == 5),
        ("clip_norm=10", lambda c: c.stages[0].clip_norm == 10.0),
        ("name=other", lambda c: c.name == "other"),
        ("evaluation.save_predictions=false", lambda c: c.evaluation.save_predictions is False),
        ("evaluation.save_predictions=4", lambda c: c.evaluation.save_predictions == 4),
    ],
)
def test_apply_overrides_token_changes_its_value_alone(token: str, expected: Callable[[RunConfig], bool]) -> None:
    changed = apply_overrides(BASE, [token])
    assert not expected(BASE) or token == "labels=null"
    assert expected(changed)
    assert BASE.stages[0].steps == 100


def test_apply_overrides_last_one_wins_and_none_changes_nothing() -> None:
    assert apply_overrides(BASE, ["steps=3", "steps=4"]).stages[0].steps == 4
    assert apply_overrides(BASE, []) == BASE


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("optimizer.lr=abc", "override 'optimizer.lr=abc': key 'stages.0.optimizer.lr' = 'abc': must be a number"),
        ("optimizer.lrr=1", "key 'stages.0.optimizer.lrr' = 1: unknown key; did you mean 'lr'?"),
        ("optimiser.lr=1", "override 'optimiser.lr=1': key 'optimiser.lr' = 1: unknown key; did you mean 'optimizer'?"),
        ("steps", "override 'steps': write section.key=value"),
        ("=3", "override '=3': write section.key=value"),
        ("a..b=3", "override 'a..b=3': write section.key=value"),
        ("steps=[1", "override 'steps=[1': '[1' is not a YAML value"),
        ("stages.3.steps=1", "'stages' is a list with 1 entries: give an index in [0, 0]"),
        ("stages.main.steps=1", "'stages' is a list with 1 entries"),
        ("groups.0.lr_factor=2", "'stages.0.groups' is an empty list: set it as a whole"),
        ("seed.x=1", "'seed' holds 0, which has no keys"),
        ("stages=[]", "override 'stages=[]': key 'stages' = []: "),
        ("model=null", "override 'model=null': key 'stages.0.model' = None: the first stage needs a network"),
        ("schedule.warmup_steps=100", "fewer than the stage's steps = 100"),
        ("schedule.name=step", "key 'stages.0.schedule.milestones' = []: schedule 'step' needs milestones"),
    ],
)
def test_apply_overrides_token_that_does_not_fit_is_named(token: str, message: str) -> None:
    assert message in "\n".join(error_lines(lambda: apply_overrides(BASE, [token])))


def test_apply_overrides_malformed_tokens_are_all_named() -> None:
    assert len(error_lines(lambda: apply_overrides(BASE, ["a", "b=[", "c"]))) == 3


def test_apply_overrides_stage_key_with_several_stages_asks_for_the_number() -> None:
    [line] = error_lines(lambda: apply_overrides(TWO, ["optimizer.lr=1"]))
    assert "belongs to a stage, and there are 2 (0 'a', 1 'b'): write stages.N.optimizer" in line
    changed = apply_overrides(TWO, ["stages.1.optimizer.lr=1"])
    assert [stage.optimizer.lr for stage in changed.stages] == [1e-3, 1.0]


def test_apply_overrides_stage_key_without_stages_is_refused(write: Write) -> None:
    path = write("labels: voc\n")
    assert (
        "belongs to a stage, and the configuration has none" in error_lines(lambda: load_config(path, ["steps=3"]))[-1]
    )


def test_apply_overrides_checks_are_run_and_may_give_paths_as_tuples() -> None:
    [line] = error_lines(
        lambda: apply_overrides(
            BASE,
            ["model.name=dfm"],
            checks=[lambda config: [(("stages", 0, "model", "name"), config.model_of(0).name, "no such network")]],
        )
    )
    assert line == "override 'model.name=dfm': key 'stages.0.model.name' = 'dfm': no such network"


def test_config_from_dict_error_names_the_source() -> None:
    assert config_from_dict(BASE.model_dump()) == BASE
    [line] = error_lines(lambda: config_from_dict({"stages": [{"model": {}, "steps": 0}]}, source="artifact"))
    assert line == "artifact: key 'stages.0.steps' = 0: must be greater than or equal to 1"


def test_dump_config_holds_every_default_and_loads_back(write: Write) -> None:
    text = dump_config(TWO)
    assert "crop_size: [256, 256]" in text and "momentum: 0.9" in text
    assert load_config(write(text)) == TWO


def test_dump_config_leaves_the_yaml_package_as_it_was() -> None:
    dump_config(BASE)
    assert yaml.safe_load("a: 1e-3\nb: 2026-11-01")["a"] == "1e-3"
    assert yaml.safe_dump("1e-3") == "1e-3\n...\n"


_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
_scalars = st.one_of(
    _words,
    st.booleans(),
    st.none(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["1e-3", "2026-11-01", "12:30", "null", "yes", "0x1", "010", "~", ".5e1", "*a", "&a", "1_0e1"]),
)
_options = st.dictionaries(_words, st.one_of(_scalars, st.lists(_scalars, max_size=3).map(tuple)), max_size=4)
_positive = st.floats(1e-12, 1e12)


@st.composite
def run_configs(draw: st.DrawFn) -> RunConfig:
    stage = Stage(
        model=ModelChoice(
            name=draw(_words), options=draw(_options), backbone=draw(st.sampled_from([None, BackboneChoice()]))
        ),
        optimizer=OptimizerChoice(lr=draw(_positive), weight_decay=draw(_positive)),
        terms=draw(st.sampled_from([None, (TermChoice(name="1e5", options=draw(_options)),)])),
        class_weights=draw(
            st.one_of(st.just("median_frequency"), st.lists(_positive, min_size=1, max_size=3).map(tuple))
        ),
        data=draw(st.sampled_from([{}, {"crop_size": (3, 4), "flip": 0.1}, {"scenes": {"train": 3}}])),
        steps=draw(st.integers(1, 10**9)),
    )
    return RunConfig(
        labels=draw(st.one_of(st.none(), st.integers(1, 255), _words)),
        data=DataChoice(source=draw(st.one_of(st.none(), _words)), flip=draw(st.floats(0, 1))),
        stages=(stage, Stage(name="1e5", start="previous", steps=1)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=run_configs())
def test_dump_config_any_configuration_loads_back_equal(tmp_path: Path, config: RunConfig) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    again = load_config(path)
    assert again == config
    assert dump_config(again) == dump_config(config)


def test_json_schema_documents_keys_defaults_and_stage_data() -> None:
    schema = json_schema()
    power = schema["$defs"]["ScheduleChoice"]["properties"]["power"]
    assert power["default"] == 0.9 and "Exponent of poly" in power["description"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Stage"]["properties"]["data"]["properties"]["workers"]["anyOf"][0]["minimum"] == 0
    assert "'ge'" not in str(schema) and "'gt'" not in str(schema)


def test_config_and_recipes_import_no_torch() -> None:
    code = "import sys, perpixel.config, perpixel.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
